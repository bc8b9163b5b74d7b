"""What the beginning of a trace is worth, and which turn lost it. Not a method: what methods that replay prefixes share.

V(k) is the mean score of R plays that go on from the first k turns, k = 0 … T − 1; V(T) is the trace's own outcome. What
begins alike in several traces is played once. A reviser makes V rise and fall, so all of it is measured: no bisection.

The culprit of a failure is the turn that *lost* most: how likely the team was to be right with another turn in its
place, less the best that it ever was again. Three replacements are tried, because each is blind to something:

1. The agent speaks again: V(t). What is left is a turn's bad luck. Blind to an agent that always errs: it errs again.
2. The base model speaks for the agent from that turn on. It finds such a saboteur, and where an agent errs often it
   tells its fault from the bad luck of those before it, who cannot do better than the saboteur lets them. Both are
   compared in one ranking: a saboteur that spares one play in five would else be passed over for somebody's small
   drop. Not asked where the agent is the base model itself.
3. What the topology declares for an absent agent, where neither shows anything: what bypassing it would have saved.

Only a loss of at least `least` that is 2 standard errors from 0 counts. Where none does, `first_error` walks the trace.
A replay that removes an agent answers another question than one that replaces its turn (arXiv 2603.06859); it is
asked where replacement cannot tell.

What it gets wrong: the second replacement is as good as the base model. Planted faults are found almost always where
the base model is the team without its fault, since that is what they are measured against. Where the stand-in errs as
the agent does, only seldom faults are still found; one that strikes in most plays is put on whoever was unlucky before
it, and a turn that cannot be bypassed to any use (a saboteur that revises) on nobody or on another.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.credit import groups
from apps.records import Graded, Group, Outcome, Replay, Trace

SURE = 2.0  # standard errors from 0
HOW = {"": "had it spoken again", "base": "with the base model in its place", "bypass": "had it been bypassed"}

Scores = np.ndarray  # float64 (..., R), the scores of replays
Place = tuple[tuple[str, int, str], ...]  # a turn in a tree: (path, seed, text) of it and of all before it
Asking = Generator[list[Replay], list[Outcome], dict[Hashable, Scores]]


@dataclass(frozen=True, slots=True)
class Loss:
    """A turn that lost the answer."""

    turn: int  # its place in the trace
    size: float  # of what the team's mean score could have been, 0..1
    error: float  # its standard error
    how: str  # the replacement that showed it: "", "base" or "bypass"

    def __str__(self) -> str:
        return f"{self.size:.2f} ± {self.error:.2f} {HOW[self.how]}"


def beginning(trace: Trace, keep: int) -> tuple[tuple[str, str], ...]:
    """What a play that goes on from the first `keep` turns depends on: who said what."""
    return tuple((turn.path, turn.text) for turn in trace.turns[:keep])


def place(trace: Trace, keep: int) -> Place:
    """The last of the first `keep` turns as a node of a tree: traces that share it drew it together.

    By its seed as well, so that two branches that happen to say the same remain two.
    """
    return tuple((turn.path, turn.seed, turn.text) for turn in trace.turns[:keep])


def measure(
    group: Group, repeats: int, traces: Sequence[int] | None = None, first: int = 0
) -> Generator[list[Replay], list[Outcome], dict[int, Scores]]:
    """The scores behind V, (T + 1, repeats), of each trace or of `traces`; the last row is the outcome itself.

    `first` is the number of the first repeat: other numbers are other random numbers.
    """
    keys = {
        i: [beginning(group.graded[i].trace, k) for k in range(len(group.graded[i].trace.turns))]
        for i in (range(len(group.graded)) if traces is None else traces)
    }
    cases: dict[Hashable, Replay] = {}
    for i, row in keys.items():
        for k, key in enumerate(row):
            cases.setdefault(key, Replay(i, keep=k, fresh="rest"))
    found = yield from ask(group, cases, range(first, first + repeats))
    ends = {i: np.full((1, repeats), group.graded[i].verdict.score) for i in keys}
    return {i: np.concatenate([*(found[key][None] for key in row), ends[i]]) for i, row in keys.items()}


def replaced(
    group: Group, traces: Sequence[int], protocol: str, repeats: int
) -> Generator[list[Replay], list[Outcome], dict[int, dict[int, Scores]]]:
    """For each of `traces` and each turn: scores (repeats,) with its agent replaced from this turn on.

    Turns of the base model have no stand-in "base": they are left out.
    """
    places = [
        (i, k)
        for i in traces
        for k, turn in enumerate(group.graded[i].trace.turns)
        if (protocol, turn.policy) != ("base", "base")
    ]
    cases: dict[Hashable, Replay] = {}
    for i, k in places:
        cases.setdefault(_case(group, i, k), Replay(i, ((_speaker(group, i, k), protocol),), keep=k, fresh="rest"))
    found = yield from ask(group, cases, range(repeats))
    return {i: {k: found[_case(group, j, k)] for j, k in places if j == i} for i in traces}


def ask(group: Group, cases: Mapping[Hashable, Replay], repeats: Sequence[int]) -> Asking:
    """Asks each case with each of `repeats`, all at once, so that they batch; the scores (repeats,) by case."""
    wanted = [replace(case, repeat=r) for case in cases.values() for r in repeats]
    came = (yield wanted) if wanted else []
    scores = [groups.score_of(outcome, group, asked) for asked, outcome in zip(wanted, came, strict=True)]
    return dict(zip(cases, np.array(scores).reshape(len(cases), len(repeats)), strict=True))


def blame(
    group: Group, measured: Mapping[int, Scores], repeats: int, least: float
) -> Generator[list[Replay], list[Outcome], dict[int, Loss | None]]:
    """For each failed trace the turn that lost the answer, by place in the group; None where no loss is sure."""
    failed = [i for i, g in enumerate(group.graded) if not g.verdict.right]
    again = {i: dict(enumerate(measured[i][:-1])) for i in failed}
    other = yield from replaced(group, failed, "base", repeats)
    found = {i: worst([(again[i], ""), (other[i], "base")], measured[i], least) for i in failed}
    open_ = [i for i in failed if found[i] is None]
    spared = yield from replaced(group, open_, "bypass", repeats)
    return found | {i: worst([(spared[i], "bypass")], measured[i], least) for i in open_}


def worst(replacements: Sequence[tuple[Mapping[int, Scores], str]], scores: Scores, least: float) -> Loss | None:
    """The largest sure loss of all replacements, the first turn of equals; `scores` (T + 1, R) are those behind V."""
    losses = [
        Loss(turn, *mean_and_error(tried - scores[regained(scores, turn)]), how)
        for tries, how in replacements
        for turn, tried in tries.items()
    ]
    sure = [loss for loss in losses if is_sure(loss.size, loss.error, least)]
    return max(sure, key=lambda loss: (round(loss.size, 9), -loss.turn), default=None)


def regained(scores: Scores, turn: int) -> int:
    """Where the team stood best after a turn: k > turn with the largest V(k)."""
    return turn + 1 + int(scores[turn + 1 :].mean(axis=1).argmax())


def drops(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """V(t) − V(t + 1) of each turn and its standard error, both (T,). Equal repeats share their random numbers."""
    pairs = [mean_and_error(row) for row in scores[:-1] - scores[1:]]
    return np.array([mean for mean, _ in pairs]), np.array([error for _, error in pairs])


def locate(sizes: np.ndarray, errors: np.ndarray, least: float, start: int = 0) -> int | None:
    """The place of the largest sure size from `start` on, the first of equals; None where none is sure."""
    sure = [t for t in range(start, len(sizes)) if is_sure(sizes[t], errors[t], least)]
    return max(sure, key=lambda t: (round(float(sizes[t]), 9), -t), default=None)


def is_sure(size: float, error: float, least: float) -> bool:
    return bool(size >= least and size >= SURE * error)


def mean_and_error(scores: Scores) -> tuple[float, float]:
    """The mean of (R,) and its standard error; 0, that is not estimated, for one repeat and where all are equal."""
    error = scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else 0.0
    return float(scores.mean()), float(error)


def answered(graded: Graded) -> list[bool | None]:
    """Whether each turn's own answer is right; None where it carries none."""
    return [None if verdict is None else verdict.right for verdict in graded.turn_verdicts]


def _speaker(group: Group, trace: int, turn: int) -> str:
    return group.graded[trace].trace.turns[turn].agent


def _case(group: Group, trace: int, turn: int) -> Hashable:
    return beginning(group.graded[trace].trace, turn), _speaker(group, trace, turn)
