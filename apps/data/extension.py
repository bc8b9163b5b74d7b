"""The stage `extend`: the model that continued pretraining begins with, with new words and a longer context where asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import weights as safe
from apps.data import extend as weights
from apps.data import fragmentation, position_scaling, vocabulary
from apps.records import MeritError

FILE = "extension.json"  # says which token is the first new one


def extend(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A whole model: that of `start`, else the run's own, with its changes. Without any it is a copy in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = inputs["start"][0] if "start" in inputs else Path(options["model"])
    safe.check_model(source)
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    changes = position_scaling.scaled(config.to_dict(), position_scaling.Options(**options["positions"]))
    config = type(config)(**{**config.to_dict(), **changes})
    model = AutoModelForCausalLM.from_pretrained(
        source, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    tokenizer.save_pretrained(out)
    facts: dict[str, Any] = {"context": getattr(config, "max_position_embeddings", None), "first_new": None, **changes}
    if options["terms"]:
        facts |= with_terms(out, model, tokenizer, fragmentation.read(Path(options["places"][options["terms"]])))
    model.save_pretrained(out)
    (out / FILE).write_text(json.dumps({"first_new": facts["first_new"]}) + "\n", encoding="utf-8")
    return facts


def with_terms(out: Path, model: Any, tokenizer: Any, terms: Sequence[str]) -> dict[str, Any]:
    """Extends the tokenizer that lies in `out`, and the model; writes how the terms are taken apart before and after."""
    from transformers import AutoTokenizer

    file = out / "tokenizer.json"
    if not file.is_file():
        raise MeritError("terms: the model has no tokenizer.json, so its vocabulary cannot be extended")
    spec = json.loads(file.read_text(encoding="utf-8"))
    made, grown = vocabulary.extended(spec, terms)
    file.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    weights.grow(model, vocabulary.next_id(spec), list(grown.values()))
    after = fragmentation.pieces(AutoTokenizer.from_pretrained(out, local_files_only=True), terms)
    report = fragmentation.report(fragmentation.pieces(tokenizer, terms), after, tokenizer.unk_token)
    (out / "fragmentation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "fragmentation.txt").write_text(fragmentation.table(report) + "\n", encoding="utf-8")
    means = {name: report[name] for name in ("mean_before", "mean_after", "whole_after", "lost_before")}
    return {"first_new": vocabulary.next_id(spec) if grown else None, "new_tokens": len(grown), **means}


def first_new(folder: Path) -> int | None:
    """The first new token of a model that `extend` made; None where it has none."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))["first_new"]
