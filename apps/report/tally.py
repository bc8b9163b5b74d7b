"""How far a run is: counts of its tasks, and from them rates and the time that is left. No clock and no screen here.

Every time is given by the caller, in seconds of any one clock. Work is measured in seconds that tasks took; how much of it
is done in a second of the run (several workers, idle ones) is measured too, never assumed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

DONE = ("found", "joined", "made")
TOLD = {"grade": "reward", "measure": "accuracy"}  # stages whose last figure is shown, also where it was found
SEEN = 8  # artifacts that the token rate looks back on


class Tally:
    """What has been expected and what has happened."""

    def __init__(self, total: Mapping[str, int] | None = None) -> None:
        self.planned = dict(total or {})  # stage -> tasks of the whole run, where it is known beforehand
        self.places: dict[str, tuple[str, int]] = {}  # key -> (stage, round)
        self.done: dict[str, str] = {}  # key -> how it came to be
        self.failed: set[str] = set()
        self.begun: dict[str, float] = {}
        self.work: dict[str, list[float]] = {}  # stage -> seconds of each task made
        self.round = 0
        self.started: float | None = None  # when the first task began
        self.reward: float | None = None  # of the last plays graded
        self.accuracy: float | None = None  # last measured
        self._expected: Counter[tuple[str, int]] = Counter()  # by stage and round: events come by the thousand a second
        self._ended: Counter[tuple[str, int]] = Counter()
        self._rates: deque[tuple[float, float]] = deque(maxlen=SEEN)  # (tokens, seconds)

    def expect(self, key: str, stage: str, round: int) -> None:
        if key not in self.places:
            self.places[key] = (stage, round)
            self._expected[stage, round] += 1

    def event(self, stage: str, key: str, event: str, facts: Mapping[str, Any] | None, now: float) -> None:
        """Counts an event: found, joined, begun, made or failed."""
        self.expect(key, stage, self.round)
        number = self.places[key][1]
        self.round = max(self.round, number)
        if event == "begun":
            self.begun[key] = now
            self.started = now if self.started is None else self.started
        elif event in DONE:
            self._ended[self.places[key]] += key not in self.done
            self.done.setdefault(key, event)
            self._learn(stage, key, event, facts or {}, now)
        elif event == "failed":
            self.failed.add(key)

    def _learn(self, stage: str, key: str, event: str, facts: Mapping[str, Any], now: float) -> None:
        if event == "made" and key in self.begun:
            took = facts.get("seconds", now - self.begun[key])
            self.work.setdefault(stage, []).append(took)
            if facts.get("tokens") and stage != "train" and took > 0:
                self._rates.append((facts["tokens"], took))
        if stage in TOLD and facts.get(TOLD[stage]) is not None:
            setattr(self, TOLD[stage], facts[TOLD[stage]])

    def counts(self) -> dict[str, tuple[int, int]]:
        """stage → (done, of how many), in the order in which the stages were first named."""
        expected, done = _by_stage(self._expected), _by_stage(self._ended)
        stages = dict.fromkeys([*self.planned, *expected])
        return {stage: (done[stage], max(expected[stage], self.planned.get(stage, 0))) for stage in stages}

    def finished(self, stage: str, number: int) -> tuple[int, int]:
        """(done, expected) of a stage in a round."""
        return self._ended[stage, number], self._expected[stage, number]

    @property
    def tokens_per_second(self) -> float | None:
        """While sampling, over the last artifacts; of one worker."""
        seconds = sum(s for _, s in self._rates)
        return sum(t for t, _ in self._rates) / seconds if seconds else None

    def seconds_left(self, now: float) -> float | None:
        """The remaining work, at the pace of the run so far; None while nothing is known."""
        if not self.work or self.started is None or now <= self.started:
            return None
        means = {stage: sum(took) / len(took) for stage, took in self.work.items()}
        usual = sum(means.values()) / len(means)
        left = sum((total - done) * means.get(stage, usual) for stage, (done, total) in self.counts().items())
        pace = sum(map(sum, self.work.values())) / (now - self.started)
        return left / pace if pace > 0 else None


def _by_stage(counts: Mapping[tuple[str, int], int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (stage, _), count in counts.items():
        found[stage] += count
    return found
