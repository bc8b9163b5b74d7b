"""Shapley shares of a success and the first error of a failure, refined to messages that conserve the reward.

After arXiv 2511.10687, which goes from the system's evaluation to the agents' credit to signals for each message that
are local, signed, bounded and credit-conserving. The paper describes and publishes no experiment; what is not in its
abstract is ours to define:

- *Conserving*: the values of a trace sum to its outcome − the mean outcome of its group, on success and failure alike;
  `residual` is what they miss (all of it in a trace without turns).
- *Bounded*: |value| ≤ 1; scores must lie in 0..1.
- *Signed*: below 0 what did harm, above 0 what helped.
- *Local*: before the sum is settled, a message's value depends on the trace up to it and on replays from it alone.

**Failure.** v_t = V(t + 1) − V(t), V(k) the worth of the first k turns (prefixes.py), but V(0) the group's mean and V(T)
the outcome: the harmful message gets the drop, an attempt at repair its rise, and the sum is exact. The located
culprit is worth at most −loss, and no other message less than it; so it is named where its own drop hides its fault
(an agent that always errs) or where V(0) does. Where no loss is sure it is the message that the trace walk blames, for `least`.

**Success.** φ of each agent, by replaying coalitions of the trace (shapley.py), split over its messages by the rises
of V that are sure, equally where there are none. A φ that is not told from 0 counts as 0: a redundant message gets
nothing. One that is surely negative (sabotage, or an error that others mended) stays negative but is worth only
`mended` of it, for the team was right. What is positive is scaled to the sum; where nothing is, all messages share it.

`mended` bounds the blame on a success by construction, which is no sign of skill: with mended = 1 the share of an
agent whose error others mended is often far below 0.

What the sum still lacks is made good by the smallest change of the values within their bounds (conserve.py), for which
all messages share alike: it tells a trace from its group, not its messages apart.

Errors are those of the drops, and of φ times the same scale; what settles the sum is taken as certain. `alternatives`
resamples each culprit in its place, so that the record holds preference pairs: the same state, something better said.
Left out: alternatives for an error that was mended, and the base model's words as alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from apps.credit import budget, coalitions, conserve, first_error, groups, prefixes, shapley
from apps.credit.coalitions import Asking, Game
from apps.credit.prefixes import Loss, Scores
from apps.credit.turns import ROUNDING
from apps.records import Credit, Graded, Group, MeritError, Replay

ALONE = "the only play of its task, so there is no mean to compare it with: its values sum to 0 (see rollout.samples)"


class Options(coalitions.Replayed):
    """What is told from noise, what a mended error costs, and what may be asked."""

    repeats: int = Field(8, ge=2, description="replays of each coalition and from each beginning of a trace")
    least: float = Field(0.25, gt=0, le=1, description="the least change of the team's score that is told from noise")
    mended: float = Field(0.1, ge=0, le=1, description="share of the blame for harm that others mended")
    alternatives: int = Field(4, ge=0, description="what else each culprit might have said, for preference pairs")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Asking:
    """Values that sum to the outcome less the group's mean, for every trace."""
    scores, agents = checked(groups.scores(group)), groups.agents(group)
    coalitions.check(group, options, agents)
    mean = float(np.mean(scores))
    if not budget.chosen(group.task.id, options.share):
        outside = budget.centred(group, scores, agents)
        return [
            settled(g, mean, np.zeros(len(g.trace.turns)), [], agents, c.notes)
            for g, c in zip(group.graded, outside, strict=True)
        ]
    measured = yield from prefixes.measure(
        group, options.repeats, [i for i, g in enumerate(group.graded) if refines(g)]
    )
    blamed = yield from prefixes.blame(group, measured, options.repeats, options.least)
    shares = yield from shapley_shares(group, agents, options)
    tried = yield from alternatives(group, blamed, options)
    found = [
        success(graded, mean, shares[i], measured.get(i), agents, options)
        if i in shares
        else failure(graded, mean, measured[i], blamed[i], agents, options, tried.get(i, ()))
        for i, graded in enumerate(group.graded)
    ]
    return found if len(found) > 1 else [replace(credit, notes=(*credit.notes, ALONE)) for credit in found]


def failure(
    graded: Graded,
    mean: float,
    scores: Scores,
    lost: Loss | None,
    agents: Sequence[str],
    options: Options,
    tried: tuple[str, ...] = (),
) -> Credit:
    """The credit of a trace that ended wrong."""
    sizes, errors = prefixes.drops(scores)
    rises = [
        f"{t.path} tried to repair it: V rose by {-drop:.2f}"
        for t, drop, e in zip(graded.trace.turns, sizes, errors, strict=True)
        if prefixes.is_sure(-drop, e, options.least)
    ]
    turn, size, error, note = culprit(graded, lost, options.least)
    if turn is not None:
        errors[turn] = max(errors[turn], error)
    if len(errors):
        errors[0] = prefixes.mean_and_error(scores[1])[1] if turn != 0 else errors[0]
    raw = telescoped(scores.mean(axis=1), mean, turn, size)
    return settled(graded, mean, raw, errors, agents, (note, *rises, *tried))


def telescoped(worth: np.ndarray, mean: float, culprit: int | None, size: float) -> np.ndarray:
    """V(t + 1) − V(t) (T,) from V (T + 1,), V(0) being the mean; the culprit at most −size, and nobody below it."""
    raw = np.diff(np.concatenate([[mean], worth[1:]]))
    if culprit is not None:
        raw[culprit] = min(raw[culprit], -size)
        raw = np.maximum(raw, raw[culprit])
    return raw


def culprit(graded: Graded, lost: Loss | None, least: float) -> tuple[int | None, float, float, str]:
    """Which turn made a failure, by how much, how sure, and a sentence on it: by replay, else by the walk."""
    if lost is not None:
        said = f"{graded.trace.turns[lost.turn].path} {first_error.event(graded, lost.turn)}: the team lost {lost}"
        return lost.turn, lost.size, lost.error, said
    events = first_error.walk(prefixes.answered(graded))
    wrong = [turn for turn, event in enumerate(events) if event in ("introduced", "lost")]
    if not wrong:
        return None, 0.0, 0.0, "no replay and no verdict tells who made the answer wrong"
    return (
        wrong[-1],
        least,
        0.0,
        f"{graded.trace.turns[wrong[-1]].path} {first_error.event(graded, wrong[-1])}, by the walk",
    )


def success(
    graded: Graded,
    mean: float,
    share: Credit,
    scores: Scores | None,
    agents: Sequence[str],
    options: Options,
) -> Credit:
    """The credit of a trace that ended right."""
    turns = [turn.agent for turn in graded.trace.turns]
    weights = split(turns, share.agents, scores, options.least)
    phi = np.array([share.agents[agent] for agent in turns]) * weights
    errors = np.array([share.agent_errors[agent] for agent in turns]) * weights
    clear = {a: prefixes.is_sure(abs(v), share.agent_errors[a], 0.0) for a, v in share.agents.items()}
    kept = np.where([clear[agent] for agent in turns], phi, 0.0)
    raw, scale = scaled(kept, graded.verdict.score - mean, options.mended)
    return settled(graded, mean, raw, errors * scale, agents, share.notes)


def split(turns: Sequence[str], phi: Mapping[str, float], scores: Scores | None, least: float) -> np.ndarray:
    """Which part of its agent's φ each message gets (T,): by sure rises of V, sure drops if φ < 0, else equally."""
    moved = np.zeros(len(turns))
    if scores is not None:
        sizes, errors = prefixes.drops(scores)
        towards = np.array([-np.sign(phi[agent]) for agent in turns]) * sizes
        moved = np.where([prefixes.is_sure(s, e, least) for s, e in zip(towards, errors, strict=True)], towards, 0.0)
    own = np.array([[one == other for other in turns] for one in turns], dtype=np.float64).reshape(
        len(turns), len(turns)
    )
    total, count = own @ moved, own.sum(axis=1)
    return np.where(total > 0, moved / np.where(total > 0, total, 1.0), 1.0 / np.maximum(count, 1.0))


def scaled(phi: np.ndarray, target: float, mended: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares (T,) of a success whose sum is `target` where that leaves signs alone, and what each was multiplied by."""
    phi = np.where(np.abs(phi) > ROUNDING, phi, 0.0)  # what is but dust would be scaled up to anything
    harm = mended * np.minimum(phi, 0.0)
    help_ = np.maximum(phi, 0.0)
    left = max(target - harm.sum(), 0.0)
    if not help_.any():
        free = phi == 0
        return harm + np.where(free, left / max(free.sum(), 1), 0.0), np.full(len(phi), mended)
    scale = left / help_.sum()
    return harm + scale * help_, np.where(phi < 0, mended, scale)


def settled(
    graded: Graded,
    mean: float,
    raw: np.ndarray,
    errors: Sequence[float],
    agents: Sequence[str],
    notes: tuple[str, ...],
) -> Credit:
    """Credit with the sum that it promises."""
    target = graded.verdict.score - mean
    values = conserve.project(raw, target) if len(raw) else raw
    residual = float(values.sum()) - target
    return groups.summed(graded, agents, values, errors if len(errors) else [0.0] * len(values), notes, residual)


def shapley_shares(group: Group, agents: tuple[str, ...], options: Options) -> Asking:
    """The Shapley values of each trace that ended right, by place in the group."""
    told = shapley.Options(**{name: getattr(options, name) for name in coalitions.Replayed.model_fields})
    right = [i for i, graded in enumerate(group.graded) if graded.verdict.right]
    players = [agents if options.players == "all" else group.graded[i].trace.agents for i in right]
    running = [shapley.value(Game(group, i, names, told)) for i, names in zip(right, players, strict=True)]
    return dict(zip(right, (yield from coalitions.together(running)), strict=True))


def alternatives(group: Group, blamed: Mapping[int, Loss | None], options: Options) -> Asking:
    """What each culprit says when it is asked again in the same state: notes on it, by trace."""
    places = {i: loss.turn for i, loss in blamed.items() if loss is not None and options.alternatives}
    cases = {i: Replay(i, keep=turn, fresh="next") for i, turn in places.items()}
    found = yield from prefixes.ask(group, cases, range(options.alternatives))
    return {
        i: (f"asked again, {group.graded[i].trace.turns[places[i]].path} came out {coalitions.right_in(scores)}",)
        for i, scores in found.items()
    }


def refines(graded: Graded) -> bool:
    """Whether the worth of its beginnings is wanted: of a failure, and where an agent has several messages."""
    return not graded.verdict.right or len(graded.trace.turns) > len(graded.trace.agents)


def checked(scores: list[float]) -> list[float]:
    if bad := [score for score in scores if not 0 <= score <= 1]:
        raise MeritError(
            f"credit.reward_and_blame: a trace has the score {bad[0]:g}; its values are bounded by ±1, so scores must "
            "lie in 0..1: take a verifier that keeps to that, or another credit method (shapley)"
        )
    return scores
