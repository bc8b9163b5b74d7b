"""The stages `replay` and `assign`: values on the record are those of the live run. (A second `test_app.py` could not be
collected beside evaluation's.)"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from apps import policies
from apps.credit import app, results, shapley
from apps.inference import app as inference_app
from apps.records import Credit, MeritError, Outcome, Replay
from apps.reward import app as reward_app
from apps.reward import exact_number
from apps.tasks import app as tasks_app
from tests import models

OPTIONS = {
    "tasks": {"name": "arithmetic", "levels": [2], "train": 12},
    "verifier": {"name": "exact_number"},
    "topology": {"name": "solve_critique_revise"},
    "prompts": models.PROMPTS,
    "engine": {"name": "scripted", "solve": 0.5, "revise": 0.4, "wave_through": 0.4},
    "model": "",
    "sampling": {"temperature": 1.0},
    "plan": {"name": "independent", "samples": 4},
    "take": {"seed": "s", "start": 0, "count": 6},
    "seed": "s",
    "split": "train",
    "agents": list(models.PROMPTS),
    "credit": {"name": "shapley", "repeats": 2},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One shard: tasks, team, plays, verdicts, replays."""
    root = tmp_path_factory.mktemp("credit")
    inputs = {}
    for name, stage in (
        ("tasks", tasks_app.tasks),
        ("policies", policies.base),
        ("rollout", inference_app.rollout),
        ("grade", reward_app.grade),
        ("replay", app.replay),
    ):
        (root / name).mkdir()
        facts = stage(root / name, inputs, OPTIONS)
        inputs[name] = [root / name]
    return inputs, facts


def assign(played, out, **options):
    app.assign(out, played[0], {**OPTIONS, **options})
    return results.read(out)


def live(played):
    """The method against the model itself, group by group."""
    inputs, _ = played
    credit = []
    for group in app.read_groups(inputs, OPTIONS):
        speaking = inference_app.voice(inputs["policies"][0], OPTIONS)
        method, sent = shapley.assign(group, shapley.Options(repeats=2)), None
        while True:
            try:
                wanted = method.send(sent)
            except StopIteration as end:
                credit += end.value
                break
            verify = lambda task, text: exact_number.verify(task, text, exact_number.Options())  # noqa: E731
            sent = app.outcomes_of([(group, r) for r in wanted], speaking, verify)
    return credit


def test_values_on_the_record_are_those_of_the_live_method(played, tmp_path):
    assert assign(played, tmp_path) == live(played)


def test_values_of_a_trace_sum_to_its_score_less_that_of_nobody(played, tmp_path):
    """Efficiency through all stages; nobody, here, is a base solver whose draft stands."""
    groups = app.read_groups(played[0], OPTIONS)
    waves = results.read_replays(played[0]["replay"][0])
    values = {c.trace: sum(c.values) for c in assign(played, tmp_path)}
    for group in groups:
        ((asked, came),) = waves[group.task.id]
        for index, graded in enumerate(group.graded):
            agents = set(graded.trace.agents)
            nobody = [
                o.score for r, o in zip(asked, came, strict=True) if r.trace == index and set(dict(r.absent)) == agents
            ]
            assert len(nobody) == 2
            assert values[graded.trace.id] == pytest.approx(graded.verdict.score - sum(nobody) / 2)


def test_the_record_counts_what_was_played(played):
    inputs, facts = played
    waves = results.read_replays(inputs["replay"][0])
    count = sum(len(asked) for group in waves.values() for asked, _ in group)
    groups = app.read_groups(inputs, OPTIONS)
    assert (
        count == facts["replays"] == sum(2 * (2 ** len(g.trace.agents) - 1) for group in groups for g in group.graded)
    )
    outcomes = [o for group in waves.values() for _, came in group for o in came]
    assert 0 < facts["turns"] <= sum(o.sampled_turns for o in outcomes)
    assert {len(group.graded) for group in groups} == {4} and all(
        group.roles == tuple(models.PROMPTS) for group in groups
    )


def test_another_method_than_the_recorded_is_refused(played, tmp_path):
    with pytest.raises(MeritError, match="asks for other replays than were recorded"):
        assign(played, tmp_path, credit={"name": "shapley", "repeats": 3})


WAVE = ([Replay(0, (("critic", "null"),))], [Outcome(1.0, "1", 1, 1)])
CREDIT = [Credit("t#0", (1.0,), (0.0,))]


def asks(*waves):
    for wave in waves:  # not `yield from`: it is sent values
        yield wave
    return CREDIT


def test_replays_are_matched_wave_by_wave():
    assert app.given(asks(WAVE[0], WAVE[0]), [WAVE, WAVE]) == CREDIT
    assert app.given(asks(), []) == CREDIT
    assert app.given(asks(tuple(WAVE[0])), [WAVE]) == CREDIT  # a tuple of replays is as good as a list
    with pytest.raises(MeritError, match="more replays"):
        app.given(asks(WAVE[0], WAVE[0]), [WAVE])
    for method in (asks(), asks([Replay(1)]), asks([])):
        with pytest.raises(MeritError, match="other replays"):
            app.given(method, [WAVE])


def test_shuffled_credit_is_the_same_values_dealt_out_anew(played, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    straight = assign(played, tmp_path / "a")
    mixed = assign(played, tmp_path / "b", shuffle="0/1")
    assert [(c.trace, len(c.values)) for c in mixed] == [(c.trace, len(c.values)) for c in straight]
    pools = [Counter(v for c in credit for v in c.values) for credit in (straight, mixed)]
    assert pools[0] == pools[1] and [c.values for c in mixed] != [c.values for c in straight]
    assert app.shuffled(straight, "0/1") == mixed != app.shuffled(straight, "0/2")


def test_records_survive_the_disk(tmp_path):
    credit = [
        Credit("t#0", (0.1, -0.3), (0.01, 0.0), {"solver": 1 / 3}, {"solver": 0.1}, ("süß",)),
        Credit("t#1", (), ()),
    ]
    results.write(tmp_path, credit)
    assert results.read(tmp_path) == credit
    waves = [([Replay(1, (("critic", "base"), ("solver", "null")), 3, 2, True)], [Outcome(0.5, "7", 2, 9)]), ([], [])]
    results.write_replays(tmp_path, [("t", waves), ("u", [])])
    assert results.read_replays(tmp_path) == {"t": waves, "u": []}
    assert all(json.loads(line) for line in (tmp_path / results.REPLAYS).read_text().splitlines())


@pytest.mark.parametrize("keep", [0, 1])
def test_a_replay_starts_as_it_was_asked(played, keep):
    group = app.read_groups(played[0], OPTIONS)[0]
    trace = group.graded[1].trace
    start = app.start_of(group, Replay(1, (("critic", "null"),), repeat=5, keep=keep, fresh=bool(keep)))
    assert start.recorded == trace.turns[:keep] and start.pool == (() if keep else trace.turns)
    # no sample: the traces of a task share the random numbers of their replays
    assert (start.sample, start.salt, start.absent) == ("", "replay/5", {"critic": "null"})
