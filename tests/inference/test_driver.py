"""The driver: replays, stand-ins, common random numbers, trees. With scripted agents, and with a real model."""

from __future__ import annotations

import pytest

from apps.effects import Ask
from apps.inference.app import play as play_plan
from apps.inference.driver import Start, Team, Voice, fill, grow_tree, perform
from apps.inference.engines import scripted, transformers
from apps.records import MeritError, Policy, Sampling
from tests import models
from tests.inference import games

TASKS = models.tasks(12)
TEAM = {"name": "solve_critique_revise", "rounds": 3}


@pytest.fixture(scope="module")
def engine():
    return scripted.Scripted(scripted.Options(solve=0.5, wave_through=0.4, cry_wolf=0.4, revise=0.5, report=0.3))


def voice(engine, name="solve_critique_revise", seed="s", policies=None, sampling=None, **options):
    policies = {role: Policy(role) for role in models.PROMPTS} | (policies or {})
    return Voice(Team(name, options, models.PROMPTS, policies, sampling or Sampling(max_new_tokens=8)), engine, seed)


def game(engine, kind, **more):
    return voice(engine, games.NAME, kind=kind, **more)


def starts(tasks=TASKS, samples=4):
    return [Start(task, str(k)) for task in tasks for k in range(samples)]


def said(trace):
    return [(t.agent, t.path, t.text, t.completion_ids.tolist(), t.seed, t.stand_in, t.finish) for t in trace.turns]


def again(trace, task, **changes):
    return Start(task, trace.sample, **{"pool": trace.turns, "salt": "replay/0", **changes})


def test_the_same_play_gives_the_same_turns_whatever_else_is_in_the_batch(engine):
    together = perform(starts(), voice(engine, rounds=3))
    alone = [perform([start], voice(engine, rounds=3))[0] for start in reversed(starts())][::-1]
    assert [said(t) for t in together] == [said(t) for t in alone]
    assert len({tuple(t.text for t in trace.turns) for trace in together}) > 5


def test_a_replay_with_nobody_absent_is_its_original_and_samples_nothing(engine):
    played = perform(starts(), voice(engine, rounds=3))
    speaking = voice(engine, rounds=3)
    replayed = perform([again(t, task) for t, task in zip(played, [s.task for s in starts()], strict=True)], speaking)
    for old, new in zip(played, replayed, strict=True):
        assert [id(a) == id(b) for a, b in zip(old.turns, new.turns, strict=True)] == [True] * len(old.turns)
        assert (old.answer, old.converged) == (new.answer, new.converged)
    assert (speaking.turns, speaking.tokens) == (0, 0)


def test_turns_in_one_state_are_replayed_each_in_its_own_place(engine):
    """The same agent asked the same thing thrice says three things; a replay must not mix them up."""
    played = perform(starts(), game(engine, "repeating"))
    assert any(len({turn.text for turn in trace.turns}) > 1 for trace in played)
    speaking = game(engine, "repeating")
    replayed = perform([again(t, s.task) for t, s in zip(played, starts(), strict=True)], speaking)
    assert [said(t) for t in replayed] == [said(t) for t in played]
    assert speaking.turns == 0


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_kept_turns_are_handed_back_and_the_rest_is_sampled_anew(engine, keep):
    played = [t for t in perform(starts(), voice(engine, rounds=3)) if len(t.turns) > keep]
    tasks = {task.id: task for task in TASKS}
    kept = [
        again(t, tasks[t.task], recorded=t.turns[:keep], pool=(), absent={"solver": "null"} if keep else {})
        for t in played
    ]
    replayed = perform(kept, voice(engine, rounds=3))
    for old, new in zip(played, replayed, strict=True):
        assert all(a is b for a, b in zip(old.turns[:keep], new.turns[:keep], strict=True))
        assert all(turn.seed not in {t.seed for t in old.turns} for turn in new.turns[keep:])


def test_bypass_puts_the_declared_text_and_null_puts_nothing(engine):
    (bypassed,) = perform([Start(TASKS[0], "0", absent={"critic": "bypass"})], voice(engine))
    assert [(t.agent, t.text, t.finish, t.stand_in) for t in bypassed.turns][1] == (
        "critic", "VERDICT: CORRECT", "substitute", "bypass",
    )  # fmt: skip
    assert len(bypassed.turns[1].completion_ids) == 0 and bypassed.turns[1].policy == ""
    (silenced,) = perform([Start(TASKS[0], "0", absent={"critic": "null"})], voice(engine))
    assert [t.text for t in silenced.turns if t.agent == "critic"] == [""]
    assert [t.agent for t in silenced.turns] == ["solver", "critic", "reviser", "verifier"]  # silence is no agreement


def test_who_cannot_be_bypassed_is_replaced_by_the_base_model_and_marked(engine):
    (trace,) = perform([Start(TASKS[0], "0", absent={"critic": "bypass"})], game(engine, "needs_critic"))
    assert [(t.stand_in, t.finish, t.policy) for t in trace.turns] == [("base", "stop", "base")]


def test_base_never_reuses_what_the_absent_agent_said(engine):
    (played,) = perform([Start(TASKS[0], "0")], voice(engine))
    (replayed,) = perform([again(played, TASKS[0], absent={"solver": "base"})], voice(engine))
    assert replayed.turns[0].stand_in == "base" and replayed.turns[0].seed != played.turns[0].seed
    assert all(turn.stand_in == "" for turn in replayed.turns[1:])


def test_coalitions_that_see_the_same_share_the_turn_within_a_repeat_only(engine):
    task, without = TASKS[0], [{"verifier": "null"}, {"verifier": "bypass"}]
    speaking = voice(engine)
    one, other = perform([Start(task, "0", absent=absent, salt="replay/0") for absent in without], speaking)
    shared = len(one.turns) - 1
    assert said(one)[:shared] == said(other)[:shared] and speaking.turns == shared
    fresh = [perform([Start(task, "0", salt=f"replay/{k}")], speaking)[0] for k in range(6)]
    assert len({trace.turns[0].seed for trace in fresh}) == 6
    assert len({trace.turns[0].text for trace in fresh}) > 1


def test_samples_tasks_and_runs_draw_their_own_numbers(engine):
    seeds = [t.turns[0].seed for seed in ("a", "b") for t in perform(starts(), voice(engine, seed=seed))]
    assert len(set(seeds)) == len(seeds)


def test_a_tree_has_the_product_of_its_branches_and_shares_its_turns(engine):
    branching = {"generator": 3, "verifier": 2, "refiner": 3}
    prompts = {"generator": "{question}", "verifier": "{draft}", "refiner": "{draft} {review}"}
    duties = {"generator": "solve", "verifier": "check", "refiner": "revise"}
    agents = scripted.Scripted(scripted.Options(duties=duties))
    team = Team("malt", {}, prompts, {role: Policy(role) for role in duties}, Sampling())
    speaking = Voice(team, agents, "s")
    leaves = grow_tree(TASKS[:3], branching, speaking)
    assert [(t.task, t.sample) for t in leaves] == [
        (task.id, f"{a}.{b}.{c}") for task in TASKS[:3] for a in range(3) for b in range(2) for c in range(3)
    ]
    for depth, count in enumerate((3, 6, 18)):
        first = leaves[:18]
        assert len({id(t.turns[depth]) for t in first}) == count
        assert len({t.turns[depth].seed for t in first}) == count
    assert speaking.turns == 3 * (3 + 6 + 18)
    by_parent = {}
    for leaf in leaves:
        by_parent.setdefault((leaf.task, leaf.sample[:3]), set()).add(leaf.turns[2].state)
    assert all(len(states) == 1 for states in by_parent.values())


def test_a_tree_branches_at_turns_that_follow_a_tool_and_ends_after_one(engine):
    leaves = grow_tree(TASKS[:2], {"solver": 2, "critic": 3}, game(engine, "tooled"))
    assert [t.sample for t in leaves] == 2 * [f"{a}.{b}" for a in range(2) for b in range(3)]
    assert all([turn.path for turn in t.turns] == ["solver.0", "critic.0"] for t in leaves)
    assert all(t.answer.endswith(" 6") for t in leaves)


def test_a_play_that_asks_nobody_ends_at_once(engine):
    for traces in (perform(starts(samples=1), game(engine, "silent")), grow_tree(TASKS, {}, game(engine, "silent"))):
        assert [(t.task, t.turns, t.answer) for t in traces] == [(task.id, (), "nothing") for task in TASKS]


def test_nested_and_parallel_plays_replay_like_any_other(engine):
    played = perform(starts(TASKS[:4]), game(engine, "side_by_side"))
    speaking = game(engine, "side_by_side")
    replayed = perform([again(t, s.task) for t, s in zip(played, starts(TASKS[:4]), strict=True)], speaking)
    assert [said(t) for t in replayed] == [said(t) for t in played] and speaking.turns == 0


def test_a_real_model_gives_the_same_sequences_in_any_batch(tiny_model):
    model = transformers.load(str(tiny_model), transformers.Options(rows=64), "cpu")
    sampling = Sampling(max_new_tokens=6)
    wanted = starts(TASKS[:10], 8)
    together = perform(wanted, voice(model, sampling=sampling))
    small = transformers.load(str(tiny_model), transformers.Options(rows=5), "cpu")
    apart = [t for i in range(0, 80, 16) for t in perform(wanted[i : i + 16], voice(small, sampling=sampling))]
    pairs = [
        (a.completion_ids.tolist(), b.completion_ids.tolist())
        for one, other in zip(together, apart, strict=True)
        for a, b in zip(one.turns, other.turns, strict=False)
    ]
    assert len(pairs) >= 300
    assert sum(a == b for a, b in pairs) >= 0.99 * len(pairs)


def test_a_real_models_replay_is_its_original(tiny_model):
    model = transformers.load(str(tiny_model), transformers.Options(), "cpu")
    played = perform(starts(TASKS[:3], 2), voice(model))
    speaking = voice(model)
    replayed = perform([again(t, s.task) for t, s in zip(played, starts(TASKS[:3], 2), strict=True)], speaking)
    assert [said(t) for t in replayed] == [said(t) for t in played] and speaking.turns == 0


def test_wrong_names_are_answered_with_the_nearest(engine):
    with pytest.raises(MeritError, match="did you mean 'bypass'"):
        perform([Start(TASKS[0], "0", absent={"solver": "bypas"})], voice(engine))
    with pytest.raises(MeritError, match="did you mean 'independent'"):
        play_plan(TASKS, {"name": "independant"}, voice(engine))
    with pytest.raises(MeritError, match="did you mean 'rounds'"):
        perform(starts(), voice(engine, round=3))


@pytest.mark.parametrize("template", ["{draft}", "{0}", "{question", "{question[x]}", "{question.x}", "{}"])
def test_a_template_that_cannot_be_filled_names_its_setting(template):
    with pytest.raises(MeritError, match="team.prompts.solver: .* this topology offers question"):
        fill({"solver": template}, Ask("solver", {"question": "?"}))


def test_a_role_without_a_prompt_is_named():
    with pytest.raises(MeritError, match="team.prompts.critic"):
        fill({"solver": "{question}"}, Ask("critic", {}))
