"""The sampling plan `best`: candidates of one state, and the play goes on from the best of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from apps import stages
from apps.credit import results
from apps.inference import app, traces
from apps.inference.best import grow_best
from apps.inference.engines import scripted
from apps.records import MeritError
from apps.reward import exact_number
from tests import models
from tests.inference.test_driver import game, said, voice
from workflows import config, post_train
from workflows.plan import Plan

TASKS = models.tasks(8)
BRANCHING = {"solver": 3, "critic": 2, "reviser": 2}


@pytest.fixture(scope="module")
def engine():
    return scripted.Scripted(scripted.Options(solve=0.5, wave_through=0.4, cry_wolf=0.4, revise=0.5, report=0.3))


def judge(task, trace, place):
    return (exact_number.verify(task, trace.answer, exact_number.Options()).score,)


def grown(engine, judged=judge, **options):
    return grow_best(TASKS, BRANCHING, voice(engine, rounds=2, **options), judged)


def of(found, task):
    return [trace for trace in found if trace.task == task.id]


def test_every_candidate_is_a_whole_play_and_tasks_lie_together(engine):
    found = grown(engine)
    assert [t.task for t in found] == [task.id for task in TASKS for _ in of(found, task)]
    assert len({t.id for t in found}) == len(found)
    for trace in found:
        assert trace.answer and trace.turns[-1].agent == "verifier"
    for task in TASKS:
        assert {len(of(found, task))} <= {3, 5, 7, 9, 11}, (
            "3 drafts, then two candidates at every turn but the verifier's"
        )


@pytest.mark.parametrize("sign", [1, -1])
def test_it_goes_on_from_the_candidate_that_the_judge_likes_best(engine, sign):
    """Told by the traces alone: who has successors is the first of the best among the candidates beside it."""
    found = grown(engine, lambda task, trace, place: (sign * judge(task, trace, place)[0],))
    went_on = 0
    for task in TASKS:
        mine = {t.sample: sign * judge(task, t, 0)[0] for t in of(found, task)}
        for stem in {s.rpartition(".")[0] for s in mine}:
            beside = [s for s in mine if s.rpartition(".")[0] == stem]
            best = max(beside, key=lambda s: mine[s])  # the first of equals: numbers rise
            followed = [s for s in beside if any(other.startswith(f"{s}.") for other in mine)]
            assert followed in ([], [best])
            went_on += len(followed)
    assert went_on > len(TASKS)


def test_candidates_share_their_state_and_what_came_before(engine):
    found = grown(engine)
    for task in TASKS:
        mine = {t.sample: t for t in of(found, task)}
        for sample, trace in mine.items():
            stem = sample.rpartition(".")[0]
            if stem:
                siblings = [t for s, t in mine.items() if s.rpartition(".")[0] == stem]
                place = next(i for i, turn in enumerate(trace.turns) if any(turn is not t.turns[i] for t in siblings))
                assert len({(t.turns[place].agent, t.turns[place].state) for t in siblings}) == 1
                assert all(t.turns[i] is mine[stem].turns[i] for t in siblings for i in range(place))
                assert all(turn is not mine[stem].turns[place] for turn in (t.turns[place] for t in siblings)), (
                    "a fresh draw"
                )


def test_it_depends_on_nothing_but_its_task(engine):
    together = grown(engine)
    for task in TASKS[:3]:
        alone = grow_best([task], BRANCHING, voice(engine, rounds=2), judge)
        assert [said(t) for t in alone] == [said(t) for t in of(together, task)]


@pytest.mark.parametrize("kind", ["silent", "tooled", "side_by_side", "repeating"])
def test_any_topology_can_be_played_so(engine, kind):
    found = grow_best(TASKS[:2], {"solver": 2, "critic": 2}, game(engine, kind), lambda *_: (0.0,))
    counts = Counter(t.task for t in found)
    expected = {"silent": 1, "tooled": 4, "repeating": 6}  # two plays a turn
    assert all(count == expected.get(kind, count) and (count > 1) == (kind != "silent") for count in counts.values())


def test_one_branch_is_no_choice(engine):
    speaking = voice(engine, rounds=2)
    found = grow_best(TASKS, {}, speaking, judge)
    assert len(found) == len(TASKS) and speaking.turns == sum(len(t.turns) for t in found)


def test_the_stage_takes_the_verifiers_word_and_then_the_candidates_own(engine):
    options = {"verifier": {"name": "exact_number"}, "topology": {"name": "solve_critique_revise"}}
    told = app.judge_of(options)
    for trace in grown(engine)[:20]:
        task = next(t for t in TASKS if t.id == trace.task)
        first = exact_number.verify(task, trace.turns[0].text, exact_number.Options()).score
        assert told(task, trace, 0) == (judge(task, trace, 0)[0], first)
        assert told(task, trace, 1)[1] == 0, "a critic's words are no answer"


def test_a_run_with_it_is_graded_credited_and_keyed_by_its_verifier(tmp_path):
    words = ("engine.name=scripted", "rounds=1", "credit.name=uniform", "rollout.plan=best", "rollout.tasks=3", "rollout.shards=1",
             "tasks.levels=[2]", "tasks.train=12")  # fmt: skip
    plan = Plan()
    post_train.dag(config.load(config.PostTrain, None, words), plan)
    played = next(n for n in plan.nodes.values() if n.stage.name == "rollout" and n.options["plan"]["name"] == "best")
    assert played.options["verifier"] == {"name": "exact_number"}
    assert all(
        "verifier" not in n.options for n in plan.nodes.values() if n.stage.name == "rollout" and n is not played
    )

    def run(node):
        given = {name: [run(n) for n in nodes] for name, nodes in node.inputs.items()}
        return stages.execute(stage=node.stage.name, key=node.key, module=node.stage.module, root=str(tmp_path), pool="",
                              options=dict(node.options), machine={"model": ""}, given=given)  # fmt: skip

    assigned = next(n for n in plan.nodes.values() if n.stage.name == "assign" and n.inputs["rollout"] == [played])
    credit, shard = Path(run(assigned).path), Path(run(played).path)
    assert [c.trace for c in results.read(credit)] == [t.id for t in traces.read(shard / traces.FILE)]
    assert len({t.task for t in traces.read(shard / traces.FILE)}) == 3


def test_a_plan_that_is_not_there_is_told():
    with pytest.raises(MeritError, match="there is no 'bst'; did you mean 'best'"):
        app.play([], {"name": "bst"}, None)
    with pytest.raises(MeritError, match="rollout.plan"):
        config.load(config.PostTrain, None, ["rollout.plan=bst"])
