"""The stage `grade`: verdicts one by one, or by a reward model that is asked about all texts at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps import scoring
from apps.inference import app as inference_app
from apps.inference import outside, traces
from apps.records import MeritError, Reward
from apps.reward import app, reward_model, verdicts
from tests import models
from tests.credit import shard

OPTIONS = shard.options(3, 2, {"solve": 0.5})


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return shard.played(tmp_path_factory.mktemp("grade"), OPTIONS, last="rollout")[0]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(options of a shard that a reward model grades, the reward model)."""
    folder = tmp_path_factory.mktemp("model")
    model = models.make_model(folder / "tiny")
    made = models.make_reward_model(model, folder / "adapter")
    section = {"name": "reward_model", "adapter": made.adapter, "model": str(model)}
    return {**OPTIONS, "verifier": section}, made


def graded(played, options, out, **inputs):
    out.mkdir()
    app.grade(out, {**played, **inputs}, options)
    return verdicts.read(out, traces.read(played["rollout"][0] / traces.FILE))


def test_a_reward_models_verdicts_are_its_rewards(played, judged, tmp_path):
    options, made = judged
    found = graded(played, options, tmp_path / "out")
    engine = inference_app.engine_of({"engine": {"name": "transformers"}, "model": options["verifier"]["model"]})
    tasks = {task.id: task for task in app.tasks_app.read(played["tasks"][0])}
    for one in found:
        turns = zip(one.trace.turns, one.turn_verdicts, strict=True)
        texts = [(one.trace.answer, one.verdict), *((t.text, v) for t, v in turns if v is not None)]
        asked = [Reward(f"Solve: {tasks[one.trace.task].question}", (text,)) for text, _ in texts]
        for (_, verdict), came in zip(texts, outside.rewards(asked, engine, [made]), strict=True):
            assert verdict.score == pytest.approx(scoring.chance(came.rewards[0][0]), abs=1e-4)
        assert all(
            (v is None) == (t.agent == "critic") for t, v in zip(one.trace.turns, one.turn_verdicts, strict=True)
        )
    assert len({one.verdict.score for one in found}) > 1


def test_a_model_of_this_run_goes_before_the_setting(played, judged, tmp_path):
    options, made = judged
    without = {**options, "verifier": {k: v for k, v in options["verifier"].items() if k != "adapter"}}
    given = graded(played, without, tmp_path / "a", verifier=[Path(made.adapter)])
    told = graded(played, options, tmp_path / "b")
    assert [(g.verdict, g.turn_verdicts) for g in given] == [(g.verdict, g.turn_verdicts) for g in told]


def test_a_topologys_score_cannot_ask_a_model():
    with pytest.raises(MeritError, match="for whole shards"):
        reward_model.verify(models.tasks(1)[0], "4", reward_model.Options())


def test_other_verifiers_are_asked_one_by_one(played, tmp_path):
    found = graded(played, OPTIONS, tmp_path / "out")
    assert {one.verdict.score for one in found} == {0.0, 1.0}
