"""What every method of apps/credit says to input that it cannot use: a message with a remedy, and never a silent 0."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from apps import leaf
from apps.credit import app, results
from apps.records import Credit, Group, MeritError, Outcome, Rate, Rated, Replay, Said, Verdict
from tests.credit.plays import drive, graded, group, no_replays

METHODS = leaf.names("credit")
DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise"}
TEAM = tuple(DUTIES)
REPLAYING = [name for name in METHODS if "protocol" in leaf.find("credit", name).Options.model_fields]
OPTIONS = {"first_error": [{"by": "replay"}], "shapley": [{"level": "turn"}, {"game": "task"}, {"sampling": "plain"}]}
VARIANTS = [(name, section) for name in METHODS for section in [{}, *OPTIONS.get(name, [])]]


def team(*members) -> Group:
    """Leaves of a tree, which some methods want, of a team whose duties are known."""
    return replace(group(*members, roles=TEAM), duties=DUTIES)


def wrong_and_right() -> Group:
    marks = [[False, None, False], [True, None, True]]
    return team(*(graded(TEAM, float(i), marks[i], f"0.{i}") for i in range(2)))


def method(name, the_group, section=None):
    module = leaf.find("credit", name)
    return module.assign(the_group, leaf.options("credit", {"name": name, **(section or {})}))


def answered(name, the_group, reply, section=None):
    """The method's credit, each question answered by `reply`."""
    running, sent = method(name, the_group, section), None
    while True:
        try:
            asked = running.send(sent)
        except StopIteration as end:
            return end.value
        sent = [reply(question) for question in asked]


def right(question):
    if isinstance(question, Replay):
        return Outcome(float(question.repeat % 2), "42", 1, 1)
    return Rated((-1.0, -2.0), 3) if isinstance(question, Rate) else Said("VERDICT: CORRECT", 3)


def test_the_replies_of_this_file_are_good_ones():
    for name, section in VARIANTS:
        for credit in answered(name, wrong_and_right(), right, section):
            assert np.isfinite([*credit.values, *credit.errors]).all() and len(credit.values) == 3


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "section"), VARIANTS)
def test_a_trace_without_a_score_is_to_be_graded(name, section, score):
    good, bad = wrong_and_right().graded
    bad = replace(bad, verdict=None if score is None else Verdict(score, None, ""))
    with pytest.raises(MeritError, match=r"'t#0.1' has the score .*grade it"):
        answered(name, team(good, bad), right, section)


@pytest.mark.parametrize(("name", "section"), VARIANTS)
def test_what_was_not_recorded_is_to_be_replayed(name, section):
    module = leaf.find("credit", name)
    running = method(name, wrong_and_right(), section)
    if module.asks(leaf.options("credit", {"name": name, **section})):
        with pytest.raises(MeritError, match=r"questions that were not recorded, .*run the stage `replay` again"):
            app.given(running, {})
    else:
        assert len(app.given(running, {})) == 2


@pytest.mark.parametrize(("name", "section"), VARIANTS)
def test_a_replay_without_a_score_is_no_0(name, section):
    def unscored(question):
        found = right(question)
        return replace(found, score=math.nan) if isinstance(found, Outcome) else found

    asked = []
    answered(name, wrong_and_right(), lambda q: asked.append(q) or right(q), section)
    if any(isinstance(question, Replay) for question in asked):
        with pytest.raises(MeritError, match=r"a replay of 't#0\.\d' has the score nan"):
            answered(name, wrong_and_right(), unscored, section)


@pytest.mark.parametrize("nats", [(math.nan, -1.0), (-math.inf, -math.inf)])
def test_a_reward_model_that_says_no_number_is_no_0(nats):
    with pytest.raises(MeritError, match="the log-probabilities .*numbers were expected; train it again"):
        answered("process_reward", wrong_and_right(), lambda question: Rated(nats, 3))


@pytest.mark.parametrize(("name", "section"), VARIANTS)
def test_a_group_of_one_is_given_numbers_or_a_reason(name, section):
    alone = team(graded(TEAM, 0.0, [False, None, False], "0.0"))
    try:
        (credit,) = answered(name, alone, right, section)
    except MeritError as error:
        assert "single trace" in str(error)
    else:
        assert np.isfinite([*credit.values, *credit.errors, *credit.agents.values()]).all()


@pytest.mark.parametrize("name", [n for n in METHODS if "share" in leaf.find("credit", n).Options.model_fields])
def test_a_group_of_one_outside_the_share_has_no_mean_to_be_compared_with(name):
    alone = team(graded(TEAM, 1.0, [True, None, True], "0.0"))
    section = {"share": 0.0, **({"by": "replay"} if name == "first_error" else {})}
    try:
        (credit,) = drive(method(name, alone, section), no_replays)[0]
    except MeritError as error:
        assert "play each task more than once" in str(error)
    else:
        assert name == "first_error" and credit.values == (0.0, 0.0, 0.0)  # walked: every answer was right


@pytest.mark.parametrize(("name", "section"), VARIANTS)
def test_where_nobody_spoke_there_is_nothing_to_give(name, section):
    """Without turns there is no value of a turn; where the team is unknown too, methods of players say so."""
    silent = [replace(graded([], 1.0), trace=replace(graded([], 1.0).trace, sample=f"0.{i}")) for i in range(2)]
    try:
        found = answered(name, group(*silent), right, section)
    except MeritError as error:
        assert "zero players" in str(error)
    else:
        assert name not in REPLAYING
        assert [(credit.values, credit.agents) for credit in found] == [((), {})] * 2


@pytest.mark.parametrize("name", REPLAYING)
def test_an_unknown_protocol_or_role_is_answered_with_the_known_ones(name):
    with pytest.raises(MeritError, match=rf"credit.{name}: protocol = 'bypas'.*'bypass', 'null', 'base' or 'cached'"):
        leaf.options("credit", {"name": name, "protocol": "bypas"})
    with pytest.raises(MeritError, match=rf"credit.{name}: protocols.critic = 'nul'.*'bypass', 'null'"):
        leaf.options("credit", {"name": name, "protocols": {"critic": "nul"}})
    with pytest.raises(MeritError, match=r"protocols: role: there is no 'critc'; did you mean 'critic'"):
        answered(name, wrong_and_right(), right, {"protocols": {"critc": "null"}})


@pytest.mark.parametrize("name", REPLAYING)
def test_cached_words_of_another_play_want_another_play(name):
    alone = team(graded(TEAM, 1.0, [True, None, True], "0.0"))
    with pytest.raises(MeritError, match=r"cached .*single trace.*play each task more than once"):
        answered(name, alone, right, {"protocol": "cached"})


@pytest.mark.parametrize("name", [n for n in REPLAYING if n != "reward_and_blame"])
def test_a_protocol_that_the_topology_cannot_honour_is_told(name):
    """Nobody can be bypassed as a solver: the base model stands in, and the notes say so; or the solver comes first."""

    def fallen_back(question):
        stood = [("solver.0", "base")] if dict(question.absent).get("solver") else []
        return replace(right(question), stand_ins=tuple(stood))

    for credit in answered(name, wrong_and_right(), fallen_back):
        assert any("solver could not be absent by bypass: base stood in" in note for note in credit.notes)
    for credit in answered(name, wrong_and_right(), fallen_back, {"infeasible": "leave_out"}):
        assert any("solver cannot be absent" in note for note in credit.notes)


def test_a_tree_is_wanted_where_independent_samples_are_given():
    independent = team(*(graded(TEAM, 1.0, [True, None, True], str(i)) for i in range(2)))
    with pytest.raises(MeritError, match=r"independent sample.*set rollout.plan=tree"):
        answered("malt", independent, right)


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_answered_with_the_nearest(name):
    known = list(leaf.find("credit", name).Options.model_fields)
    given = f"{known[0]}z" if known else "repeats"
    with pytest.raises(
        MeritError, match=f"credit.{name}: unknown key: there is no '{given}'" + ("; did you mean" if known else "")
    ):
        leaf.options("credit", {"name": name, given: 1})


@pytest.mark.parametrize("name", ["first_error", "local", "judge"])
def test_verdicts_are_one_a_turn(name):
    short = team(replace(graded(TEAM, 1.0, sample="0.0"), turn_verdicts=()))
    with pytest.raises(MeritError, match="3 turns and 0 turn verdicts, one a turn was expected; grade it again"):
        answered(name, short, right)


@pytest.mark.parametrize("field", ["values", "errors", "agents"])
def test_credit_that_is_no_number_is_not_written(tmp_path, field):
    given = Credit("t#0", (0.5,), (0.1,), {"solver": 0.5})
    bad = {"values": (math.nan,), "errors": (math.inf,), "agents": {"solver": math.nan}}[field]
    results.write(tmp_path, [given])
    with pytest.raises(MeritError, match="'t#0' .*numbers were expected of the credit method"):
        results.write(tmp_path, [replace(given, **{field: bad})])
