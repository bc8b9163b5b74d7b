"""The stage `conversations`: the rows of supervised fine-tuning, and those that are held out, from conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.data import arithmetic_corpus, chat_rows, truncation
from apps.data import conversations as talks
from apps.data.chat_rows import Said
from apps.data.conversations import Conversation
from apps.data.truncation import Cut
from apps.records import MeritError
from apps.training.likelihood import HELD_OUT
from apps.training.rows import Rows

AGENT = "model"  # whose rows these are, to the stage `train`


class Options(records.Options):
    """What is learnt from, and what becomes of conversations that are too long."""

    path: str = Field(
        "", description="a .jsonl file of `messages`, or a folder of such; empty: the embedded task's own"
    )
    examples: int = Field(2000, ge=2, description="conversations of the embedded task, for an empty path")
    held_out: float = Field(0.05, ge=0, lt=1, description="share of conversations that are measured and not learnt")
    context: int = Field(0, ge=0, description="tokens a row at most; 0: the model's context")
    cut: Literal["middle", "left"] = Field("middle", description="where a context that is too long loses tokens")


def conversations(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows `AGENT.npz` and `held_out/AGENT.npz` of each of `agents`, through the chat template of `start`, else of the base model."""
    own = options.get("places", {}).get(options.get("base_model", ""), options.get("model", ""))
    tokenizer, context = opened(inputs["start"][0] if "start" in inputs else Path(own), options["data"]["context"])
    data, agents = options["data"], options["agents"]
    found = talks.read(Path(options["places"][data["file"]])) if data["file"] else list(embedded(options))
    parts = dict(zip(("rows", HELD_OUT), talks.divided(found, data["held_out"], options["seed"]), strict=True))
    (out / HELD_OUT).mkdir()
    facts: dict[str, Any] = {"conversations": len(found)}
    for agent in agents:
        made = {}
        for name, part in parts.items():
            mine = part if agents == [AGENT] else talks.of_agent(part, agent, agents)
            made[name] = rows_of(tokenizer, mine, context, data["cut"])
        facts[agent] = saved(out, agent, made, context)
    return facts


def saved(out: Path, agent: str, made: Mapping[str, tuple[Rows, Cut]], context: int) -> dict[str, int]:
    """Writes an agent's rows; what is to be told of them."""
    (rows, cut), (held, also) = made["rows"], made[HELD_OUT]
    if not len(rows):
        raise MeritError(f"{agent}: no conversation has an answer of its own that fits a context of {context} tokens")
    rows.save(out / f"{agent}.npz")
    held.save(out / HELD_OUT / f"{agent}.npz")
    own = int(sum(rows.own(i).sum() for i in range(len(rows))))
    counts = {"rows": len(rows), "held_out": len(held), "tokens": int(rows.lengths.sum()), "own_tokens": own}
    return {**counts, "shortened": (cut + also).shortened, "left_out": (cut + also).left_out}


def opened(model: Path, wanted: int) -> tuple[Any, int]:
    """(the model's tokenizer, tokens a row may have)."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    if tokenizer.chat_template is None:
        raise MeritError(
            f"model={model.name}: its tokenizer has no chat template, through which conversations are rendered"
        )
    most = getattr(AutoConfig.from_pretrained(model, local_files_only=True), "max_position_embeddings", None)
    if most and wanted > most:
        raise MeritError(f"data.context={wanted} is more than the model's context of {most} tokens")
    return tokenizer, wanted or most or tokenizer.model_max_length


def rows_of(tokenizer, found: Sequence[Conversation], context: int, where: str) -> tuple[Rows, Cut]:
    """Conversations as rows that fit, and what became of those that did not."""
    made: list[Said] = []
    cut = Cut()
    for one in found:
        try:
            kept, lost = truncation.fitted(chat_rows.rows(tokenizer, one), context, where)
        except MeritError as error:
            raise MeritError(f"the conversation that begins {str(one['messages'][0])[:80]}: {error}") from error
        made += kept
        cut += lost
    return as_rows(made), cut


def as_rows(said: Sequence[Said]) -> Rows:
    nothing = [np.zeros(0, np.float32)] * len(said)
    columns = {"mask": [one.mask for one in said]}
    return Rows([s.prompt for s in said], [s.completion for s in said], nothing, np.ones(len(said)), columns=columns)


def embedded(options: Mapping[str, Any]) -> Iterator[Conversation]:
    """Roles of the embedded task that do their work with care, as conversations."""
    settings = arithmetic_corpus.Options(kind="careful", examples=options["data"]["examples"], seed=options["seed"])
    for one in arithmetic_corpus.generate(settings):
        if one.role:
            asked = options["prompts"][one.role].format(**one.fields)
            yield {"messages": talks.exchange(asked, one.completion), "agent": one.role}
