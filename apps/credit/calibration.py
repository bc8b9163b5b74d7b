"""How far a judge can be trusted, measured where the truth is known, and what its word is then worth. Not a method.

A judge looks at a case `looks` times and says "right" at `yes` of them. Cases whose truth is verified give its
sensitivity (says right of what is right) and specificity (says wrong of what is wrong). The share of right cases among
*all* judged, verified or not, follows from the share that it calls right, by Rogan & Gladen (1978, Am. J. Epidemiology
107:71): π = (apparent + specificity − 1) / (sensitivity + specificity − 1), clipped. That is a statement about many cases;
of one case, where it would nearly always be clipped to 0 or 1, Bayes' rule speaks with π as the prior.

Looks of one judge at one text share its blind spots, so their mean counts as one look, not their number as evidence.
Tallies of shards are added up first, then one calibration is applied to all.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated

from pydantic import Field

from apps import records

Case = tuple[int, int, bool | None]  # looks that said "right", looks that said anything, the truth where it is verified
Tally = Counter  # of Cases
Share = Annotated[float, Field(gt=0, lt=1)]
BINS = 5  # of the reliability table


class Calibration(records.Options):
    """What was measured of a judge. Shares are those of Jeffreys' prior, so never quite 0 or 1."""

    sensitivity: Share
    specificity: Share
    prevalence: Share = Field(description="share of right cases among all that were judged")
    right: int = Field(ge=1, description="verified cases that are right")
    wrong: int = Field(ge=1, description="verified cases that are wrong")


def fit(tally: Tally) -> Calibration | None:
    """The calibration of a merged tally; None where no verified case is right, or none is wrong: one rate has no data."""
    right, yes_of_right = _looks(tally, True)
    wrong, yes_of_wrong = _looks(tally, False)
    if not right or not wrong:
        return None
    sensitivity, specificity = _share(yes_of_right, right), _share(wrong - yes_of_wrong, wrong)
    cases = sum(count for (_, looks, _), count in tally.items() if looks)
    apparent = sum(count * yes / looks for (yes, looks, _), count in tally.items() if looks) / cases
    known = _share(right, right + wrong)
    prevalence = rogan_gladen(apparent, sensitivity, specificity, known)
    edge = 0.5 / (cases + 1)
    return Calibration(
        sensitivity=sensitivity,
        specificity=specificity,
        prevalence=min(max(prevalence, edge), 1 - edge),
        right=right,
        wrong=wrong,
    )


def rogan_gladen(apparent: float, sensitivity: float, specificity: float, known: float) -> float:
    """The share of right cases behind the share that a judge calls right, clipped to [0, 1].

    A judge no better than a coin (sensitivity + specificity ≤ 1) tells nothing of it: then the share among the verified.
    """
    better = sensitivity + specificity - 1
    return known if better <= 0 else min(1.0, max(0.0, (apparent + specificity - 1) / better))


def chance(yes: int, looks: int, measured: Calibration | None) -> float:
    """The probability that a case is right; without a calibration the judge is taken at its word."""
    if measured is None:
        return yes / looks
    says_right, says_wrong = _evidence(measured)
    mean = yes / looks
    prior = math.log(measured.prevalence / (1 - measured.prevalence))
    return 1 / (1 + math.exp(-(prior + mean * says_right + (1 - mean) * says_wrong)))


def spread(yes: int, looks: int, measured: Calibration | None) -> float:
    """Standard error of `chance` by the delta method: that of the looks and of the two measured rates, the prior as known.

    The share of the looks is taken with Jeffreys' prior, else looks that agree would leave no doubt.
    """
    share = _share(yes, looks)
    variance = share * (1 - share) / looks
    if measured is None:
        return math.sqrt(variance)
    says_right, says_wrong = _evidence(measured)
    p, mean = chance(yes, looks, measured), yes / looks
    of_looks = variance * (says_right - says_wrong) ** 2
    a, b = measured.sensitivity, measured.specificity
    by_a = mean / a - (1 - mean) / (1 - a)  # slopes of the log-odds of `chance`
    by_b = mean / (1 - b) - (1 - mean) / b
    of_rates = by_a**2 * a * (1 - a) / measured.right + by_b**2 * b * (1 - b) / measured.wrong
    return p * (1 - p) * math.sqrt(of_looks + of_rates)


def brier(tally: Tally, measured: Calibration | None) -> float | None:
    """Mean squared distance of `chance` from the truth over the verified cases (Brier 1950); None without any."""
    cases = _chances(tally, measured)
    return sum(n * (p - truth) ** 2 for p, truth, n in cases) / sum(n for *_, n in cases) if cases else None


def reliability(tally: Tally, measured: Calibration | None) -> list[dict[str, float]]:
    """The verified cases by their `chance`, in bins of equal width: how many, their mean chance, their share of right."""
    table = []
    for place in range(BINS):
        cases = [(p, truth, n) for p, truth, n in _chances(tally, measured) if min(int(p * BINS), BINS - 1) == place]
        if count := sum(n for *_, n in cases):
            means = sum(n * p for p, _, n in cases) / count, sum(n * truth for _, truth, n in cases) / count
            table.append({"cases": count, "chance": means[0], "right": means[1]})
    return table


def _chances(tally: Tally, measured: Calibration | None) -> list[tuple[float, bool, int]]:
    return [(chance(yes, looks, measured), truth, n) for (yes, looks, truth), n in _known(tally)]


def _known(tally: Tally) -> list[tuple[Case, int]]:
    return [(case, n) for case, n in tally.items() if case[1] and case[2] is not None]


def _looks(tally: Tally, truth: bool) -> tuple[int, float]:
    """Verified cases of one truth, and the sum over them of the share of looks that said "right"."""
    cases = [(yes / looks, n) for (yes, looks, known), n in _known(tally) if known is truth]
    return sum(n for _, n in cases), sum(share * n for share, n in cases)


def _share(hits: float, of: int) -> float:
    return (hits + 0.5) / (of + 1)


def _evidence(measured: Calibration) -> tuple[float, float]:
    """Logarithms of the likelihood ratios of the judge's saying "right" and "wrong"."""
    a, b = measured.sensitivity, measured.specificity
    return math.log(a / (1 - b)), math.log((1 - a) / b)
