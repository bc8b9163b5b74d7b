"""The stages `mix` and `gate`: continued pretraining goes in waves, and what depends on losses is decided between them.

`mix` draws a wave's rows; after training, `gate` says which model goes on: the wave's, or the one before it. Its files, the
optimiser's state among them, are linked and not written anew, so a roll-back is exact to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from apps import records
from apps.data import gate as gates
from apps.data import mixture
from apps.data.domains import ROWS
from apps.data.extension import FILE as EXTENSION
from apps.data.extension import first_new
from apps.data.gate import State
from apps.training import likelihood
from apps.training.course import Course
from apps.training.fit import STATE
from apps.training.rows import Rows

AGENT = "model"  # whose rows these are, to the stage `train`
MIX, GATE = "mix.json", "gate.json"
BESIDE = ("manifest.json", "facts.json", "metrics.jsonl", GATE)  # files of an artifact that are not the model's


def mix(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A wave's rows, `model.npz`; none once the course has stopped. `gate` is that of the wave before, if there was one."""
    known, wave = before(inputs, options["general"]), options["wave"]
    stored = {file.stem: Rows.load(file) for file in sorted((inputs["documents"][0] / ROWS).glob("*.npz"))}
    chosen = mixture.Options(**options["mixture"])
    share = mixture.share_at(wave, options["waves"], chosen)
    prior = mixture.prior({name: len(rows) for name, rows in stored.items()}, options["general"], share, chosen.weights)
    weights = mixture.weighed(prior, known["pushes"], options["general"], chosen.adaptive)
    counts = mixture.counts(weights, 0 if known["stopped"] else options["step_rows"] * options["steps"])
    first = first_new(inputs["start"][0]) if wave <= options["warm_up"] else None
    picked, cursors = drawn(stored, counts, known["cursors"], first, options)
    together(stored, picked).save(out / f"{AGENT}.npz")
    Course((wave - 1) * options["steps"], options["waves"] * options["steps"], known["rate"]).save(out)
    facts = {
        "share": share,
        "weights": weights,
        "counts": counts,
        "rate_used": known["rate"],
        "warm_up": first is not None,
    }
    (out / MIX).write_text(json.dumps({**facts, "cursors": cursors}, indent=1) + "\n", encoding="utf-8")
    return facts


def before(inputs: Mapping[str, Sequence[Path]], general: Sequence[str]) -> dict[str, Any]:
    """What is known before a wave: what the gate before it wrote, or the base model's losses."""
    if "gate" in inputs:
        return json.loads((inputs["gate"][0] / GATE).read_text(encoding="utf-8"))
    lowest = gates.general_loss(likelihood.read(inputs["base"][0]), general)
    return {**asdict(State(lowest)), "pushes": {}, "cursors": {}}


def drawn(
    stored: Mapping[str, Rows],
    counts: Mapping[str, int],
    cursors: Mapping[str, int],
    first: int | None,
    options: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """(rows of each domain, how far each has been gone through). From the token `first` on, words are new and shown more."""
    picked, at = {}, dict(cursors)
    for name, rows in stored.items():
        pool, mark = np.arange(len(rows)), name
        if first is not None:
            new = np.array([bool((said >= first).any()) for said in rows.completions])
            pool, mark = mixture.oversampled(new, options["oversample"]), f"warm-up/{name}"
        seed = [options["seed"], int(records.digest(mark)[:8], 16)]
        picked[name] = mixture.drawn(pool, at.get(mark, 0), counts[name], seed)
        at[mark] = at.get(mark, 0) + counts[name]
    return picked, at


def together(stored: Mapping[str, Rows], picked: Mapping[str, np.ndarray]) -> Rows:
    """The picked rows of all domains, one after another; the trainer draws their order."""
    prompts = [stored[name].prompts[i] for name, numbers in picked.items() for i in numbers]
    completions = [stored[name].completions[i] for name, numbers in picked.items() for i in numbers]
    return Rows(prompts, completions, [np.zeros(0, np.float32)] * len(prompts), np.ones(len(prompts)))


def gate(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The model that goes on, of `train` or of `good`, and `gate.json`. The `last` of a course leaves the optimiser out."""
    known, general = before(inputs, options["general"]), options["general"]
    base, found = likelihood.read(inputs["base"][0]), likelihood.read(inputs["likelihood"][0])
    loss = gates.general_loss(found, general)
    state = State(*(known[name] for name in State.__dataclass_fields__))
    after = gates.judged(state, loss, gates.Options(**options["gate"]))
    reference = {name: options["reference"].get(name, figure["loss"]) for name, figure in base.items()}
    pushes = mixture.raised(known["pushes"], {name: figure["loss"] for name, figure in found.items()}, reference)
    cursors = json.loads((inputs["mix"][0] / MIX).read_text(encoding="utf-8"))["cursors"]
    link(inputs["train" if after.kept else "good"][0], out, options["last"])
    facts = {**asdict(after), "general_loss": loss}
    (out / GATE).write_text(
        json.dumps({**facts, "pushes": pushes, "cursors": cursors}, indent=1) + "\n", encoding="utf-8"
    )
    return facts


def link(model: Path, out: Path, last: bool) -> None:
    """A model's files under a second name; copied where the file system has no links."""
    left = (*BESIDE, STATE, EXTENSION, "fragmentation.json", "fragmentation.txt") if last else BESIDE
    for file in sorted(model.iterdir()):
        if file.is_file() and file.name not in left:
            try:
                os.link(file, out / file.name)
            except OSError:
                shutil.copy(file, out / file.name)
