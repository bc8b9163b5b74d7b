"""Plays many topologies together and batches whatever they ask for into one engine call after another.

A replay is the same thing: the topology runs again, some turns are handed back as recorded, absent agents are
substituted, and the rest is sampled. Randomness is keyed by task, sample and path, never drawn from a shared stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from apps import leaf
from apps.effects import Answer, Ask, Call, Score
from apps.inference.engine import Completion, Engine, Request
from apps.inference.play import Want, begin
from apps.records import MeritError, Policy, Sampling, Task, Trace, Turn, state_of

PROTOCOLS = ("bypass", "null", "base", "cached")


@dataclass(frozen=True, slots=True)
class Team:
    """Who plays, how they are prompted, and how they sample."""

    topology: str
    options: Mapping[str, Any]  # of the topology
    prompts: Mapping[str, str]  # role -> template with {fields}
    policies: Mapping[str, Policy]  # role -> who speaks
    sampling: Sampling
    system: str = ""  # a system message for every role; "" = none


@dataclass(frozen=True, slots=True)
class Start:
    """A play to be performed, or performed again."""

    task: Task
    sample: str
    recorded: tuple[Turn, ...] = ()  # handed back by path, whoever spoke them
    pool: tuple[Turn, ...] = ()  # reused where an agent sees the very same prompt again; that of its path first
    absent: Mapping[str, str] = field(default_factory=dict)  # agent, or path of one turn -> protocol of what stands in
    cached: tuple[Turn, ...] = ()  # what "cached" hands back: the first of its path, else the first of its agent
    fresh: str = ""  # path of a turn that is sampled anew, even where a turn of the pool saw the same prompt
    salt: str = ""  # tells apart the random numbers of replays; "" in a first play


def seed_of(*parts: object) -> int:
    """A 64-bit key from the names of things: (run's seed, task, sample, path, …)."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "little")


def perform(starts: Sequence[Start], voice: Voice) -> list[Trace]:
    """Every play to its end, in the order of `starts`."""
    plays = [_Playing(start, voice.team) for start in starts]
    active = plays
    while active := [play for play in active if play.answer is None]:
        voice.advance(active)
    return [play.trace for play in plays]


def grow_tree(tasks: Iterable[Task], branching: Mapping[str, int], voice: Voice) -> list[Trace]:
    """Branches at every turn (MALT, arXiv 2412.01928): each agent speaks `branching[role]` times in the same state.

    The traces are the leaves. A leaf's sample is the branch taken at each turn, "0.2.1", and leaves that share a prefix
    share its Turn objects. Agents asked at the same time branch together, by the first one's number.
    """
    grown = [_Playing(Start(task, ""), voice.team) for task in tasks]
    order = {play.start.task.id: i for i, play in enumerate(grown)}
    leaves: list[_Playing] = []
    while grown:
        for play in grown:
            play.use_tools()
        leaves += [play for play in grown if play.answer is not None]
        grown = [child for play in grown if play.answer is None for child in _branch(play, branching)]
        voice.advance(grown)
    leaves.sort(key=lambda play: (order[play.start.task.id], [int(n) for n in play.start.sample.split(".") if n]))
    return [play.trace for play in leaves]


class _Playing:
    """A play under way: its flat generator, what it wants now, what has been said."""

    def __init__(self, start: Start, team: Team) -> None:
        self.start, self.team = start, team
        self.turns: list[Turn] = []
        self.answer: Answer | None = None
        self.recorded = {turn.path: turn for turn in start.recorded}
        self.pool = {(turn.agent, turn.state): turn for turn in reversed(start.pool)}
        self.pool_by_path = {(turn.path, turn.state): turn for turn in start.pool}
        self._flat = begin(team.topology, start.task, team.options)
        self.wants: list[Want] = []
        self._send(None)

    def go_on(self, results: list[Any]) -> None:
        """Takes the results of all wants; a Turn is remembered, its text goes to the topology."""
        self.turns += [result for result in results if isinstance(result, Turn)]
        self._send([r.text if isinstance(r, Turn) else r for r in results])

    def _send(self, results: list[Any] | None) -> None:
        try:
            self.wants = self._flat.send(results)
        except StopIteration as end:
            self.answer, self.wants = end.value, []

    def use_tools(self) -> None:
        """Goes on to the point where an agent is to speak: what no agent is asked for is done."""
        while self.wants and not any(isinstance(want.effect, Ask) for want in self.wants):
            self.go_on([done(self.start.task, want) for want in self.wants])

    def reusable(self, path: str, role: str, state: str) -> Turn | None:
        """The recorded turn of an agent that sees `state` again: the one of this path, else the first in that state."""
        return self.pool_by_path.get((path, state)) or self.pool.get((role, state))

    def protocol(self, want: Want) -> str:
        """What stands in for who is to speak; "" if they do themselves."""
        absent = self.start.absent
        protocol = absent.get(want.path) or absent.get(want.effect.role, "")
        if protocol and protocol not in PROTOCOLS:
            raise MeritError(leaf.unknown("stand-in protocol", protocol, list(PROTOCOLS)))
        return protocol

    def stand_in(self, want: Want, protocol: str) -> tuple[str, str] | None:
        """(protocol, text) of a stand-in that need not be sampled; None where the base model has to speak.

        A protocol that cannot be honoured here falls back: `cached` without a cached turn to `bypass`, and `bypass`
        without a text to `base`. The turn bears the name of what did stand in.
        """
        if protocol == "null":
            return "null", ""
        if protocol == "cached" and (turn := self._cached_turn(want)):
            return "cached", turn.text
        if protocol in ("bypass", "cached") and want.effect.bypass is not None:
            return "bypass", want.effect.bypass
        return None

    def _cached_turn(self, want: Want) -> Turn | None:
        of_agent = [turn for turn in self.start.cached if turn.agent == want.effect.role]
        return next((turn for turn in of_agent if turn.path == want.path), of_agent[0] if of_agent else None)

    @property
    def trace(self) -> Trace:
        return Trace(self.start.task.id, self.start.sample, tuple(self.turns), self.answer.text, self.answer.converged)


def _branch(play: _Playing, branching: Mapping[str, int]) -> list[_Playing]:
    """The play as it stands, once for each branch of its next turn. A generator cannot be copied: it is run again."""
    first = next(want.effect.role for want in play.wants if isinstance(want.effect, Ask))
    children = []
    for number in range(branching.get(first, 1)):
        sample = f"{play.start.sample}.{number}".lstrip(".")
        child = _Playing(replace(play.start, sample=sample, recorded=tuple(play.turns)), play.team)
        while child.wants and all(w.path in child.recorded or not isinstance(w.effect, Ask) for w in child.wants):
            child.go_on([child.recorded.get(w.path) or done(child.start.task, w) for w in child.wants])
        children.append(child)
    return children


class Voice:
    """Lets a team speak through an engine. What was once said in a state with a seed is never sampled again."""

    def __init__(self, team: Team, engine: Engine, seed: str) -> None:
        self.team, self.engine, self.seed = team, engine, seed
        self.turns = self.tokens = 0  # sampled so far
        self._said: dict[tuple[str, str, int], Turn] = {}  # (policy, state, seed) -> turn

    def advance(self, plays: Sequence[_Playing]) -> None:
        """Gives each play all that it wants now; what must be sampled is one engine call."""
        needed: dict[tuple[str, str, int], Request] = {}
        found = [[self._resolve(play, want, needed) for want in play.wants] for play in plays]
        for (key, request), said in zip(needed.items(), self.engine.generate(list(needed.values())), strict=True):
            self._said[key] = _turn(request, said)
            self.turns, self.tokens = self.turns + 1, self.tokens + len(said.ids)
        for play, results in zip(plays, found, strict=True):
            play.go_on([self._heard(play, want, r) for want, r in zip(play.wants, results, strict=True)])

    def _resolve(self, play: _Playing, want: Want, needed: dict) -> Any:
        """A result that need not be sampled; or the key of one that must, whose request is put into `needed`."""
        ask = want.effect
        if not isinstance(ask, Ask):
            return done(play.start.task, want)
        if want.path in play.recorded:
            return play.recorded[want.path]
        protocol = play.protocol(want)
        if protocol and (stand_in := play.stand_in(want, protocol)):
            return _substitute(ask, want.path, *stand_in, self.team.sampling)
        policy = self._speaker(ask.role, bool(protocol))
        prompt, ids = self._render(policy, fill(self.team.prompts, ask))
        state = state_of(ids)
        if not protocol and want.path != play.start.fresh and (turn := play.reusable(want.path, ask.role, state)):
            return turn
        seed = seed_of(self.seed, play.start.task.id, play.start.sample, want.path, play.start.salt)
        key = (policy.digest, state, seed)
        if key not in self._said:
            needed[key] = Request(policy, prompt, ids, self.team.sampling, seed, play.start.task, ask, want.path)
        return key

    def _speaker(self, role: str, absent: bool) -> Policy:
        """The role's policy; in its absence the model that it was trained from."""
        own = self.team.policies[role]
        return Policy(role, model=own.base, base=own.base) if absent else own

    def _render(self, policy: Policy, text: str) -> tuple[str, np.ndarray]:
        """A prompt as the policy's own model takes it. An engine of one model is not asked whose."""
        return self.engine.render(self.team.system, text, *([policy] if policy.model else []))

    def _heard(self, play: _Playing, want: Want, result: Any) -> Any:
        """The result with the path and stand-in of this play put on its turn."""
        if not isinstance(want.effect, Ask):
            return result
        turn = result if isinstance(result, Turn) else self._said[result]
        stand_in = turn.stand_in
        if not isinstance(result, Turn) and play.protocol(want):
            stand_in = "base"
        return (
            turn
            if (turn.path, turn.stand_in) == (want.path, stand_in)
            else replace(turn, path=want.path, stand_in=stand_in)
        )


def _turn(request: Request, said: Completion) -> Turn:
    return Turn(
        agent=request.ask.role,
        path="",
        prompt=request.prompt,
        text=said.text,
        prompt_ids=request.prompt_ids,
        completion_ids=said.ids,
        logprobs=said.logprobs,
        policy=request.policy.digest,
        sampling=request.sampling,
        seed=request.seed,
        finish=said.finish,
        kept=said.kept,
    )


def _substitute(ask: Ask, path: str, protocol: str, text: str, sampling: Sampling) -> Turn:
    """A turn that nobody spoke."""
    nothing, no_logprobs = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Turn(ask.role, path, "", text, nothing, nothing, no_logprobs, "", sampling, 0, "substitute", protocol)


def fill(prompts: Mapping[str, str], ask: Ask) -> str:
    """The role's prompt with its fields filled in."""
    if ask.role not in prompts:
        raise MeritError(
            f"the role {ask.role!r} has no prompt; add team.prompts.{ask.role} (there are: {', '.join(prompts)})"
        )
    try:
        return prompts[ask.role].format(**ask.fields)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise MeritError(
            f"team.prompts.{ask.role}: {error} cannot be filled in; this topology offers {', '.join(ask.fields)}"
        ) from error


def done(task: Task, want: Want) -> Any:
    """A tool's or a verifier's result in a play on `task`."""
    effect = want.effect
    if isinstance(effect, Call):
        return leaf.find("tools", effect.tool).use(**effect.arguments)
    if isinstance(effect, Score):
        module = leaf.find("reward", effect.verifier)
        return module.verify(task, effect.text, module.Options())
    raise MeritError(f"not an effect that can be done: {effect!r}")
