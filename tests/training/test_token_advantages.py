"""Advantages of single tokens (GAE, the KL in the reward) and adaptive mixtures: against plain Python, and by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.records import MeritError, Tokens, Valued
from apps.training.advantages import at_grpo, at_grpo_two_level, gae, groups, reinforce_plus_plus, rloo
from tests.training.valued import run, turn

SEEDS = st.integers(0, 2**31)
KL_IN_REWARD = ["gae", "reinforce_plus_plus", "rloo"]
NAN = float("nan")


def told(value, values, divergence=None, after=(), **more):
    """A turn with a value model's predictions."""
    values = np.array(values, np.float64)
    apart = np.zeros(len(values)) if divergence is None else np.array(divergence, np.float64)
    return replace(turn(value, **more), tokens=Tokens(apart, values, tuple(after)))


def lists(found):
    return [tokens.tolist() for tokens in found]


def test_a_flat_array_is_parted_as_the_turns_are_long_by_hand():
    like = [np.zeros(2), np.zeros(0), np.zeros(3), np.zeros(1)]
    assert lists(groups.parted(np.arange(6.0), like)) == [[0, 1], [], [2, 3, 4], [5]]
    assert groups.parted(np.zeros(0), []) == []


def plays(seed):
    """Plays of two agents in a tree: at each turn one or two ways to go on. A play is a list of (agent, turn's number)."""
    rng = random.Random(seed)
    made, paths = [], []

    def grow(path, depth, spoken):
        if depth == 0:
            paths.append(path)
            return
        for _ in range(rng.choice([1, 2])):
            agent = rng.choice("ab")
            tokens = rng.randint(1, 3)
            made.append((agent, spoken.get(agent, 0), [rng.uniform(-1, 1) for _ in range(tokens)],
                         [rng.uniform(-1, 1) for _ in range(tokens)], rng.uniform(-2, 2)))  # fmt: skip
            grow([*path, len(made) - 1], depth - 1, {**spoken, agent: spoken.get(agent, 0) + 1})

    grow([], rng.randint(1, 4), {})
    return made, paths


def valued(made, paths):
    """The same as the batch builder tells it."""
    rows = []
    for number, (agent, index, values, apart, credit) in enumerate(made):
        through = [p for p in paths if number in p]
        nexts = [next((j for j in p[p.index(number) + 1 :] if made[j][0] == agent), None) for p in through]
        after = [
            ((f"t{j}", agent, index + 1), nexts.count(j) / len(through)) for j in dict.fromkeys(nexts) if j is not None
        ]
        rows.append(told(credit, values, apart, after, trace=f"t{number}", agent=agent, index=index))
    return rows


def scalar_gae(made, paths, number, place, gamma, lam, beta, alone):
    """Σ_k (γλ)^k δ over an agent's own tokens of a play, the mean over the plays that the token is in."""
    agent, found = made[number][0], []
    for path in (p for p in paths if number in p):
        own = [number] if alone else [j for j in path if made[j][0] == agent]
        steps = []
        for j in own:
            for t, value in enumerate(made[j][2]):
                reward = -beta * made[j][3][t] + (made[j][4] if t == len(made[j][2]) - 1 else 0.0)
                steps.append((j, t, value, reward))
        start = next(i for i, (j, t, _, _) in enumerate(steps) if (j, t) == (number, place))
        total = 0.0
        for k in range(start, len(steps)):
            after = steps[k + 1][2] if k + 1 < len(steps) else 0.0
            total += (gamma * lam) ** (k - start) * (steps[k][3] + gamma * after - steps[k][2])
        found.append(total)
    return sum(found) / len(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    gamma=st.sampled_from([1.0, 0.9]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
    span=st.sampled_from(["trace", "turn"]),
)
def test_gae_equals_the_sum_over_own_tokens_of_every_play(seed, gamma, lam, span):
    made, paths = plays(seed)
    turns = valued(made, paths)
    options = gae.Options(gamma=gamma, lam=lam, kl_in_reward=0.3, span=span, whiten=False)
    found = gae.advantages(turns, options)
    for number, (_, _, values, _, _) in enumerate(made):
        expected = [scalar_gae(made, paths, number, t, gamma, lam, 0.3, span == "turn") for t in range(len(values))]
        assert found[number].tolist() == pytest.approx(expected, abs=1e-9)
        assert gae.returns(turns, options)[number].tolist() == pytest.approx(np.add(expected, values), abs=1e-9)
    order = list(range(len(turns)))
    random.Random(seed).shuffle(order)
    mixed = gae.advantages([turns[i] for i in order], options)
    assert all(np.array_equal(a, found[i]) for a, i in zip(mixed, order, strict=True))


def test_gae_by_hand():
    """γ = 1, λ = .5, V = (.2, .4), credit 1: δ = (.2, .6), A = (.5, .6). With the agent's next turn V = .8: δ_2 = 1.4."""
    options = gae.Options(lam=0.5, whiten=False)
    assert lists(gae.advantages([told(1.0, [0.2, 0.4])], options)) == [pytest.approx([0.5, 0.6])]
    first = told(1.0, [0.2, 0.4], after=[(("t#0", "solver", 1), 1.0)])
    second = told(0.0, [0.8], index=1)  # δ = A = −.8, thus 1.4 − .4 = 1.0 and .2 + .5 = .7 before it
    assert lists(gae.advantages([first, second], options)) == [pytest.approx([0.7, 1.0]), pytest.approx([-0.8])]
    assert lists(gae.returns([first, second], options)) == [pytest.approx([0.9, 1.4]), pytest.approx([0.0])]


def test_a_perfect_value_model_leaves_nothing_and_lambda_one_is_the_return_less_the_value():
    exact = told(1.0, [1.0, 1.0, 1.0])
    assert lists(gae.advantages([exact], gae.Options(whiten=False))) == [pytest.approx([0.0] * 3)]
    guess = told(1.0, [0.3, -0.5, 0.1], divergence=[0.1, 0.2, 0.4])
    found = gae.advantages([guess], gae.Options(lam=1.0, kl_in_reward=1.0, whiten=False))
    assert lists(found) == [pytest.approx([1 - 0.7 - 0.3, 1 - 0.6 + 0.5, 1 - 0.4 - 0.1])]


def test_whitening_is_over_the_tokens_of_each_agent():
    """A = 1, 1, 0 of the solver: mean 2/3, deviation √(1/3). The critic's are ten times that and come out alike."""
    plain = [told(1.0, [0.0, 0.0], trace="t#0"), told(0.0, [0.0], trace="t#1")]
    large = [replace(t, agent="critic", value=10 * t.value) for t in plain]
    found = gae.advantages(plain + large, gae.Options(lam=1.0, epsilon=0.0))
    up, down = (1 / 3) / math.sqrt(1 / 3), (-2 / 3) / math.sqrt(1 / 3)
    assert lists(found) == [pytest.approx([up, up]), pytest.approx([down])] * 2


def test_without_variance_no_token_has_a_gradient():
    same = [told(1.0, [0.0, 0.0], trace=f"t#{i}") for i in range(3)]
    assert np.isnan(np.concatenate(gae.advantages(same, gae.Options(lam=1.0)))).all()
    assert not np.concatenate(gae.advantages([told(1.0, [1.0, 1.0])], gae.Options(whiten=False))).any()
    assert gae.advantages([], gae.Options()) == []


@pytest.mark.parametrize("name", KL_IN_REWARD)
def test_what_is_not_known_of_tokens_is_told(name):
    module = leaf.find("training/advantages", name)
    assert module.wants(module.Options(kl_in_reward=0.1)) >= {"reference"}
    assert "reference" not in module.wants(module.Options())
    with pytest.raises(MeritError, match=r"turn 0 of 'solver' in trace 't#0' nothing is known token by token"):
        run(module, [turn(1.0), turn(0.0, "t#1")], kl_in_reward=0.1)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_kl_in_rloos_reward_equals_plain_python(seed):
    rng = random.Random(seed)
    rows = [
        told(rng.randint(0, 1), [0.0] * 3, [rng.uniform(-1, 1) for _ in range(3)], trace=f"t#{i}") for i in range(4)
    ]
    rewards = [r.value - 0.3 * sum(r.tokens.divergence) for r in rows]
    expected = [x - (sum(rewards) - x) / 3 for x in rewards]
    assert run(rloo, rows, kl_in_reward=0.3) == pytest.approx(expected, abs=1e-9)


def scalar_plus_plus(rows, beta, baseline, epsilon):
    """Each token's return to go, whitened with weights 1/n within its turn, in loops."""
    values = [r.value for r in rows]
    centred = [v - sum(values) / len(values) if baseline else v for v in values]
    togo = [
        [c - beta * sum(r.tokens.divergence[t:]) for t in range(len(r.tokens.values))]
        for c, r in zip(centred, rows, strict=True)
    ]
    mean = sum(sum(x) / len(x) for x in togo) / len(togo)
    variance = sum(sum((v - mean) ** 2 for v in x) / len(x) for x in togo) / (len(togo) - 1)
    return [[(v - mean) / (math.sqrt(variance) + epsilon) for v in x] for x in togo]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, baseline=st.booleans())
def test_kl_in_reinforce_plus_plus_equals_plain_python(seed, baseline):
    rng = random.Random(seed)
    rows = []
    for i in range(5):
        length = rng.randint(1, 4)
        apart = [rng.uniform(-1, 1) for _ in range(length)]
        rows.append(told(float(i % 2), [0.0] * length, apart, trace=f"t#{i}"))
    options = reinforce_plus_plus.Options(kl_in_reward=0.3, baseline=baseline, epsilon=0.1)
    expected = scalar_plus_plus(rows, 0.3, baseline, 0.1)
    assert lists(reinforce_plus_plus.advantages(rows, options)) == [pytest.approx(x, abs=1e-9) for x in expected]


def test_a_little_kl_in_the_reward_changes_little():
    rows = [told(float(v), [0.0] * n, [0.5] * n, trace=f"t#{i}") for i, (v, n) in enumerate([(1, 3), (0, 1), (0, 2)])]
    plain = run(reinforce_plus_plus, rows)
    nearly = reinforce_plus_plus.advantages(rows, reinforce_plus_plus.Options(kl_in_reward=1e-9))
    assert [tokens[0] for tokens in nearly] == pytest.approx(plain, abs=1e-6)
    nothing = [told(1.0, [0.0] * 2, trace=f"t#{i}") for i in range(3)]
    found = reinforce_plus_plus.advantages(nothing, reinforce_plus_plus.Options(kl_in_reward=1.0))
    assert np.isnan(np.concatenate(found)).all()


def test_a_token_that_left_the_reference_costs_the_tokens_up_to_it():
    """The sign: what is likelier than under the reference is paid for, by itself and by what led to it."""
    rows = [told(0.0, [0.0] * 3, [0.0, 2.0, 0.0]), told(0.0, [0.0] * 3, trace="t#1")]
    first, second = reinforce_plus_plus.advantages(rows, reinforce_plus_plus.Options(kl_in_reward=1.0))
    assert first[0] == first[1] < first[2] == second[0]


def variance(values):
    return sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 1.0])), min_size=2, max_size=6))
def test_the_adaptive_alpha_of_at_grpo_is_the_teams_share_of_the_variance(rows):
    turns = [turn(float(v), f"t#{i}", outcome=o) for i, (v, o) in enumerate(rows)]
    team, local = variance([o for _, o in rows]), variance([v for v, _ in rows])
    alpha = team / (team + local) if team + local else 0.0
    assert 0 <= alpha <= 1
    assert run(at_grpo, turns, alpha="adaptive") == pytest.approx(
        run(at_grpo, turns, alpha=alpha), abs=1e-9, nan_ok=True
    )


def test_the_adaptive_alpha_is_each_groups_own():
    """Group u: credit alike, so the team alone; group v: the team alike, so credit alone. ± √.5 of two."""
    turns = [turn(5.0, "t#0", state="u", outcome=1.0), turn(5.0, "t#1", state="u"),
             turn(0.0, "t#2", state="v", outcome=1.0), turn(1.0, "t#3", state="v", outcome=1.0)]  # fmt: skip
    root = math.sqrt(0.5)
    assert run(at_grpo, turns, alpha="adaptive", epsilon=0.0) == pytest.approx([root, -root, -root, root])
    assert run(at_grpo, turns, alpha=0.0, epsilon=0.0) == pytest.approx([NAN, NAN, -root, root], nan_ok=True)


def test_the_adaptive_alpha_of_two_levels_by_hand():
    """Sums of (solver, critic) in two samples: 3, 1 and 1, −1; mean 1, squares 4, 0, 0, 4: v_agent 2. Turns: ±1, v_turn 1."""
    turns = [
        turn(3.0, "t#0", "solver"),
        turn(1.0, "t#0", "critic"),
        turn(1.0, "t#1", "solver"),
        turn(-1.0, "t#1", "critic"),
    ]
    found = run(at_grpo_two_level, turns, alpha="adaptive", epsilon=0.0)
    assert found == pytest.approx(run(at_grpo_two_level, turns, alpha=2 / 3, epsilon=0.0))
    alone = [turn(1.0, "t#0"), turn(0.0, "t#1")]  # one agent, one turn a sample: both levels are one, α = ½
    assert run(at_grpo_two_level, alone, alpha="adaptive") == pytest.approx(run(at_grpo_two_level, alone))


@pytest.mark.parametrize("alpha", [-0.5, "sometimes"])
def test_another_alpha_is_refused(alpha):
    with pytest.raises(MeritError, match="alpha"):
        leaf.options("training/advantages", {"name": "at_grpo", "alpha": alpha})


def test_turns_that_were_valued_are_as_they_were():
    assert Valued("t", "t#0", "solver", 0, "s", 1.0, 0.0).tokens is None
