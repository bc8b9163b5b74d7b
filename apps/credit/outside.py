"""Answers questions to models that do not play: judges and reward models. Not a credit method.

Who is asked stands in the method's section: an adapter folder on the team's base model (`adapter`), another base model
(`model`), or both; else the team's base model. An artifact given as input `reward_model` goes before `adapter`. In a task's
options both are digests, since what lies in a folder decides a result and where it lies does not; `places` says where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf
from apps.effects import Ask
from apps.inference.driver import seed_of
from apps.inference.engine import Engine, Request
from apps.records import Consult, Finding, MeritError, Policy, Rate, Rated, Said, Sampling, Task
from apps.training import policy

JUDGE = "judge"  # the role that a scripted judge has


def speaker(section: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> Policy:
    """Who is asked."""
    given = section.get("adapter")
    folder = inputs["reward_model"][0] if "reward_model" in inputs else given and _place(given, options)
    if not folder:
        return Policy(JUDGE)
    file = Path(folder) / policy.ADAPTER
    if not file.is_file():
        raise MeritError(f"credit.adapter={folder}: no adapter in PEFT format (there is no {file})")
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
    asked: Sequence[tuple[Task, Consult | Rate]], engine: Engine, who: Policy, section: Mapping[str, Any], seed: str
) -> list[Finding]:
    """What they say, in order: all judgements are one call of the engine, and all ratings are one."""
    tuned = leaf.options("credit", dict(section))
    sampling = Sampling(**{k: getattr(tuned, k) for k in ("temperature", "max_new_tokens") if hasattr(tuned, k)})
    consults = [(i, task, q) for i, (task, q) in enumerate(asked) if isinstance(q, Consult)]
    rates = [(i, q) for i, (_, q) in enumerate(asked) if isinstance(q, Rate)]
    said = judgements([(task, q) for _, task, q in consults], engine, who, sampling, seed)
    rated = ratings([q for _, q in rates], engine, who)
    found = {i: reply for (i, _, _), reply in zip(consults, said, strict=True)}
    found |= {i: reply for (i, _), reply in zip(rates, rated, strict=True)}
    return [found[i] for i in range(len(asked))]


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
