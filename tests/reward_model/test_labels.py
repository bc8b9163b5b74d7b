"""What a reward model is taught: labels from shares of plays, and rows whose loss is on the label."""

from __future__ import annotations

import numpy as np
import pytest

from apps.credit import process_reward
from apps.reward_model import labels
from tests.credit.plays import graded, group

READING = process_reward.Options()
GROUP = group(graded(["solver", "critic"], 1.0), graded(["solver", "reviser"], 0.0, sample=1))
MEASURED = [  # of the beginnings of 0, 1 and 2 turns, by four plays each
    np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], float),
    np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], float),
]


def test_a_step_that_traces_share_is_one_row():
    steps = labels.steps(GROUP, MEASURED, READING)
    assert [(step.share, step.plays) for step in steps] == [(0.25, 4), (0.5, 4), (1.0, 4), (0.0, 4)]
    assert [step.prompt.count("Solution:") for step in steps] == [0, 1, 2, 2]
    assert {step.task for step in steps} == {"t"}


@pytest.mark.parametrize(("theta", "good"), [(0.0, 3), (0.25, 2), (0.5, 1), (0.9, 1)])
def test_a_hard_label_is_good_above_theta(theta, good):
    steps = labels.steps(GROUP, MEASURED, READING)
    taught = labels.taught(steps, labels.Options(theta=theta), READING)
    assert len(taught) == 4 and sum(label == READING.good for _, label in taught) == good
    assert (steps[2].prompt, READING.good) in taught and (steps[3].prompt, READING.bad) in taught


def test_soft_labels_have_the_share_as_their_mean():
    steps = labels.steps(GROUP, MEASURED, READING)
    taught = labels.taught(steps, labels.Options(estimation="soft"), READING)
    for step in steps:
        own = [label == READING.good for prompt, label in taught if prompt == step.prompt]
        assert len(own) == 4 and np.mean(own) == step.share


def test_rows_teach_the_label_alone():
    ids = lambda text: np.array([len(text)], np.int32)  # noqa: E731
    rows = labels.rows_of([("four", "a"), ("fives", "bb")], ids, ids)
    assert [list(p) for p in rows.prompts] == [[4], [5]] and [list(c) for c in rows.completions] == [[1], [2]]
    assert list(rows.lengths) == [2, 2] and list(rows.advantages) == [1, 1] and not rows.paired


HEAD = process_reward.Options(by="head")


def joined(pieces):
    """A token a letter, and the end token."""
    lengths = [len(piece) for piece in pieces]
    return np.arange(sum(lengths) + 1, dtype=np.int32), np.cumsum(lengths) - 1 + np.array([0] * (len(pieces) - 1) + [1])


def test_a_play_is_a_row_that_is_taught_after_every_step():
    plays = labels.plays(GROUP, MEASURED, HEAD)
    assert [play.shares for play in plays] == [(0.25, 0.5, 1.0), (0.25, 0.5, 0.0)]
    assert plays[0].pieces == ("Solution:", " Solution: solver 0", " Solution: critic 0")
    assert "Solution" not in plays[0].prompt
    ids = lambda text: np.array([len(text)], np.int32)  # noqa: E731
    soft = labels.rows_of_plays(plays, labels.Options(estimation="soft"), ids, joined)
    hard = labels.rows_of_plays(plays, labels.Options(theta=0.25), ids, joined)
    for rows, expected in ((soft, [[0.25, 0.5, 1], [0.25, 0.5, 0]]), (hard, [[0, 1, 1], [0, 1, 0]])):
        for target, mask, shares in zip(rows.columns["targets"], rows.columns["mask"], expected, strict=True):
            assert list(target[mask == 1]) == shares and np.isnan(target[mask == 0]).all()
            assert list(np.flatnonzero(mask)[:2]) == [8, 27] and mask[-1] == 1 and mask.sum() == 3
    soft.check({"scores", "targets"})


def test_shuffled_labels_are_the_same_labels_elsewhere():
    ids = lambda text: np.array([len(text)], np.int32)  # noqa: E731
    plays = [labels.Play(f"p{i}", ("ab", "c", "de"), (i / 40, i / 20, i % 2)) for i in range(20)]
    rows = labels.rows_of_plays(plays, labels.Options(estimation="soft"), ids, joined)
    mixed = labels.shuffled(rows, 0)
    flat = [np.concatenate(r.columns["targets"]) for r in (rows, mixed)]
    assert np.array_equal(np.isfinite(flat[0]), np.isfinite(flat[1])) and not np.array_equal(
        *(f[np.isfinite(f)] for f in flat)
    )
    assert sorted(flat[0][np.isfinite(flat[0])]) == sorted(flat[1][np.isfinite(flat[1])])
    words = labels.rows_of([(str(i), "ab"[i % 2]) for i in range(20)], ids, lambda w: np.array([ord(w)], np.int32))
    dealt = labels.shuffled(words, 0)
    assert [list(p) for p in dealt.prompts] == [list(p) for p in words.prompts]
    assert sorted(c[0] for c in dealt.completions) == sorted(c[0] for c in words.completions)
    assert [c[0] for c in dealt.completions] != [c[0] for c in words.completions]
