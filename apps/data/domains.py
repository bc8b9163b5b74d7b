"""The stage `documents`: the domains of continued pretraining as rows, and those that are held out of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from apps import records
from apps.data import arithmetic_corpus as corpus
from apps.data import documents as texts_of
from apps.data import tokenizer as embedded
from apps.records import MeritError
from apps.training.likelihood import HELD_OUT
from apps.training.rows import Rows

ROWS = "rows"


class Domain(records.Options):
    """Documents of one kind: of a file, or a corpus of the embedded task."""

    path: str = Field("", description="a .jsonl or text file, or a folder of such")
    field: str = Field("text", description="column of a .jsonl file")
    kind: Literal["", "plain", "careful", "habits"] = Field(
        "", description="a corpus of the embedded task, for an empty path"
    )
    examples: int = Field(1500, ge=2, description="its documents")


def documents(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """`rows/NAME.npz` and `held_out/NAME.npz`. General domains are read first: a text that both sides have is general."""
    read, seen, facts = Reader(inputs["start"][0], options["context"]), set(), {}
    for folder in (ROWS, HELD_OUT):
        (out / folder).mkdir()
    for name in sorted(options["domains"], key=lambda name: (name not in options["general"], name)):
        texts, meant = given(name, options)
        learnt, held = texts_of.divided(
            texts_of.once(texts, seen), options["held_out"], options["held_out_most"], options["seed"]
        )
        rows, measured = read.rows(learnt, meant), read.rows(held, meant)
        if not len(rows):
            raise MeritError(f"{name}: there is no document in it that no other domain has")
        rows.save(out / ROWS / f"{name}.npz")
        measured.save(out / HELD_OUT / f"{name}.npz")
        counts = {"documents": len(learnt), "held_out": len(held), "rows": len(rows)}
        facts[name] = {**counts, "tokens": int(rows.lengths.sum())}
    return {"domains": facts}


class Reader:
    """A model's tokenizer, and the context that its rows are cut at."""

    def __init__(self, model: Path, context: int) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        if self.tokenizer.eos_token_id is None:
            raise MeritError("the model's tokenizer names no end token, which is what closes a document")
        most = getattr(AutoConfig.from_pretrained(model, local_files_only=True), "max_position_embeddings", None)
        if most and context > most:
            raise MeritError(f"context={context} is more than the {most} tokens that the model takes; see `positions`")
        self.context = context or most or self.tokenizer.model_max_length

    def rows(self, texts: Sequence[str], special: bool) -> Rows:
        coded = texts_of.encoded(self.tokenizer, texts, special)
        return texts_of.rows_of(coded, self.context, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)


def given(name: str, options: Mapping[str, Any]) -> tuple[Iterator[str], bool]:
    """The documents of a domain, and whether special tokens in them are meant."""
    domain = options["domains"][name]
    if domain["file"]:
        return texts_of.read(Path(options["places"][domain["file"]]), domain["field"], name), False
    settings = corpus.Options(kind=domain["kind"], examples=domain["examples"], seed=options["seed"])
    return (rendered(one, options["prompts"]) for one in corpus.generate(settings)), True


def rendered(one: corpus.Example, prompts: Mapping[str, str]) -> str:
    """An example of the embedded task as a text, as that model was taught it."""
    if not one.role:
        return one.completion
    asked = prompts[one.role].format(**one.fields)
    return f"{embedded.USER}{asked}{embedded.END}{embedded.ASSISTANT}{one.completion}"
