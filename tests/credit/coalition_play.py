"""Plays a method of coalitions on a game that a test makes up, and tells what it asked."""

from __future__ import annotations

from apps import leaf
from apps.records import Outcome
from tests.credit.plays import graded, group

NAMES = ("solver", "critic", "reviser", "verifier", "judge", "planner", "reader", "writer")


def run(method, the_group, answer, **options):
    """(credit of each trace, replays by wave); `answer` gives a score or a whole Outcome for a replay."""
    module = leaf.find("credit", method)
    running, waves, sent = module.assign(the_group, module.Options(**options)), [], None
    try:
        while True:
            waves.append(list(running.send(sent)))
            sent = [a if isinstance(a := answer(r), Outcome) else Outcome(float(a), "", 1, 1) for r in waves[-1]]
    except StopIteration as end:
        return end.value, waves


def of_game(method, game, players, **options):
    """The values, by player, that a method finds in a game given as a function of who is there."""
    member = graded(players, game(frozenset(players)))
    options = {"repeats": 1, **options}
    (credit,), _ = run(method, group(member, roles=tuple(players)), lambda r: game(present(r, players)), **options)
    return credit


def present(replay, players):
    return frozenset(players) - {name for name, _ in replay.absent}


def pairwise(alone, together):
    """v(S) = Σ alone + Σ together over pairs: φ and β of i are alone[i] + ½ Σ_j together[i, j]."""

    def game(members):
        pairs = sum(worth for pair, worth in together.items() if set(pair) <= members)
        return sum(alone[p] for p in members) + pairs

    share = {p: a + sum(worth for pair, worth in together.items() if p in pair) / 2 for p, a in alone.items()}
    return game, share
