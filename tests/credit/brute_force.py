"""Values of cooperative games straight from their definitions. Imports nothing of the project, and no formula of its.

A game is a function of a frozenset of players. Everything is an average over orders or over subsets, written out.
"""

from __future__ import annotations

from itertools import chain, combinations, permutations


def subsets(players):
    return map(frozenset, chain.from_iterable(combinations(players, k) for k in range(len(players) + 1)))


def shapley(game, players):
    return _over_orders(game, players, list(permutations(players)))


def of_table(values, n):
    """Shapley values of a game given as a table: bit i of a place is player i."""
    phi = shapley(lambda players: values[sum(1 << i for i in players)], range(n))
    return [phi[i] for i in range(n)]


def owen(game, players, union_of):
    """Orders in which each union arrives as one block."""
    return _over_orders(game, players, [o for o in permutations(players) if _in_blocks([union_of[p] for p in o])])


def precedence(game, players, required):
    """Orders in which `required` come first; they arrive at once, in a team that was worth 0, and share alike."""
    rest = [p for p in players if p not in required]
    base = frozenset(required)
    found = _over_orders(lambda s: game(s | base), rest, list(permutations(rest)))
    return found | {p: game(base) / len(required) for p in required}


def banzhaf(game, players):
    found = {}
    for p in players:
        others = list(subsets([q for q in players if q != p]))
        found[p] = sum(game(s | {p}) - game(s) for s in others) / len(others)
    return found


def leave_one_out(game, players):
    whole = frozenset(players)
    return {p: game(whole) - game(whole - {p}) for p in players}


def interaction(game, players, i, j):
    """Grabisch & Roubens' recursion: the pair as one player, less each of the two where the other is not there."""
    others = [p for p in players if p not in (i, j)]
    merged = shapley(lambda s: game((s - {"pair"}) | ({i, j} if "pair" in s else set())), [*others, "pair"])["pair"]
    return merged - shapley(game, [*others, i])[i] - shapley(game, [*others, j])[j]


def _over_orders(game, players, orders):
    total = dict.fromkeys(players, 0.0)
    for order in orders:
        for k, player in enumerate(order):
            total[player] += game(frozenset(order[: k + 1])) - game(frozenset(order[:k]))
    return {p: value / len(orders) for p, value in total.items()}


def _in_blocks(names):
    return all(name not in names[:k] or names[k - 1] == name for k, name in enumerate(names))
