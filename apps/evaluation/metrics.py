"""What is measured of a team, as pure functions on plain arrays.

No intervals (statistics.py), no decisions (promotion.py).

Rates are shares in 0..1. A rate over nothing is NaN: there was nothing to measure, which is not 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, prod

import numpy as np


def share(of: Sequence[bool] | np.ndarray) -> float:
    """The mean of a boolean or score array of any shape; NaN where it is empty."""
    of = np.asarray(of, dtype=np.float64)
    return float(of.mean()) if of.size else nan


def corrections(before: Sequence[bool], after: Sequence[bool]) -> list[bool]:
    """Of each answer that was wrong before someone worked on it: whether it was right after.

    Their share is the error correction rate, (wrong → right)/initially wrong.
    """
    return [a for b, a in zip(before, after, strict=True) if not b]


def introductions(before: Sequence[bool], after: Sequence[bool]) -> list[bool]:
    """Of each answer that was right: whether it was wrong after. The counterpart, or who changes all would look good."""
    return [not a for b, a in zip(before, after, strict=True) if b]


def misreads(given: Sequence[str | None], read: Sequence[str | None]) -> list[bool]:
    """Of each readable answer (not None): whether a verifier reported it as another one, or as none."""
    return [g != r for g, r in zip(given, read, strict=True) if g is not None]


def collaboration_efficiency(team: float, single: float, agents: int) -> float:
    """(accuracy of the team − accuracy of a single agent)/(agents − 1); NaN for a team of one."""
    return (team - single) / (agents - 1) if agents > 1 else nan


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that k of n samples hold a right one, 1 − C(n−c, k)/C(n, k), unbiased (arXiv 2107.03374, eq. 1).

    As a product of k ratios, which neither overflows nor cancels. ValueError where k is not in 1..n.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@k wants 1 ≤ k ≤ n and 0 ≤ c ≤ n; got n={samples}, c={right}, k={k}")
    return 1.0 - prod(max(0, samples - right - i) / (samples - i) for i in range(k))


def majority_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """The accuracy of a vote among k samples of one task: a mean over its ⌊n/k⌋ disjoint blocks of k, in order.

    ValueError where k is not in 1..n.
    """
    if len(answers) != len(right) or not 1 <= k <= len(answers):
        raise ValueError(f"majority@k wants 1 ≤ k ≤ n; got k={k}, {len(answers)} answers and {len(right)} verdicts")
    starts = range(0, len(answers) - k + 1, k)
    return share([vote(answers[s : s + k], right[s : s + k]) for s in starts])


def vote(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """The chance that the most frequent parsed answer is right, a tie being broken by lot.

    None (not parsed) does not vote, and 0 where nobody does. Answers are equal as strings: give them in the
    verifier's parsed form.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    first = {answer: ok for answer, ok in reversed(list(zip(answers, right, strict=True)))}
    leaders = [answer for answer, count in votes.items() if count == most]
    return share([first[answer] for answer in leaders]) if leaders else 0.0


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a critic's own verdicts find wrong answers; "INCORRECT" is the positive class."""

    true_positives: int  # said INCORRECT of a wrong answer
    false_positives: int  # said INCORRECT of a right answer: cried wolf
    true_negatives: int  # said CORRECT of a right answer
    false_negatives: int  # said CORRECT of a wrong answer: waved it through

    @property
    def precision(self) -> tuple[int, int]:
        """Of the alarms, those that were true: how many of how many, as the other two."""
        return self.true_positives, self.true_positives + self.false_positives

    @property
    def recall(self) -> tuple[int, int]:
        """Of the wrong answers, those it found."""
        return self.true_positives, self.true_positives + self.false_negatives

    @property
    def specificity(self) -> tuple[int, int]:
        """Of the right answers, those it let pass. Balanced accuracy is (recall + specificity)/2."""
        return self.true_negatives, self.true_negatives + self.false_positives


def detection(said_incorrect: Sequence[bool | None], was_wrong: Sequence[bool]) -> Detection:
    """Counts a critic's verdicts against the truth of what it looked at.

    None is a verdict that could not be parsed. It is an error of whichever kind: a wrong answer not found, or a right
    one not passed.
    """
    cells = Counter(
        ((not wrong) if said is None else bool(said), bool(wrong))
        for said, wrong in zip(said_incorrect, was_wrong, strict=True)
    )
    return Detection(cells[True, True], cells[True, False], cells[False, False], cells[False, True])
