"""Preference objectives: each against plain Python that knows nothing of the project, by hand, and by their laws.

Gradients, splitting, order and what lies under the mask are tested for every objective in test_objectives.py.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.training.batch import Batch
from apps.training.objectives import orpo, rrhf

PAIRWISE = ("dpo", "cdpo", "ipo", "hinge", "slic_hf", "cpo", "orpo", "r_dpo", "simpo")
SETTINGS = {  # away from the defaults, so that an option which is not read is seen
    "dpo": {"beta": 0.7},
    "cdpo": {"beta": 0.7, "epsilon": 0.3},
    "ipo": {"tau": 0.4},
    "hinge": {"beta": 0.6},
    "slic_hf": {"delta": 1.5, "weight": 0.3},
    "cpo": {"beta": 0.7, "weight": 0.2},
    "orpo": {"weight": 0.6},
    "r_dpo": {"beta": 0.7, "alpha": 0.3},
    "simpo": {"beta": 1.7, "gamma": 0.4},
}


# The reference: rows as plain lists of (log π, log π_ref) of own tokens.


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def total(row, which=0):
    return sum(token[which] for token in row)


def ratio(row):
    return total(row, 0) - total(row, 1)


def mean(row):
    return total(row) / len(row)


def odds(row):
    p = math.exp(mean(row))
    return p / (1 - p)


def log_sigmoid(x):
    return math.log(sigmoid(x))


def gap(won, lost):
    return ratio(won) - ratio(lost)


def plain_cdpo(won, lost, beta=0.1, epsilon=0.1):
    margin = beta * gap(won, lost)
    return -(1 - epsilon) * log_sigmoid(margin) - epsilon * log_sigmoid(-margin)


def plain_slic_hf(won, lost, delta=1.0, weight=0.5):
    return max(0.0, delta - total(won) + total(lost)) - weight * total(won)


def plain_cpo(won, lost, beta=0.1, weight=1.0):
    return -log_sigmoid(beta * (total(won) - total(lost))) - weight * total(won)


def plain_orpo(won, lost, weight=0.1):
    return -mean(won) - weight * log_sigmoid(math.log(odds(won) / odds(lost)))


def plain_r_dpo(won, lost, beta=0.1, alpha=0.01):
    return -log_sigmoid(beta * gap(won, lost) + alpha * (len(won) - len(lost)))


PLAIN = {
    "dpo": lambda won, lost, beta=0.1: -log_sigmoid(beta * gap(won, lost)),
    "cdpo": plain_cdpo,
    "ipo": lambda won, lost, tau=0.1: (gap(won, lost) - 0.5 / tau) ** 2,
    "hinge": lambda won, lost, beta=0.1: max(0.0, 1 - beta * gap(won, lost)),
    "slic_hf": plain_slic_hf,
    "cpo": plain_cpo,
    "orpo": plain_orpo,
    "r_dpo": plain_r_dpo,
    "simpo": lambda won, lost, beta=2.0, gamma=1.0: -log_sigmoid(beta * (mean(won) - mean(lost)) - gamma),
}


def plain_kto(rows, signs, mismatch, beta=0.1, desirable=1.0, undesirable=1.0):
    z, losses = max(0.0, mismatch), []
    for row, sign in zip(rows, signs, strict=True):
        if sign > 0:
            losses.append(desirable * (1 - sigmoid(beta * (ratio(row) - z))))
        else:
            losses.append(undesirable * (1 - sigmoid(beta * (z - ratio(row)))))
    return sum(losses) / len(losses)


def plain_rrhf(states, weight=1.0):
    """`states` are lists of (row, value)."""
    value = 0.0
    for members in states:
        value += sum(max(0.0, mean(a) - mean(b)) for a, va in members for b, vb in members if va < vb)
        top = max(v for _, v in members)
        best = [total(row) for row, v in members if v == top]
        value -= weight * sum(best) / len(best)
    return value / len(states)


# From plain rows to a batch.


def plain_rows(seed, count):
    rng = random.Random(seed)
    return [[(-3 * rng.random() - 0.01, -3 * rng.random()) for _ in range(rng.randint(1, 5))] for _ in range(count)]


def batch_of(rows, worth=None, states=None, mismatch=0.0, dtype=torch.float64):
    """Own tokens lie at odd and even places with gaps between, and rubbish in the gaps."""
    width = 2 * max(map(len, rows))
    tables = torch.full((3, len(rows), width), -7.0, dtype=dtype)
    tables[2] = 0
    for b, row in enumerate(rows):
        for t, (logp, reference) in enumerate(row):
            place = 2 * t + b % 2
            tables[0, b, place], tables[1, b, place], tables[2, b, place] = logp, reference, 1
    advantages = None if worth is None else torch.tensor(worth, dtype=dtype)[:, None].expand(-1, width)
    return Batch(
        tables[0].clone().requires_grad_(True),
        tables[2],
        float(tables[2].sum()),
        len(rows),
        len(rows) / 2,
        reference_BT=tables[1],
        advantages_BT=advantages,
        states=0.0 if states is None else float(len(set(states))),
        state_B=None if states is None else torch.tensor(states),
        mismatch=mismatch,
    )


def run(name, batch, **options):
    module = leaf.find("training/objectives", name)
    return module.loss(batch, module.Options(**options))


def slope(batch, value):
    return torch.autograd.grad(value, batch.logprobs_BT)[0]


def flat(*totals, reference=0.0):
    """Rows of one token."""
    return [[(t, reference)] for t in totals]


@pytest.mark.parametrize("name", PAIRWISE)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_equals_plain_python(name, seed):
    rows = plain_rows(seed, 6)
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    for options in ({}, SETTINGS[name]):
        expected = sum(PLAIN[name](won, lost, **options) for won, lost in pairs) / 3
        assert run(name, batch_of(rows), **options)[0].item() == pytest.approx(expected, abs=1e-11)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), mismatch=st.floats(-2, 4))
def test_kto_equals_plain_python(seed, mismatch):
    rows, rng = plain_rows(seed, 5), random.Random(seed)
    signs = [rng.choice([-1, 1]) for _ in rows]
    worth = [sign * rng.uniform(0.1, 3) for sign in signs]  # how large it is does not matter
    for options in ({}, {"beta": 0.8, "desirable": 1.3, "undesirable": 0.6}):
        expected = plain_kto(rows, signs, mismatch, **options)
        value, _ = run("kto", batch_of(rows, worth, mismatch=mismatch), **options)
        assert value.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rrhf_equals_plain_python(seed):
    rows, rng = plain_rows(seed, 9), random.Random(seed)
    states, worth = [4, 4, 4, 4, 0, 0, 2, 2, 2], [float(rng.randint(0, 2)) for _ in rows]
    together = [[(rows[i], worth[i]) for i in range(9) if states[i] == s] for s in (4, 0, 2)]
    for options in ({}, {"weight": 0.3}):
        value, _ = run("rrhf", batch_of(rows, worth, states), **options)
        assert value.item() == pytest.approx(plain_rrhf(together, **options), abs=1e-11)


# Hand-worked: logp_w = −1, logp_l = −3 and the reference −2 for both, so Δ = 2; one token each.
BY_HAND = {
    ("dpo", "beta", 0.5): 0.313262,  # −log σ(1)
    ("cdpo", "beta", 0.5): 0.413262,  # .9 · .313262 + .1 · 1.313262
    ("ipo", "tau", 0.1): 9.0,  # (2 − 5)²
    ("hinge", "beta", 0.1): 0.8,
    ("hinge", "beta", 0.5): 0.0,
    ("slic_hf", "delta", 3.0): 1.5,  # (3 − 2) + .5 · 1
    ("slic_hf", "delta", 1.0): 0.5,  # far enough apart: the likelihood alone
    ("cpo", "beta", 0.5): 1.313262,  # .313262 + 1
    ("r_dpo", "beta", 0.5): 0.313262,  # of equal length
    ("simpo", "gamma", 3.0): 0.313262,  # −log σ(2 · 2 − 3)
    ("orpo", "weight", 1.0): 1.086206,  # 1 + log(1 + .0523957/.581977)
}


@pytest.mark.parametrize(("name", "option", "setting"), BY_HAND)
def test_by_hand(name, option, setting):
    value, metrics = run(name, batch_of(flat(-1.0, -3.0, reference=-2.0)), **{option: setting})
    assert value.item() == pytest.approx(BY_HAND[name, option, setting], abs=2e-6)
    assert metrics["pair_accuracy"] == 1.0


def test_orpo_by_hand_from_probabilities():
    """P_w = .5 and P_l = .2: odds 1 and .25, so −log σ(log 4) = −log .8, beside −log .5."""
    value, metrics = run("orpo", batch_of(flat(math.log(0.5), math.log(0.2))), weight=1.0)
    assert value.item() == pytest.approx(math.log(2) - math.log(0.8))
    assert metrics == pytest.approx({"margin": math.log(4), "pair_accuracy": 1.0, "nll": math.log(2)})


def test_kto_by_hand():
    """r = 1 twice and z = 3: β(r − z) = −1 with β = .5, so 1 − σ(−1) = .731059 and 1 − σ(1) = .268941."""
    rows = flat(-1.0, -1.0, reference=-2.0)
    value, metrics = run("kto", batch_of(rows, [2.0, -0.1], mismatch=3.0), beta=0.5)
    assert value.item() == pytest.approx((0.731059 + 0.268941) / 2, abs=1e-6)
    assert metrics == pytest.approx({"reference_point": 3.0, "gain": 0.0, "desirable": 0.5})
    alone, _ = run("kto", batch_of(rows, [2.0, -0.1], mismatch=3.0), beta=0.5, undesirable=0.0)
    assert alone.item() == pytest.approx(0.731059 / 2, abs=1e-6)


def test_rrhf_by_hand():
    """Values 2, 1, 0 with p = −2, −1, −1.5: the best is too low by 1 and by .5, and its two tokens sum to −4."""
    rows = [[(-1.5, 0.0), (-2.5, 0.0)], [(-1.0, 0.0)], [(-1.5, 0.0)]]
    value, metrics = run("rrhf", batch_of(rows, [2.0, 1.0, 0.0], [0, 0, 0]))
    assert value.item() == pytest.approx(5.5) and metrics == pytest.approx({"disorder": 1.5, "nll": 4.0})


@pytest.mark.parametrize(
    ("name", "level"),
    [("dpo", math.log(2)), ("cdpo", math.log(2)), ("hinge", 1.0), ("ipo", 25.0), ("r_dpo", math.log(2))],
)
def test_at_the_reference_the_loss_is_known(name, level):
    """Δ = 0, whatever the completions."""
    rows = [[(logp, logp) for logp, _ in row] for row in plain_rows(3, 2)]
    options = {"alpha": 0.0} if name == "r_dpo" else {}
    value, metrics = run(name, batch_of(rows), **options)
    assert value.item() == pytest.approx(level) and metrics["pair_accuracy"] == 0


@pytest.mark.parametrize(
    ("name", "level"), [("cpo", math.log(2)), ("slic_hf", 1.0), ("orpo", math.log(2)), ("simpo", math.log(2))]
)
def test_two_equal_completions_are_level(name, level):
    """Winner and loser alike, and no likelihood term."""
    row = plain_rows(4, 1)[0]
    options = {"gamma": 0.0} if name == "simpo" else {"weight": 1.0 if name == "orpo" else 0.0}
    expected = level - (mean(row) if name == "orpo" else 0.0)
    assert run(name, batch_of([row, row]), **options)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", PAIRWISE)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_descending_makes_the_preferred_likelier_and_the_rejected_rarer(name, seed):
    """Near the reference, where no margin has been passed."""
    rows = [[(logp, logp + 1e-3) for logp, _ in row] for row in plain_rows(seed, 2)]
    options = {"slic_hf": {"delta": 99.0}}.get(name, {})
    batch = batch_of(rows)
    found = slope(batch, run(name, batch, **options)[0])
    assert (found[0] <= 0).all() and (found[0] < 0).any() and (found[1] >= 0).all() and (found[1] > 0).any()


def test_cdpo_is_least_where_the_margin_says_one_less_epsilon():
    """σ(βΔ) = .8 at βΔ = log 4; DPO still pushes there."""
    batch = batch_of(flat(math.log(4) / 0.5, 0.0))
    assert slope(batch, run("cdpo", batch, beta=0.5, epsilon=0.2)[0]).abs().max() < 1e-12
    assert slope(batch, run("dpo", batch, beta=0.5)[0]).abs().max() > 0.05


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_cdpo_without_doubt_and_r_dpo_without_length_are_dpo(seed):
    batch = batch_of(plain_rows(seed, 4))
    expected = run("dpo", batch)[0].item()
    assert run("cdpo", batch, epsilon=0.0)[0].item() == pytest.approx(expected)
    assert run("r_dpo", batch, alpha=0.0)[0].item() == pytest.approx(expected)


def test_a_longer_winner_lessens_the_push_of_r_dpo():
    """The same Δ = 0 with winners of 4 and 1 tokens against a loser of 2: σ(−.3 · 2) and σ(.3 · 1)."""
    pushes = []
    for length in (4, 1):
        batch = batch_of([[(-1.0, -1.0)] * length, [(-1.0, -1.0)] * 2])
        pushes.append(float(slope(batch, run("r_dpo", batch, beta=1.0, alpha=0.3)[0]).abs().max()))
    assert pushes == pytest.approx([sigmoid(-0.6), sigmoid(0.3)])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), times=st.integers(2, 3))
def test_length_by_itself_is_nothing_to_means_and_something_to_sums(seed, times):
    """Every token said several times over: means stay, sums do not."""
    rows = plain_rows(seed, 4)
    longer = [row * times for row in rows]
    for name, options in (("simpo", {}), ("orpo", {}), ("ipo", {"per_token": True})):
        value = run(name, batch_of(rows), **options)[0].item()
        assert run(name, batch_of(longer), **options)[0].item() == pytest.approx(value)
    assert run("ipo", batch_of(longer))[0].item() != pytest.approx(run("ipo", batch_of(rows))[0].item())


def test_a_pair_that_is_apart_by_enough_gives_hinges_no_gradient():
    batch = batch_of(flat(-1.0, -3.0, reference=-2.0))
    assert not slope(batch, run("hinge", batch, beta=0.51)[0]).any()
    assert slope(batch, run("hinge", batch, beta=0.49)[0]).any()
    assert not slope(batch, run("slic_hf", batch, delta=1.9, weight=0.0)[0]).any()
    assert slope(batch, run("slic_hf", batch, delta=2.1, weight=0.0)[0]).any()


@pytest.mark.parametrize("logp", [0.0, -1e-12, -1e-8, -1e-7, -1e-4, -50.0, -200.0])
@pytest.mark.parametrize("winner", [True, False])
def test_orpo_is_finite_in_float32_at_both_ends(logp, winner):
    rows = flat(logp, -1.0) if winner else flat(-1.0, logp)
    batch = batch_of(rows, dtype=torch.float32)
    value, _ = run("orpo", batch)
    assert value.dtype == torch.float32 and torch.isfinite(value) and torch.isfinite(slope(batch, value)).all()


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.5, -0.69, -0.7, -3.0, -30.0])
def test_log1mexp_keeps_its_digits_in_float32(x):
    given = torch.tensor([x], dtype=torch.float32)
    expected = math.log(-math.expm1(given.double().item()))
    assert orpo.log1mexp(given).item() == pytest.approx(expected, rel=1e-6)


def test_kto_moves_each_row_to_its_side_and_leaves_the_undecided():
    batch = batch_of(plain_rows(5, 3), [0.2, -4.0, 0.0], mismatch=0.5)
    found = slope(batch, run("kto", batch)[0])
    own = batch.mask_BT != 0
    assert (found[0][own[0]] < 0).all() and (found[1][own[1]] > 0).all() and not found[2].any()


def test_ktos_reference_point_is_never_below_zero():
    rows = plain_rows(6, 3)
    low, high = (run("kto", batch_of(rows, [1.0, -1.0, 1.0], mismatch=m)) for m in (-5.0, 0.0))
    assert low[0].item() == high[0].item() and low[1] == high[1]


def test_kto_saturates_on_both_sides():
    """Far above or far below the reference point a row is hardly moved: not so in DPO, which pushes the worst most."""
    steep = []
    for r in (-200.0, 0.0, 200.0):
        batch = batch_of(flat(r), [1.0])
        steep.append(float(slope(batch, run("kto", batch)[0]).abs().max()))
    assert steep[1] == pytest.approx(0.1 / 4) and max(steep[0], steep[2]) < 1e-8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_rrhf_knows_states_and_not_places(seed, data):
    """Candidates in any order, ties among the best too; the values' scale does not matter."""
    rows, worth, states = plain_rows(seed, 7), [1.0, 0.0, 1.0, 0.5, 2.0, -1.0, 2.0], [0, 0, 0, 0, 1, 1, 1]
    order = data.draw(st.permutations(range(7)))
    value = run("rrhf", batch_of(rows, worth, states))[0].item()
    moved = batch_of([rows[i] for i in order], [3 * worth[i] - 5 for i in order], [states[i] for i in order])
    assert run("rrhf", moved)[0].item() == pytest.approx(value)


def test_rrhf_in_order_learns_the_best_alone_and_shares_it_among_equals():
    batch = batch_of(flat(-1.0, -1.0, -2.0, -3.0), [2.0, 2.0, 1.0, 0.0], [0] * 4)
    value, metrics = run("rrhf", batch)
    assert metrics == {"disorder": 0.0, "nll": 1.0}
    assert slope(batch, value).sum(dim=1).tolist() == [-0.5, -0.5, 0.0, 0.0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rrhf_of_two_candidates_compares_means_of_the_pair(seed):
    rows = plain_rows(seed, 2)
    value, _ = rrhf.loss(batch_of(rows, [1.0, 0.0], [9, 9]), rrhf.Options(weight=0.0))
    assert value.item() == pytest.approx(max(0.0, mean(rows[1]) - mean(rows[0])))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_states_of_other_sizes_split_like_any_other(seed):
    """Denominators are the step's: a part with one state of two, another with a state of four."""
    rows, worth, states = plain_rows(seed, 6), [0.0, 1.0, 2.0, 0.0, 1.0, 1.0], [0, 0, 1, 1, 1, 1]
    whole = batch_of(rows, worth, states)
    parts = [
        replace(
            whole,
            **{
                n: getattr(whole, n)[cut]
                for n in ("logprobs_BT", "mask_BT", "reference_BT", "advantages_BT", "state_B")
            },
        )
        for cut in (slice(0, 2), slice(2, 6))
    ]
    for name in ("rrhf", "kto"):
        split = sum(run(name, part)[0].item() for part in parts)
        assert split == pytest.approx(run(name, whole)[0].item())


@pytest.mark.parametrize("name", PAIRWISE)
def test_half_a_pair_is_refused(name):
    with pytest.raises(ValueError, match="3 rows splits one"):
        run(name, batch_of(plain_rows(0, 3)))


def test_who_needs_a_reference():
    """A run that trains all weights has none, so these are the ones it may choose."""
    free = {n for n in (*PAIRWISE, "kto", "rrhf") if "reference" not in leaf.find("training/objectives", n).NEEDS}
    assert free == {"slic_hf", "cpo", "orpo", "simpo", "rrhf"}
