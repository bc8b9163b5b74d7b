"""Answers questions to models that do not play: judges and reward models.

Who is asked stands in the section of a credit method or a verifier: an adapter folder on the team's base model (`adapter`),
another base model (`model`), or both; else the team's base model. A folder without an adapter of its own that holds folders
with one is an ensemble; so are several artifacts of this run. In a task's options both are digests, since what lies in a
folder decides a result and where it lies does not; `places` says where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.effects import Ask
from apps.inference.driver import seed_of
from apps.inference.engine import Engine, Request
from apps.records import (
    Consult,
    Finding,
    MeritError,
    Options,
    Policy,
    Rate,
    Rated,
    Reward,
    Rewarded,
    Said,
    Sampling,
    Task,
)
from apps.training import policy

JUDGE = "judge"  # the role that a scripted judge has


def speakers(section: Mapping[str, Any], trained: Sequence[Path], options: Mapping[str, Any]) -> list[Policy]:
    """Who is asked: one, or the members of an ensemble; `trained` are artifacts of this run, which go before `adapter`."""
    folders = list(trained) or members(section.get("adapter"), options)
    return [_policy(Path(folder)) for folder in folders] or [Policy(JUDGE)]


def members(given: str | None, options: Mapping[str, Any]) -> list[Path]:
    """The folder of an adapter, or those of an ensemble's adapters, by name."""
    if not given:
        return []
    folder = Path(_place(given, options))
    if (folder / policy.ADAPTER).is_file():
        return [folder]
    return sorted(file.parent for file in folder.glob(f"*/{policy.ADAPTER}")) or [folder]


def _policy(folder: Path) -> Policy:
    file = folder / policy.ADAPTER
    if not file.is_file():
        raise MeritError(f"adapter={folder}: no adapter in PEFT format (there is no {file})")
    return Policy(JUDGE, policy.digest_of(file), str(folder))


def home(section: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the engine that they speak through: the team's, or that of a base model of their own."""
    if not section.get("model"):
        return options
    engine = options["engine"] if options["engine"]["name"] != "scripted" else {"name": "transformers"}
    return {**options, "engine": engine, "model": _place(section["model"], options)}


def _place(given: str, options: Mapping[str, Any]) -> str:
    return options.get("places", {}).get(given, given)


def answers(
    asked: Sequence[tuple[Task, Consult | Rate | Reward]],
    engine: Engine,
    who: Sequence[Policy],
    tuned: Options,
    seed: str,
) -> list[Finding]:
    """What they say, in order: all judgements are one call of the engine, all ratings are one, all rewards one a member.

    `tuned`, the options of who asks, may say how a reply is sampled.
    """
    sampling = Sampling(**{k: getattr(tuned, k) for k in ("temperature", "max_new_tokens") if hasattr(tuned, k)})
    consults = [(task, q) for task, q in asked if isinstance(q, Consult)]
    replies = {
        Consult: iter(judgements(consults, engine, one(who, consults), sampling, seed)),
        Rate: iter(ratings(rates := _of(Rate, asked), engine, one(who, rates))),
        Reward: iter(rewards(_of(Reward, asked), engine, who)),
    }
    return [next(replies[type(question)]) for _, question in asked]


def _of(kind: type, asked: Sequence[tuple[Task, Any]]) -> list[Any]:
    return [question for _, question in asked if isinstance(question, kind)]


def one(who: Sequence[Policy], asked: Sequence[Any]) -> Policy:
    """Who is asked for words: an ensemble is read by its scalar heads alone."""
    if asked and len(who) > 1:
        raise MeritError(
            f"an ensemble of {len(who)} reward models is read by scalar heads; give the adapter of one model that speaks"
        )
    return who[0]


def judgements(
    asked: Sequence[tuple[Task, Consult]], engine: Engine, who: Policy, sampling: Sampling, seed: str
) -> list[Said]:
    """A judge's replies; their randomness is keyed by the task, the prompt and which draw it is."""
    requests = []
    for task, question in asked:
        prompt, ids = engine.render("", question.prompt)
        key = seed_of(seed, JUDGE, task.id, question.prompt, question.repeat)
        requests.append(Request(who, prompt, ids, sampling, key, task, Ask(JUDGE, dict(question.fields))))
    return [Said(reply.text, len(reply.ids)) for reply in (engine.generate(requests) if requests else [])]


def ratings(asked: Sequence[Rate], engine: Engine, who: Policy) -> list[Rated]:
    """The log-probability of each text after its prompt, as a whole completion."""
    pairs = [(engine.render("", q.prompt)[1], engine.completion(text)) for q in asked for text in q.texts]
    scores = iter(zip(pairs, engine.score(who, pairs) if pairs else [], strict=True))
    rated = []
    for question in asked:
        mine = [next(scores) for _ in question.texts]
        read = sum(len(prompt) + len(completion) for (prompt, completion), _ in mine)
        rated.append(Rated(tuple(float(logprobs.sum()) for _, logprobs in mine), read))
    return rated


def rewards(asked: Sequence[Reward], engine: Engine, who: Sequence[Policy]) -> list[Rewarded]:
    """What each member's scalar head says after each piece of each text."""
    if not asked:
        return []
    prompts = [engine.encode(q.prompt) if q.rendered else engine.render("", q.prompt)[1] for q in asked]
    read = [engine.joined(q.pieces) for q in asked]
    sequences = [(prompt, ids) for prompt, (ids, _) in zip(prompts, read, strict=True)]
    said = [engine.reward(member, sequences) for member in who]
    return [
        Rewarded(
            tuple(tuple(float(v) for v in _at(member[i], read[i][1])) for member in said),
            len(who) * sum(map(len, sequences[i])),
        )
        for i in range(len(asked))
    ]


def _at(scores_C: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The scores after the last tokens of pieces; an empty first piece has none, and is refused."""
    if (ends < 0).any():
        raise MeritError("a reward model is asked about a text whose first step is empty; it has nothing to read there")
    return scores_C[ends]
