"""Small topologies for the tests of plays and the driver; `kind` says which."""

from __future__ import annotations

from apps import records
from apps.effects import Answer, Ask, Call, Play, Score

DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise", "verifier": "report"}
ROLES = tuple(DUTIES)
NAME = "tests.inference.games"
USES = (("tools", "calculator"), ("reward", "exact_number"), ("topologies", "solve_critique_revise"))


class Options(records.Options):
    kind: str = "silent"


def play(task, options):
    return KINDS[options.kind](task)


def silent(task):
    """Nobody is asked."""
    return Answer("nothing")
    yield


def tooled(task):
    """A tool stands before, between and after the turns."""
    yield Call("calculator", {"expression": "1 + 1"})
    draft = yield Ask("solver", {"question": task.question})
    seen = yield Score("exact_number", draft)
    review = yield Ask("critic", {"question": task.question, "draft": draft}, bypass="VERDICT: CORRECT")
    worked = yield Call("calculator", {"expression": "2 * 3"})
    return Answer(f"{draft} {seen.right} {review} {worked}")


def side_by_side(task):
    """Two solvers at once, a nested team beside them, then one more."""
    first, second, team = yield [
        Ask("solver", {"question": task.question}),
        Ask("solver", {"question": task.question}),
        Play("solve_critique_revise", task, {"rounds": 2}),
    ]
    last = yield Ask("solver", {"question": task.question})
    return Answer(" | ".join([first, second, team, last]))


def repeating(task):
    """The same agent is asked the same thing three times."""
    said = []
    for _ in range(3):
        said.append((yield Ask("solver", {"question": task.question})))
    return Answer(" ".join(said))


def needs_critic(task):
    """A critic that cannot be left out."""
    review = yield Ask("critic", {"question": task.question, "draft": "ANSWER: 1"})
    return Answer(review)


def undeclared(task):
    """A tool that is not among USES."""
    draft = yield Ask("solver", {"question": task.question})
    yield Call("tests.inference.games", {"expression": draft})
    return Answer(draft)


def rubbish(task):
    yield "solver"
    return Answer("")


def no_answer(task):
    yield Ask("solver", {"question": task.question})


def no_generator(task):
    return Answer("at once")


KINDS = {
    f.__name__: f
    for f in (silent, tooled, side_by_side, repeating, needs_critic, undeclared, rubbish, no_answer, no_generator)
}
