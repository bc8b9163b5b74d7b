"""Waves of continued pretraining, stage by stage: mixtures as asked, a roll-back to the bit, the optimiser carried over."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apps.data import domains, extension, waves
from apps.platform.mpi import World
from apps.training import fit, likelihood
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.steps import scale_at
from tests.models import tasks

TRAINING = {"lora": None, "lr": 1e-3, "schedule": "linear", "warmup": 2, "step_rows": 4}
GENERAL = ["web"]


def ran(stage, out, inputs, **options):
    out.mkdir(parents=True)
    facts = stage(out, {name: [folder] for name, folder in inputs.items()}, options)
    (out / "facts.json").write_text(json.dumps(facts, default=float))
    return out


@pytest.fixture(scope="module")
def begun(tiny_model, tmp_path_factory):
    """(folder, the extended model, documents, losses of the base)."""
    folder = tmp_path_factory.mktemp("course")
    questions = [task.question for task in tasks(40)]
    (folder / "law.jsonl").write_text("\n".join(json.dumps({"text": f"{q} ANSWER"}) for q in questions[:24]))
    (folder / "web.jsonl").write_text("\n".join(json.dumps({"text": q}) for q in questions[20:]))
    (folder / "terms.txt").write_text("oranges\n")
    places = {"law": str(folder / "law.jsonl"), "web": str(folder / "web.jsonl"), "terms": str(folder / "terms.txt")}
    still = {"name": "none", "factor": 1.0}
    start = ran(
        extension.extend, folder / "extend", {"start": tiny_model}, positions=still, terms="terms", places=places
    )
    named = {name: {"file": name, "field": "text", "kind": "", "examples": 2} for name in ("law", "web")}
    settings = {"held_out": 0.2, "held_out_most": 5, "context": 0, "seed": 0, "prompts": {}, "places": places}
    rows = ran(domains.documents, folder / "documents", {"start": start}, domains=named, general=GENERAL, **settings)
    base = ran(likelihood.likelihood, folder / "base", {"start": start, "batch": rows}, training=TRAINING)
    return folder, start, rows, base


def wave(place, begun, number, good, gate=None, lr=1e-3, tolerance=1.0, then="slower", count=3):
    """A wave: (mix, train, gate)."""
    _, start, rows, base = begun
    known = {"base": base, **({"gate": gate} if gate else {})}
    sizes = {"step_rows": 4, "steps": 2, "waves": count, "wave": number, "warm_up": 0, "seed": 0}
    mixture = {"general": 0.25, "adaptive": "all"}
    given = {**known, "documents": rows, "start": start}
    mixed = ran(waves.mix, place / f"mix{number}", given, mixture=mixture, general=GENERAL, **sizes)
    trained = place / f"train{number}"
    trained.mkdir()
    options = {
        "model": "",
        "agent": "model",
        "objective": {"name": "next_token"},
        "training": {**TRAINING, "lr": lr},
        "seed": 1,
    }
    fit.fit(trained, {"batch": [mixed], "start": [good]}, {**options, "keep_state": True}, World())
    measured = {"train": trained, "batch": rows}
    losses = ran(likelihood.likelihood, place / f"losses{number}", measured, training=TRAINING)
    judged = {**known, "mix": mixed, "train": trained, "good": good, "likelihood": losses}
    rule = {"gate": {"tolerance": tolerance, "then": then}, "reference": {}, "general": GENERAL, "last": False}
    return mixed, trained, ran(waves.gate, place / f"gate{number}", judged, **rule)


def told(folder):
    return json.loads((folder / "gate.json").read_text())


def test_domains_share_no_text_and_general_ones_keep_it(begun):
    _, start, rows, base = begun
    facts = json.loads((rows / "facts.json").read_text())["domains"]
    assert facts["web"]["documents"] + facts["web"]["held_out"] == 20
    assert facts["law"]["documents"] + facts["law"]["held_out"] == 24
    assert set(likelihood.read(base)) == {"law", "web"} and extension.first_new(start) is not None
    learnt, held = (Rows.load(rows / where / "law.npz").completions for where in ("rows", "held_out"))
    assert not {c.tobytes() for c in learnt} & {c.tobytes() for c in held}


def test_a_kept_wave_goes_on_with_its_model_and_its_optimiser(begun, tmp_path):
    start = begun[1]
    mixed, trained, gate = wave(tmp_path, begun, 1, start)
    assert json.loads((mixed / "mix.json").read_text())["counts"] == {"law": 6, "web": 2}
    assert told(gate)["kept"] and (gate / fit.STATE).read_bytes() == (trained / fit.STATE).read_bytes()
    assert (gate / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    mixed, second, _ = wave(tmp_path, begun, 2, gate, gate)
    steps = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == [3, 4]  # the optimiser knows that it has stepped twice
    expected = [1e-3 * scale_at(step, 6, Options(**TRAINING)) for step in (2, 3)]
    assert [s["lr"] for s in steps] == pytest.approx(expected)  # and the schedule spans the course


def test_a_wave_that_forgets_too_much_is_rolled_back_to_the_bit(begun, tmp_path):
    _, _, first = wave(tmp_path, begun, 1, begun[1])
    _, ruined, gate = wave(tmp_path, begun, 2, first, first, lr=100, tolerance=0.1)
    found = told(gate)
    assert not found["kept"] and not found["stopped"] and found["rate"] == 0.5
    assert found["general_loss"] > found["lowest"] + 0.1
    for name in ("model.safetensors", fit.STATE, "config.json", "tokenizer.json"):
        assert (gate / name).read_bytes() == (first / name).read_bytes(), name
    assert (gate / "model.safetensors").read_bytes() != (ruined / "model.safetensors").read_bytes()
    assert found["pushes"]["web"] > 0  # what was forgotten is drawn more
    _, third, _ = wave(tmp_path, begun, 3, gate, gate)
    rates = [json.loads(line)["lr"] for line in (third / "metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0.5e-3 * scale_at(step, 6, Options(**TRAINING)) for step in (4, 5)])


def test_a_course_that_stopped_trains_no_more(begun, tmp_path):
    _, start, _, _ = begun
    _, _, gate = wave(tmp_path, begun, 1, start, lr=100, tolerance=0.0, then="stop")
    assert told(gate)["stopped"]
    mixed, trained, after = wave(tmp_path, begun, 2, gate, gate)
    assert len(Rows.load(mixed / "model.npz")) == 0 and not (trained / "metrics.jsonl").read_text()
    assert (after / "model.safetensors").read_bytes() == (start / "model.safetensors").read_bytes()


def test_a_course_in_two_tasks_ends_where_one_task_does(begun, tmp_path):
    """The optimiser's state goes through the files: two steps at once, and one after the other from what was saved."""
    from apps.training import course, policy
    from apps.training.objectives import next_token
    from apps.training.trainer import Trainer

    _, start, rows, _ = begun
    both = Rows.load(rows / "rows" / "law.npz")
    parts = [
        both.first(4),
        Rows(*(getattr(both, f)[4:8] for f in ("prompts", "completions", "logprobs", "advantages"))),
    ]
    chosen = Options(**TRAINING)
    trainer = Trainer(policy.open_policy(start, None, chosen, 1), chosen)
    for number, part in enumerate(parts):
        loss = lambda b: next_token.loss(b, next_token.Options())  # noqa: E731
        trainer.course = course.Course(number, 2)
        list(trainer.fit(part, loss, next_token.NEEDS, 1))
    at = start
    for number, part in enumerate(parts):
        batch, out = tmp_path / f"batch{number}", tmp_path / f"out{number}"
        batch.mkdir()
        out.mkdir()
        part.save(batch / "model.npz")
        course.Course(number, 2).save(batch)
        options = {"model": "", "agent": "model", "objective": {"name": "next_token"}, "training": TRAINING, "seed": 1}
        fit.fit(out, {"batch": [batch], "start": [at]}, {**options, "keep_state": True}, World())
        at = out
    from safetensors.torch import load_file

    saved = load_file(at / "model.safetensors")
    for name, parameter in trainer.parameters.items():
        assert np.array_equal(saved[name].numpy(), parameter.detach().numpy()), name


def test_new_words_are_shown_more_in_the_warm_up():
    def rows(*completions):
        said = [np.array(c, np.int32) for c in completions]
        nothing = [np.zeros(0, np.float32)] * len(said)
        return Rows([np.zeros(0, np.int32)] * len(said), said, nothing, np.ones(len(said)))

    stored = {"law": rows([5, 6], [5, 99], [6, 6])}
    options = {"seed": 0, "oversample": 3}
    picked, cursors = waves.drawn(stored, {"law": 5}, {}, 99, options)
    assert sorted(picked["law"].tolist()) == [0, 1, 1, 1, 2] and cursors == {"warm-up/law": 5}
    picked, cursors = waves.drawn(stored, {"law": 3}, cursors, None, options)
    assert sorted(picked["law"].tolist()) == [0, 1, 2] and cursors == {"warm-up/law": 5, "law": 3}
