"""A trace as a conversation that people can read, and why each agent has the value that it has. Pure; text for a terminal.

A value's sign says reward (+) or blame (−); what follows ± is its standard error, left out where none was estimated.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from apps import answer
from apps.credit.results import Findings
from apps.records import Credit, Graded, Replay, Task, Turn, Verdict

SHORT = 200  # characters of a prompt that are shown unless all are asked for
STAND_INS = {
    "bypass": "bypassed",
    "null": "made to say nothing",
    "base": "replaced by the base model",
    "cached": "replaced by what it said in another play",
}
BYPASSED = "Bypassed: the topology says what stands for its words; where it names nothing, as for a solver, the base model speaks."
BOLD, FAINT, GOOD, BAD = "1", "2", "36", "33"  # cyan and yellow: told apart by the colour-blind too

Game = dict[frozenset[tuple[str, str]], list[float]]  # who was absent, by which protocol -> scores of the replays


def conversation(
    graded: Graded, credit: Credit | None = None, color: bool = False, task: Task | None = None, full: bool = False
) -> str:
    """The trace turn by turn, the verdict and the credit under each; `full` shows whole prompts."""
    trace = graded.trace
    lines = [_paint(f"Task {trace.task}, sample {trace.sample}", BOLD, color)]
    if task:
        lines += [*_block(task.question, "  "), f"  gold answer: {task.answer}"]
    for i, turn in enumerate(trace.turns):
        lines += ["", _paint(_speaker(turn), BOLD, color)]
        lines += [_paint(line, FAINT, color) for line in _block(shortened(turn.prompt, full), "  | ") if turn.prompt]
        lines += [*_block(turn.text, "  "), _judged(graded, credit, i, color)]
    end = "by agreement" if trace.converged else "without agreement"
    verdict = graded.verdict
    lines += ["", _paint("The team", BOLD, color) + f", {end}: {shortened(trace.answer, full)}"]
    lines += ["  " + _paint(outcome(verdict), GOOD if verdict.right else BAD, color) + f" ({verdict.reason})"]
    return "\n".join(lines)


def mark(graded: Graded, index: int) -> tuple[str, bool | None]:
    """What is to be said of a turn's own answer, and whether it speaks for the turn (None = neither)."""
    own, said = graded.turn_verdicts[index], answer.verdict(graded.trace.turns[index].text)
    if own is not None:
        return outcome(own), own.right
    before = graded.before(index)
    if said is None or before is None:
        return "", None
    fair = said == before.right
    return f"{'accepts' if said else 'rejects'} a {'right' if before.right else 'wrong'} answer", fair


def outcome(verdict: Verdict) -> str:
    """ "right: 19", "wrong: 20", "wrong: no answer could be read"."""
    return f"{'right' if verdict.right else 'wrong'}: {verdict.parsed or 'no answer could be read'}"


def signed(value: float, error: float = 0.0) -> str:
    """ "+0.31 ± 0.12", with a real minus sign; no error where none was estimated."""
    number = f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"
    return f"{number} ± {error:.2f}" if error else number


def shortened(text: str, full: bool = False) -> str:
    """The beginning and the end of a long text."""
    return text if full or len(text) <= SHORT else f"{text[: SHORT // 2]} … {text[-SHORT // 2 :]}"


def explain(
    graded: Graded, credit: Credit, findings: Findings | None = None, trace: int = 0, full: bool = False
) -> str:
    """Why each agent has its value: from the recorded replays of this trace, or else from the method's own notes.

    `findings` are those about the whole task, `trace` is the place of this trace among the task's traces. `full`
    also compares each agent's absence with every other coalition.
    """
    game, others = played(findings or {}, trace)
    said = f"{graded.trace.id}: the team's answer was {outcome(graded.verdict)}."
    lines = [said]
    for agent, value, error in _values(graded, credit):
        lines += ["", f"{agent} {signed(value, error)}" + _because(agent, graded, game)]
        lines += [f"  {line}" for line in _pairs(agent, game, full)]
    lines += _total(graded, credit, game) + others
    if any(protocol == "bypass" for absent in game for _, protocol in absent):
        lines += ["", BYPASSED]
    if not game and credit.notes:
        lines += ["", "What the credit method noted:", *(f"  {note}" for note in credit.notes)]
    return "\n".join(lines)


def played(findings: Findings, trace: int) -> tuple[Game, list[str]]:
    """The coalitions played from this trace, and sentences on its other replays (prefixes kept, turns played anew)."""
    game: Game = {}
    prefixes: dict[tuple[int, str], list[float]] = {}
    for asked, came in findings.items():
        if isinstance(asked, Replay) and asked.trace == trace:
            plain = not asked.keep and not asked.fresh
            place = game.setdefault(frozenset(asked.absent), []) if plain else None
            (prefixes.setdefault((asked.keep, asked.fresh), []) if place is None else place).append(came.score)
    said = [
        f"From turn {keep + 1} on played again: {_right(scores)}." for (keep, _), scores in sorted(prefixes.items())
    ]
    return game, (["", *said] if said else [])


def _speaker(turn: Turn) -> str:
    if turn.stand_in:
        return f"{turn.path} ({STAND_INS.get(turn.stand_in, turn.stand_in)})"
    drawn = f"temperature {turn.sampling.temperature:g}" if turn.sampling.temperature else "greedy"
    cut = ", cut off at its token limit" if turn.finish == "length" else ""
    policy = "base model" if turn.policy == "base" else f"adapter {turn.policy[:12]}"
    return f"{turn.path} ({policy}, {drawn}{cut})"


def _judged(graded: Graded, credit: Credit | None, index: int, color: bool) -> str:
    text, fair = mark(graded, index)
    parts = [_paint(text, GOOD if fair else BAD, color)] if text else []
    if credit is not None:
        value = credit.values[index]
        shown = f"credit {signed(value, credit.errors[index])}"
        parts.append(_paint(shown, GOOD if value > 0 else BAD, color) if value else shown)
    return "  → " + ("; ".join(parts) or "no verdict of its own")


def _values(graded: Graded, credit: Credit) -> Iterator[tuple[str, float, float]]:
    """Each agent with its value; a method that gives turns alone: each turn by its path."""
    if credit.agents:
        yield from ((f"the {a}", value, credit.agent_errors.get(a, 0.0)) for a, value in credit.agents.items())
    else:
        yield from ((t.path, v, e) for t, v, e in zip(graded.trace.turns, credit.values, credit.errors, strict=True))


def _because(agent: str, graded: Graded, game: Game) -> str:
    """The sentence on the agent's absence alone."""
    if agent.startswith("the ") and agent.removeprefix("the ") not in graded.trace.agents:
        return ": it did not speak in this play"
    for absent, scores in game.items():
        if len(absent) == 1 and (one := next(iter(absent)))[0] == agent.removeprefix("the "):
            full = game.get(frozenset())
            present = _right(full) if full else f"this play was {'right' if graded.verdict.right else 'wrong'}"
            return (
                f": with it {STAND_INS.get(one[1], one[1])} the team was {_right(scores)}, with it in place {present}"
            )
    return ""


def _pairs(agent: str, game: Game, full: bool) -> Iterator[str]:
    """The other coalitions with and without the agent: only that where nobody else was there, unless `full`."""
    name = agent.removeprefix("the ")
    most = max(map(len, game), default=0)
    for absent in sorted(game, key=lambda a: (len(a), sorted(a))):
        mine = [one for one in absent if one[0] == name]
        rest = absent - set(mine)
        if mine and rest and rest in game and (full or len(absent) == most):
            who = "everyone else" if len(absent) == most else f"the {_listed([a for a, _ in sorted(rest)])}"
            yield f"with {who} absent: {_right(game[rest])} with it, {_right(game[absent])} without it"


def _total(graded: Graded, credit: Credit, game: Game) -> list[str]:
    nobody = max(game, key=len, default=frozenset())
    if not credit.agents or len(nobody) < 2:
        return []
    total, base = sum(credit.agents.values()), sum(game[nobody]) / len(game[nobody])
    score = f"{graded.verdict.score:g}"
    return [
        "",
        f"The values add up to {signed(total)}: this play's score, {score}, less {base:.2f}, the mean with everyone absent.",
    ]


def _right(scores: Sequence[float]) -> str:
    return f"right in {sum(s >= 0.5 for s in scores)} of {len(scores)} {'replays' if len(scores) != 1 else 'replay'}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _block(text: str, indent: str) -> list[str]:
    lines = [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, 100 - len(indent)) or [""]]
    return [indent + line for line in lines]


def _paint(text: str, code: str, color: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if color else text
