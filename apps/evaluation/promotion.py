"""Whether a newly trained team is let in: a rule on a paired test, and nothing else.

Pure: scores in, decision out. It measures nothing, swaps no adapter and does not look at health.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from apps.evaluation import statistics
from apps.leaf import unknown
from apps.records import MeritError

Rule = Literal["better", "not_worse", "always"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and on what grounds."""

    promoted: bool
    difference: float  # mean score of the candidate less that of the incumbent, on the same tasks
    p: float  # of the test that the rule looked at; two-sided under "always"
    reason: str  # a sentence for people


def decide(before: np.ndarray, after: np.ndarray, rule: Rule = "not_worse", alpha: float = 0.05) -> Decision:
    """Judges the candidate's scores `after` against the incumbent's `before`, (n,) or (n, k), on the same n tasks.

    - "better": promoted if it is significantly better (one-sided p < alpha).
    - "not_worse": promoted unless it is significantly worse (one-sided p < alpha).
    - "always": promoted; the test is reported only.

    A tie, no difference on any task, has p = 1 in both directions: "better" keeps the incumbent, "not_worse" promotes
    the candidate.
    """
    if rule not in get_args(Rule):
        raise MeritError(unknown("promotion.rule", str(rule), list(get_args(Rule))))
    test = statistics.paired(before, after)
    p = {"better": test.p_better, "not_worse": test.p_worse, "always": test.p}[rule]
    promoted = {"better": p < alpha, "not_worse": p >= alpha, "always": True}[rule]
    return Decision(promoted, test.difference, p, reason(rule, promoted, test.difference, p, alpha))


def reason(rule: Rule, promoted: bool, difference: float, p: float, alpha: float) -> str:
    change = f"mean score {difference:+.3f}, p = {p:.3g}"
    said = {
        ("better", True): f"significantly better ({change} < {alpha:g})",
        ("better", False): f"not significantly better ({change}, wanted < {alpha:g})",
        ("not_worse", True): f"not significantly worse ({change} ≥ {alpha:g})",
        ("not_worse", False): f"significantly worse ({change} < {alpha:g})",
        ("always", True): f"promoted without a condition ({change})",
    }
    return said[rule, promoted]
