"""Objectives of a scalar head: each against plain Python that knows nothing of the project, by hand, and by their laws.

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
from apps.training.objectives import bradley_terry, outcome, process, scores

SETTINGS = {  # away from the defaults, so that an option which is not read is seen
    "bradley_terry": ({"margin": 0.7, "centring": 0.3}, {"margin": 0.0, "centring": 0.0}),
    "outcome": ({"tokens": "last"}, {"tokens": "all"}),
    "process": ({},),
}
CASES = [(name, options) for name, several in SETTINGS.items() for options in several]


# The reference: a row is a list of (score, target or None) of its own tokens.


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def plain_bradley_terry(rows, margin=1.0, centring=0.01):
    total = 0.0
    for won, lost in zip(rows[::2], rows[1::2], strict=True):
        (r_w, m), r_l = won[-1], lost[-1][0]
        total += -log_sigmoid(r_w - r_l - margin * (m or 0.0)) + centring * (r_w + r_l) ** 2
    return total / (len(rows) / 2)


def plain_entropy(score, target):
    if target is None:
        return 0.0
    p = 1 / (1 + math.exp(-score))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def plain_outcome(rows, tokens="last"):
    if tokens == "last":
        return sum(plain_entropy(*row[-1]) for row in rows) / len(rows)
    return sum(plain_entropy(s, row[-1][1]) for row in rows for s, _ in row) / sum(map(len, rows))


def plain_process(rows):
    return sum(plain_entropy(s, y) for row in rows for s, y in row) / sum(map(len, rows))


PLAIN = {"bradley_terry": plain_bradley_terry, "outcome": plain_outcome, "process": plain_process}


def drawn(seed, count=6):
    lot = random.Random(seed)
    number = lambda: (lot.gauss(0, 2), lot.choice([None, 0.0, 1.0, lot.random()]))  # noqa: E731
    return [[number() for _ in range(lot.randint(1, 5))] for _ in range(count)]


def batch_of(rows, gap=1):
    """Own tokens stand `gap` apart, with rubbish between and behind them."""
    length = (gap + 1) * max(map(len, rows)) + 2
    read, target = (torch.full((len(rows), length), 99.0, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros_like(read)
    for b, row in enumerate(rows):
        for i, (score, label) in enumerate(row):
            place = (gap + 1) * i + 1
            read[b, place], target[b, place] = score, math.nan if label is None else label
            mask[b, place] = 1
    counts = (float(mask.sum()), float(len(rows)), len(rows) / 2)
    return Batch(None, mask, *counts, scores_BT=read.requires_grad_(True), targets_BT=target)


def run(name, rows, **options):
    module = leaf.find("training/objectives", name)
    batch = batch_of(rows)
    return batch, *module.loss(batch, module.Options(**options))


@pytest.mark.parametrize(("name", "options"), CASES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_equals_the_scalar_formula(name, options, seed):
    rows = drawn(seed)
    _, value, _ = run(name, rows, **options)
    assert value.item() == pytest.approx(PLAIN[name](rows, **options), abs=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_defaults_are_the_published_ones(name):
    rows = drawn(3)
    assert run(name, rows)[1].item() == pytest.approx(PLAIN[name](rows), abs=1e-10)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_has_no_target_has_no_gradient(name, options):
    rows = [[(1.0, None), (0.5, None)], [(-1.0, None)]]
    batch, value, _ = run(name, rows, **options)
    (slope,) = torch.autograd.grad(value, batch.scores_BT)
    assert torch.isfinite(slope).all() and value.isfinite()
    assert slope.any() == (name == "bradley_terry")  # a pair without a margin is a pair all the same


def test_bradley_terry_by_hand():
    """r_w = 2, r_l = 1 and m = .5: −log σ(.5) = .474077; centring .1·3² = .9."""
    rows = [[(9.0, None), (2.0, 0.5)], [(1.0, None)]]
    batch, value, metrics = run("bradley_terry", rows, centring=0.1)
    assert value.item() == pytest.approx(1.374077, abs=1e-6)
    assert metrics == pytest.approx({"margin": 1.0, "pair_accuracy": 1.0, "reward": 1.5})
    (slope,) = torch.autograd.grad(value, batch.scores_BT)
    pull = 1 / (1 + math.exp(0.5))  # σ(−.5), and 2·.1·3 from the centring
    assert slope[slope != 0].tolist() == pytest.approx([0.6 - pull, 0.6 + pull])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-5, 5))
def test_without_centring_only_differences_count(seed, shift):
    rows = drawn(seed)
    moved = [[(s + shift, y) for s, y in row] for row in rows]
    free = [run("bradley_terry", r, centring=0.0)[1].item() for r in (rows, moved)]
    assert free[0] == pytest.approx(free[1], abs=1e-9)
    bound = [run("bradley_terry", r, centring=0.5)[1].item() for r in (rows, moved)]
    total = sum((w[-1][0] + l[-1][0] + 2 * shift) ** 2 - (w[-1][0] + l[-1][0]) ** 2 for w, l in pairs(rows))  # noqa: E741
    assert bound[1] - bound[0] == pytest.approx(0.5 * total / 3, abs=1e-6)


def pairs(rows):
    return zip(rows[::2], rows[1::2], strict=True)


def test_a_larger_margin_asks_for_more():
    losses = [run("bradley_terry", [[(1.0, m)], [(0.0, None)]], centring=0.0)[1].item() for m in (None, 0.0, 1.0, 3.0)]
    assert losses[0] == losses[1] < losses[2] < losses[3]
    assert run("bradley_terry", [[(1.0, 3.0)], [(0.0, 8.0)]], margin=0.0, centring=0.0)[1].item() == losses[0]


def test_half_a_pair_is_refused():
    with pytest.raises(ValueError, match="3 rows splits one"):
        run("bradley_terry", drawn(0, 3))


def test_outcome_by_hand():
    """σ(0) = .5 and σ(log 3) = .75: (log 2 − log .25)/2 for labels 1 and 0."""
    rows = [[(5.0, None), (0.0, 1.0)], [(math.log(3), 0.0)]]
    _, value, metrics = run("outcome", rows)
    assert value.item() == pytest.approx((math.log(2) - math.log(0.25)) / 2)
    assert metrics == pytest.approx({"accuracy": 0.0, "reward": math.log(3) / 2})
    assert run("outcome", [[(0.3, 1.0)], [(-0.3, 0.0)]])[2]["accuracy"] == 1
    assert run("outcome", [[(0.3, None)], [(-0.3, None)]])[2]["accuracy"] == 0  # nobody says what is right


def test_process_by_hand():
    """Three steps of two rows, labels 1, .5 and 0 at odds 1:1, 3:1, 1:3."""
    rows = [[(0.0, 1.0), (math.log(3), 0.5)], [(-math.log(3), 0.0)]]
    _, value, metrics = run("process", rows)
    second = -0.5 * math.log(0.75) - 0.5 * math.log(0.25)
    assert value.item() == pytest.approx((math.log(2) + second - math.log(0.75)) / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)  # even odds and an even label are on neither side


def test_soft_labels_are_met_at_their_own_odds():
    """The gradient of cross-entropy is σ(s) − y: none where the score says what the label says."""
    for label in (0.1, 0.5, 0.9):
        batch, value, _ = run("process", [[(math.log(label / (1 - label)), label)]])
        assert torch.autograd.grad(value, batch.scores_BT)[0].abs().max() < 1e-12


def test_the_last_own_token_is_what_counts():
    batch = batch_of([[(1.0, 1.0), (2.0, 1.0)], [(3.0, 1.0)]])
    assert scores.last(batch.scores_BT, batch).tolist() == [2.0, 3.0]
    nobody = replace(batch, mask_BT=torch.zeros_like(batch.mask_BT))
    assert scores.last(nobody.scores_BT, nobody).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("module", [bradley_terry, outcome, process])
def test_a_row_without_own_tokens_changes_no_other(module):
    """Rows 2 and 3 lose theirs; what the first two give stays, and nothing becomes NaN."""
    batch = batch_of(drawn(5, 4))
    mask = batch.mask_BT.clone()
    mask[2:] = 0
    value, _ = module.loss(replace(batch, mask_BT=mask), module.Options())
    slope = torch.autograd.grad(value, batch.scores_BT)[0]
    assert value.isfinite() and torch.isfinite(slope).all() and not slope[2:].any()
