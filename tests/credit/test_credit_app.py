"""The stages `replay` and `assign`: values on the record are those of the live run. (A second `test_app.py` could not be
collected beside evaluation's.)"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from apps.credit import app, results, shapley
from apps.inference import app as inference_app
from apps.inference.driver import Start, perform
from apps.records import Consult, Credit, MeritError, Outcome, Rate, Rated, Replay, Reward, Rewarded, Said
from apps.reward import exact_number
from tests import models
from tests.credit import shard

WEAK = {"solve": 0.5, "revise": 0.4, "wave_through": 0.4}
OPTIONS = shard.options(6, 4, WEAK, credit={"name": "shapley", "repeats": 2})


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One shard: tasks, team, plays, verdicts, replays."""
    inputs, facts = shard.played(tmp_path_factory.mktemp("credit"), OPTIONS)
    return inputs, facts["replay"]


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
            verify = lambda texts: [exact_number.verify(*text, exact_number.Options()) for text in texts]  # noqa: E731
            sent = app.outcomes_of([(group, r) for r in wanted], speaking, verify)
    return credit


def test_values_on_the_record_are_those_of_the_live_method(played, tmp_path):
    assert assign(played, tmp_path) == live(played)


def test_values_of_a_trace_sum_to_its_score_less_that_of_nobody(played, tmp_path):
    """Efficiency through all stages; nobody, here, is a base solver whose draft stands."""
    groups = app.read_groups(played[0], OPTIONS)
    found = results.read_replays(played[0]["replay"][0])
    values = {c.trace: sum(c.values) for c in assign(played, tmp_path)}
    for group in groups:
        for index, graded in enumerate(group.graded):
            agents = set(graded.trace.agents)
            nobody = [
                o.score for r, o in found[group.task.id].items() if r.trace == index and set(dict(r.absent)) == agents
            ]
            assert len(nobody) == 2
            assert values[graded.trace.id] == pytest.approx(graded.verdict.score - sum(nobody) / 2)


def test_the_record_counts_what_was_played(played):
    inputs, facts = played
    found = results.read_replays(inputs["replay"][0])
    count = sum(map(len, found.values()))
    groups = app.read_groups(inputs, OPTIONS)
    assert (
        count == facts["replays"] == sum(2 * (2 ** len(g.trace.agents) - 1) for group in groups for g in group.graded)
    )
    outcomes = [o for group in found.values() for o in group.values()]
    assert 0 < facts["turns"] <= sum(o.sampled_turns for o in outcomes)
    assert {len(group.graded) for group in groups} == {4} and all(
        group.roles == tuple(models.PROMPTS) for group in groups
    )


def test_another_method_than_the_recorded_is_refused(played, tmp_path):
    with pytest.raises(MeritError, match="not recorded.*run the stage `replay` again"):
        assign(played, tmp_path, credit={"name": "shapley", "repeats": 3})


QUESTIONS = [Replay(0, (("critic", "null"),)), Replay(1)]
FOUND = {QUESTIONS[0]: Outcome(1.0, "1", 1, 1), QUESTIONS[1]: Outcome(0.0, "2", 1, 1)}
CREDIT = [Credit("t#0", (1.0,), (0.0,))]


def asking(*waves):
    """A method that asks in waves, and whose credit tells what it was sent."""
    heard = []
    for wave in waves:  # not `yield from`: it is sent values
        heard += yield wave
    return [Credit("t#0", tuple(o.score for o in heard), (0.0,) * len(heard))]


def test_a_method_is_told_what_was_recorded_in_any_order_and_any_part():
    assert app.given(asking(QUESTIONS), FOUND)[0].values == (1.0, 0.0)
    assert app.given(asking([QUESTIONS[1]], [QUESTIONS[0]]), FOUND)[0].values == (0.0, 1.0)
    assert app.given(asking(), {})[0].values == ()
    assert app.given(asking((QUESTIONS[0],)), FOUND)[0].values == (1.0,)  # a tuple is as good as a list
    with pytest.raises(MeritError, match="1 questions that were not recorded"):
        app.given(asking([QUESTIONS[0]], [Replay(2)]), FOUND)


def test_the_cost_counts_each_finding_once():
    used = []
    app.given(asking([QUESTIONS[0]], [QUESTIONS[0]]), FOUND, used)
    assert used == [FOUND[QUESTIONS[0]]]


def test_what_two_methods_ask_is_found_out_once():
    found, calls = [{}], []

    def find_out(asked):
        calls.append([q for _, q in asked])
        for i, question in asked:
            found[i][question] = FOUND[question]

    app.investigate([asking([QUESTIONS[0], QUESTIONS[0]])], found, find_out)
    app.investigate([asking(QUESTIONS)], found, find_out)
    assert calls == [[QUESTIONS[0]], [QUESTIONS[1]]]


def test_several_methods_share_a_record(played, tmp_path):
    """Leave-one-out needs but a part of what Shapley's value asked; its values come from the same record."""
    (tmp_path / "both").mkdir()
    sections = [{"name": "shapley", "repeats": 2}, {"name": "shapley", "repeats": 3}]
    facts = app.replay(tmp_path / "both", played[0], {**OPTIONS, "methods": sections})
    assert facts["replays"] == played[1]["replays"] * 3 // 2
    (tmp_path / "assigned").mkdir()
    inputs = {**played[0], "replay": [tmp_path / "both"]}
    app.assign(tmp_path / "assigned", inputs, OPTIONS)
    assert results.read(tmp_path / "assigned") == assign(played, tmp_path)


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
    replay = Replay(1, (("critic", "base"), ("solver", "null")), 3, 2, "rest")
    found = {
        replay: Outcome(0.5, "7", 2, 9, (("critic.0", "base"),), "said"),
        Consult("who?", (("draft", "7"),), 1): Said("the critic", 3),
        Rate("how good?", ("+", "-")): Rated((-0.1, -2.5), 12),
        Reward("<|user|>how good?", ("a step,", "another"), rendered=True): Rewarded(((0.5, -1.0), (0.25, 2.0)), 12),
    }
    results.write_replays(tmp_path, {"t": found, "u": {}})
    assert results.read_replays(tmp_path) == {"t": found, "u": {}}
    assert all(json.loads(line) for line in (tmp_path / results.REPLAYS).read_text().splitlines())


@pytest.mark.parametrize("fresh", ["", "next", "rest"])
def test_a_replay_starts_as_it_was_asked(played, fresh):
    group = app.read_groups(played[0], OPTIONS)[0]
    trace = group.graded[1].trace
    start = app.start_of(group, Replay(1, (("critic", "null"),), repeat=5, keep=1, fresh=fresh))
    assert start.recorded == trace.turns[:1] and start.cached == ()
    assert start.pool == {"": trace.turns, "next": trace.turns[:1] + trace.turns[2:], "rest": ()}[fresh]
    # no sample: the traces of a task share the random numbers of their replays
    assert (start.sample, start.salt, start.absent) == ("", "replay/5", {"critic": "null"})


def test_a_fresh_turn_alone_is_sampled_anew(played):
    """Prefix and, where its prompt is unchanged, the rest stay; the outcome tells what the fresh turn said."""
    inputs, _ = played
    group = app.read_groups(inputs, OPTIONS)[0]
    speaking = inference_app.voice(inputs["policies"][0], OPTIONS)
    verify = lambda texts: [exact_number.verify(*text, exact_number.Options()) for text in texts]  # noqa: E731
    wanted = [(group, Replay(0, keep=1, fresh="next", repeat=r)) for r in range(20)]
    came = app.outcomes_of(wanted, speaking, verify)
    said = {o.text for o in came}
    assert said == {"VERDICT: CORRECT", "VERDICT: INCORRECT"}
    as_recorded = [o for o in came if o.text == group.graded[0].trace.turns[1].text]
    assert {o.sampled_turns for o in as_recorded} == {1}
    assert {o.score for o in as_recorded} == {group.graded[0].verdict.score}


def test_an_agent_that_saw_the_same_prompt_before_speaks_anew_all_the_same(played):
    """Its other turns in that state are no substitute for a fresh one; they stay as they were said."""
    inputs, _ = played
    options = {**OPTIONS, "topology": {"name": "tests.inference.games", "kind": "repeating"}}
    group = app.read_groups(inputs, OPTIONS)[0]
    speaking = inference_app.voice(inputs["policies"][0], options)
    (trace,) = perform([Start(group.task, "0")], speaking)
    group = replace(group, graded=(replace(group.graded[0], trace=trace),))
    assert len({turn.state for turn in trace.turns}) == 1
    wanted = [Replay(0, keep=1, fresh="next", repeat=r) for r in range(8)]
    came = perform([app.start_of(group, r) for r in wanted], speaking)
    assert not {again.turns[1].seed for again in came} & {turn.seed for turn in trace.turns}
    assert all((again.turns[0], again.turns[2]) == (trace.turns[0], trace.turns[2]) for again in came)


def test_cached_words_are_those_of_another_play_and_what_stood_in_is_recorded(played):
    inputs, _ = played
    group = app.read_groups(inputs, OPTIONS)[0]
    speaking = inference_app.voice(inputs["policies"][0], OPTIONS)
    verify = lambda texts: [exact_number.verify(*text, exact_number.Options()) for text in texts]  # noqa: E731
    wanted = [(group, Replay(0, (("solver", "cached"),), repeat=r)) for r in range(3)]
    for r, ((_, replay), outcome) in enumerate(zip(wanted, app.outcomes_of(wanted, speaking, verify), strict=True)):
        (start,) = [app.start_of(group, replay)]
        assert start.cached[0] is group.graded[1 + r].trace.turns[0]
        assert outcome.stand_ins[0] == ("solver.0", "cached")
    alone = replace(group, graded=group.graded[:1])
    (outcome,) = app.outcomes_of([(alone, Replay(0, (("solver", "cached"), ("critic", "cached"))))], speaking, verify)
    assert outcome.stand_ins[:2] == (("solver.0", "base"), ("critic.0", "bypass"))  # nothing cached: they fall back


def test_one_turn_can_be_absent_by_its_path(played):
    inputs, _ = played
    group = app.read_groups(inputs, OPTIONS)[0]
    speaking = inference_app.voice(inputs["policies"][0], OPTIONS)
    verify = lambda texts: [exact_number.verify(*text, exact_number.Options()) for text in texts]  # noqa: E731
    (outcome,) = app.outcomes_of([(group, Replay(0, (("critic.0", "null"),)))], speaking, verify)
    assert outcome.stand_ins == (("critic.0", "null"),)
