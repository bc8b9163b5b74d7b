"""The sampling plan `best`: at every turn several candidates from one state, and the play goes on from the best of them.

Each candidate is played to its end, once, so every candidate of a state is a whole trace with an outcome. The best, by what
its play came to (`judge`), is kept; the agent after it then speaks its candidates in the state that the best one left. Of a
team of T turns with K candidates each that is T·K plays, where a tree has K^T. Source: the sampling of AT-GRPO (arXiv
2510.11062), whose environments reward each turn at once; here a turn's worth is known only by playing on.

The continuation that was played already is no candidate: it was chosen for how it ended, so a group with it would be
biased. Where an agent has one branch it is kept as it is. A trace's sample names its candidates: "2.0" went on from
candidate 2 of the first turn and is candidate 0 of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apps.inference.driver import Start, Voice, perform
from apps.records import Task, Trace

Judge = Callable[[Task, Trace, int], tuple[float, ...]]  # how good a candidate is, the turn at a place of a trace


@dataclass(slots=True)
class _Line:
    """A task's play so far: the best trace, of which `kept` turns stand, and all that was played."""

    task: Task
    best: Trace
    traces: list[Trace]
    kept: int = 0

    @property
    def over(self) -> bool:
        return self.kept >= len(self.best.turns)

    def starts(self, branching: Mapping[str, int]) -> list[Start]:
        """Candidates for the next turn that have still to be played. The first turn has one already, number 0."""
        branches, first = branching.get(self.best.turns[self.kept].agent, 1), self.kept == 0
        stem, before = ("", ()) if first else (f"{self.best.sample}.", self.best.turns[: self.kept])
        numbers = range(1 if first else 0, branches) if branches > 1 else ()
        return [Start(self.task, f"{stem}{number}", recorded=before) for number in numbers]

    def choose(self, new: Sequence[Trace], judge: Judge) -> None:
        """Goes on from the best candidate, the first of equals; from what stands where there are none."""
        candidates = [*(self.traces if self.kept == 0 else ()), *new] or [self.best]
        self.best = max(candidates, key=lambda trace: judge(self.task, trace, self.kept))
        self.traces += new
        self.kept += 1


def grow_best(tasks: Sequence[Task], branching: Mapping[str, int], voice: Voice, judge: Judge) -> list[Trace]:
    """All traces that were played, task by task. `branching[role]` candidates at each turn of a role, by default 1."""
    first = perform([Start(task, "0") for task in tasks], voice)
    lines = [_Line(task, trace, [trace]) for task, trace in zip(tasks, first, strict=True)]
    while going := [line for line in lines if not line.over]:
        starts = [line.starts(branching) for line in going]
        played = iter(perform([start for several in starts for start in several], voice))
        for line, several in zip(going, starts, strict=True):
            line.choose([next(played) for _ in several], judge)
    return [trace for line in lines for trace in line.traces]
