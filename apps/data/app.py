"""The stages that make the embedded model: `architecture`, `corpus`, `assess`, `card`. Training itself is the stage `train`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.data import arithmetic_corpus as corpus_of
from apps.data import assess as assessing
from apps.data import card as model_card
from apps.data import tokenizer as tokens
from apps.training.rows import Rows

ROWS = "model.npz"  # the stage `train` reads the rows of the agent "model"
SAMPLE = 3000  # examples of each kind from which the vocabulary is taken


def architecture(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A Llama with random weights, and the tokenizer for its corpora."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [text for kind in ("plain", "careful", "habits") for text in _sample(kind, options["prompts"])]
    made = tokens.make(texts)
    shape = options["shape"]
    torch.manual_seed(options["seed"])
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        max_position_embeddings=shape["context"],
        tie_word_embeddings=True,
        pad_token_id=made.pad_token_id,
        eos_token_id=made.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(out)
    made.save_pretrained(out)
    return {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(made)}


def _sample(kind: str, prompts: Mapping[str, str]) -> Iterable[str]:
    for example in corpus_of.generate(corpus_of.Options(kind=kind, examples=SAMPLE)):
        yield prompts[example.role].format(**example.fields) if example.role else ""
        yield example.completion


def corpus(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A corpus as rows for the trainer: prompts through the chat template, loss on the completions (all of a plain text)."""
    from transformers import AutoTokenizer

    started = time.perf_counter()
    made = AutoTokenizer.from_pretrained(inputs["architecture"][0], local_files_only=True)
    prompts, completions = [], []
    for example in corpus_of.generate(corpus_of.Options(**options["corpus"])):
        said = options["prompts"][example.role].format(**example.fields) if example.role else ""
        prompts.append(f"{tokens.USER}{said}{tokens.END}{tokens.ASSISTANT}" if example.role else tokens.END)
        completions.append(example.completion + tokens.END)
    rows = Rows(
        _ids(made, prompts), _ids(made, completions), [np.zeros(0, np.float32)] * len(prompts), np.ones(len(prompts))
    )
    rows.save(out / ROWS)
    return {"examples": len(rows), "tokens": int(rows.lengths.sum()), "seconds": time.perf_counter() - started}


def _ids(made, texts: Sequence[str]) -> list[np.ndarray]:
    return [np.asarray(ids, np.int32) for ids in made(list(texts), add_special_tokens=False)["input_ids"]]


def assess(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """What each role can do: left to its habits, and when it is made to begin with care."""
    figures = assessing.assess(inputs["model"][0], options)
    (out / "assess.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def card(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The finished model's folder: weights, tokenizer, and a card made from what its stages reported."""
    for file in sorted(inputs["model"][0].iterdir()):
        if file.suffix in (".json", ".safetensors", ".jinja") and file.name not in ("manifest.json", "facts.json"):
            shutil.copy(file, out / file.name)
    facts = {
        name: [json.loads((folder / "facts.json").read_text()) for folder in folders]
        for name, folders in inputs.items()
    }
    (out / "README.md").write_text(model_card.text(facts, options), encoding="utf-8")
    return {"files": sorted(file.name for file in out.iterdir())}
