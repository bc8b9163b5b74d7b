"""Mixtures by hand: shares, weights that follow losses, counts, draws; and the gate."""

from __future__ import annotations

from collections import Counter
from math import exp, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.data import gate, mixture
from apps.data.gate import State
from apps.data.mixture import Options


def test_the_share_is_a_fifth_and_annealed_on_request():
    assert [mixture.share_at(w, 3, Options()) for w in (1, 2, 3)] == [0.2, 0.2, 0.2]
    falling = Options(general=0.5, general_last=0.1)
    assert [mixture.share_at(w, 5, falling) for w in range(1, 6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert mixture.share_at(1, 1, falling) == 0.5


def test_a_prior_by_hand():
    sizes = {"law": 30, "notes": 10, "web": 500}
    assert mixture.prior(sizes, ["web"], 0.2, {}) == pytest.approx({"law": 0.6, "notes": 0.2, "web": 0.2})
    even = mixture.prior(sizes, ["web"], 0.2, {"law": 1, "notes": 1})
    assert even == pytest.approx({"law": 0.4, "notes": 0.4, "web": 0.2})
    assert mixture.prior({"law": 3}, [], 0.2, {}) == {"law": 1.0}
    assert mixture.prior({"web": 3}, ["web"], 0.2, {}) == {"web": 1.0}


def test_weights_follow_the_excess_of_losses_by_hand():
    pushes = mixture.raised({"a": 0.5}, {"a": 2.0, "b": 3.0, "c": 1.0}, {"a": 1.7, "b": 3.5, "c": 1.0})
    assert pushes == pytest.approx({"a": 0.8, "b": 0.0, "c": 0.0})
    prior = {"a": 0.4, "b": 0.4, "c": 0.2}
    assert mixture.weighed(prior, pushes, ["c"], "none") == prior
    sides = mixture.weighed(prior, pushes, ["c"], "sides")
    assert sides == pytest.approx({"a": 0.8 * exp(0.8) / (exp(0.8) + 1), "b": 0.8 / (exp(0.8) + 1), "c": 0.2})
    total = 0.4 * exp(0.8) + 0.6
    everything = mixture.weighed(prior, pushes, ["c"], "all")
    assert everything == pytest.approx({"a": 0.4 * exp(0.8) / total, "b": 0.4 / total, "c": 0.2 / total})
    assert mixture.weighed(prior, {"a": 5000.0, "c": 4000.0}, ["c"], "all")["a"] == pytest.approx(1)


def test_counts_by_hand():
    assert mixture.counts({"a": 0.8, "b": 0.2}, 10) == {"a": 8, "b": 2}
    assert mixture.counts({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10) == {"a": 4, "b": 3, "c": 3}
    assert mixture.counts({"a": 0.55, "b": 0.25, "c": 0.2}, 3) == {"a": 2, "b": 1, "c": 0}


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=6), st.integers(0, 500))
def test_counts_are_whole_and_within_one_of_what_was_asked(values, total):
    weights = {str(i): v / sum(values) for i, v in enumerate(values)}
    dealt = mixture.counts(weights, total)
    assert sum(dealt.values()) == total and all(abs(dealt[n] - w * total) < 1 for n, w in weights.items())


@given(st.integers(1, 9), st.lists(st.integers(0, 13), min_size=1, max_size=5))
def test_draws_of_many_waves_are_one_sequence_of_whole_passes(size, parts):
    pool = np.arange(size) * 10
    at, found = 0, []
    for count in parts:
        found += mixture.drawn(pool, at, count, [7]).tolist()
        at += count
    assert found == mixture.drawn(pool, 0, at, [7]).tolist()
    whole = Counter(found[: at // size * size])
    assert set(whole.values()) <= {at // size}


def test_a_warm_up_shows_marked_rows_so_many_times():
    assert mixture.oversampled(np.array([False, True, False]), 3).tolist() == [0, 1, 1, 1, 2]


def test_the_gate_by_hand():
    options = gate.Options(tolerance=0.1)
    first = gate.judged(State(2.0), 2.05, options)
    assert first == State(2.0, 1.0, False, True)
    better = gate.judged(first, 1.9, options)
    assert better == State(1.9, 1.0, False, True)
    worse = gate.judged(better, 2.01, options)  # allowed against 2.0, not against the lowest
    assert worse == State(1.9, 0.5, False, False)
    assert gate.judged(worse, nan, options) == State(1.9, 0.25, False, False)
    assert gate.judged(worse, 2.0, options).kept  # at the tolerance itself
    ended = gate.judged(better, 2.01, gate.Options(tolerance=0.1, then="stop"))
    assert ended.stopped and gate.judged(ended, 0.0, options) == State(1.9, 0.5, True, False)
    assert gate.judged(State(None), None, options).kept  # nothing general to lose


def test_the_general_loss_is_a_mean_over_tokens():
    losses = {"a": {"loss": 1.0, "tokens": 30}, "b": {"loss": 2.0, "tokens": 10}, "new": {"loss": 9.0, "tokens": 99}}
    assert gate.general_loss(losses, ["a", "b"]) == pytest.approx(1.25)
    assert gate.general_loss(losses, []) is None
