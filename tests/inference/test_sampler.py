"""The sampler: frequencies, cuts, log-probabilities of what was sampled, keyed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from apps.inference.sampler import distribution, draw, uniforms
from apps.records import Sampling

PROBABILITIES = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
LOGITS = PROBABILITIES.log() + 3.0  # any constant
N = 20_000


def frequencies(sampling):
    numbers = torch.from_numpy(uniforms(7, N))
    chosen, logprobs = draw(LOGITS.expand(N, -1), numbers, sampling)
    return np.bincount(chosen, minlength=5), chosen, logprobs


def expected(sampling):
    """By hand: temperature, then the k likeliest, then the fewest that reach p."""
    p = PROBABILITIES.numpy().astype(float) ** (1 / sampling.temperature)
    order = np.argsort(-p)
    if sampling.top_k:
        p[order[sampling.top_k :]] = 0
    p /= p.sum()
    needed = int(np.searchsorted(np.cumsum(p[order]), sampling.top_p - 1e-9)) + 1
    p[order[needed:]] = 0
    return p / p.sum()


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=2.0),
    Sampling(top_k=2),
    Sampling(top_p=0.6),
    Sampling(top_p=0.3),
    Sampling(temperature=1.5, top_k=4, top_p=0.8),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frequencies_are_those_of_the_distribution(sampling):
    counts, _, _ = frequencies(sampling)
    p = expected(sampling)
    assert counts[p == 0].sum() == 0
    if (p > 0).sum() > 1:
        assert chisquare(counts[p > 0], N * p[p > 0]).pvalue > 1e-3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_logprobs_are_those_of_the_renormalised_distribution(sampling):
    p = expected(sampling)
    _, chosen, logprobs = frequencies(sampling)
    assert np.allclose(logprobs.numpy(), np.log(p[chosen.numpy()]), atol=1e-5)
    assert torch.allclose(distribution(LOGITS[None], sampling).exp().sum(), torch.tensor(1.0))


def test_greedy_takes_the_likeliest_whatever_the_numbers():
    chosen, logprobs = draw(LOGITS.expand(50, -1), torch.from_numpy(uniforms(1, 50)), Sampling(temperature=0.0))
    assert chosen.tolist() == [1] * 50 and logprobs.tolist() == [0.0] * 50


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 40))
def test_numbers_belong_to_their_seed_and_place(seed, count):
    assert np.array_equal(uniforms(seed, count), uniforms(seed, 50)[:count])
    assert not np.array_equal(uniforms(seed, 8), uniforms((seed + 1) % 2**64, 8))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=8),
    st.one_of(st.just(0.0), st.just(1 - 2**-53), st.floats(0, 1, exclude_max=True)),
    st.builds(Sampling, st.floats(0.1, 3), st.just(1), st.floats(0.05, 1), st.integers(0, 9)),
)
def test_no_number_draws_a_token_that_was_cut(logits, number, sampling):
    chosen, logprobs = draw(torch.tensor([logits]), torch.tensor([number], dtype=torch.float64), sampling)
    assert 0 <= chosen.item() < len(logits) and math.isfinite(logprobs.item())
