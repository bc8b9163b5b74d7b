"""Conversations from files: JSONL rows with `messages`, or with a prompt and a completion; checked, and divided by content.

Read are `{"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}` and, as a short form, `{"prompt": ...,
"completion": ...}`. With an `"agent"` it is for that agent of a team alone. A conversation occurs once, whatever file it came from; which are held out is decided by a digest of
what was asked, so that two answers to one question are never on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf, records
from apps.records import MeritError

ROLES = ("system", "developer", "user", "assistant", "tool")
Conversation = Mapping[str, Any]


def read(path: Path) -> list[Conversation]:
    """All conversations of a .jsonl file, or of those in a folder, each once."""
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    found: dict[str, Conversation] = {}
    for file in files:
        for line in lines(file):
            found.setdefault(records.digest(line), line)
    if not found:
        raise MeritError(f"data.path={path}: no conversation in it; a .jsonl file, or a folder with some, is expected")
    return list(found.values())


def lines(file: Path) -> Iterator[Conversation]:
    with open(file, encoding="utf-8") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield conversation(line, f"{file.name}, line {number}")


def conversation(line: str, where: str) -> Conversation:
    """One line, checked; `where` it stands is named in a fault."""
    try:
        given = json.loads(line)
    except ValueError as error:
        raise MeritError(f"{where}: no valid JSON: {error}") from error
    if isinstance(given, dict) and "messages" not in given and {"prompt", "completion"} <= set(given):
        given = {**given, "messages": exchange(given["prompt"], given["completion"])}
    messages = given.get("messages") if isinstance(given, dict) else None
    if not isinstance(messages, list) or not messages:
        raise MeritError(
            f"{where}: a list of `messages` (or `prompt` and `completion`) is expected; given {line[:120]!r}"
        )
    for message in messages:
        check(message, where)
    if not any(message["role"] == "assistant" for message in messages):
        raise MeritError(f"{where}: nothing is said by the assistant, so there is nothing to learn")
    return {key: given[key] for key in ("messages", "tools", "agent") if given.get(key)}


def exchange(asked: str, answered: str) -> list[dict[str, str]]:
    """The messages of one question and its answer."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def of_agent(conversations: Sequence[Conversation], agent: str, agents: Sequence[str]) -> list[Conversation]:
    """What one of `agents` learns from: what is for it, or for everyone. MeritError where a conversation is for nobody."""
    for one in conversations:
        if one.get("agent", agent) not in agents:
            raise MeritError(leaf.unknown("conversations: agent", str(one["agent"]), list(agents)))
    return [one for one in conversations if one.get("agent", agent) == agent]


def check(message: Any, where: str) -> None:
    """MeritError where a message is none."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise MeritError(f"{where}: a message wants a `role`, one of {', '.join(ROLES)}; given {str(message)[:120]}")
    said = message.get("content")
    if not isinstance(said, str) and not (said is None and message.get("tool_calls")):
        raise MeritError(f"{where}: a message wants a text in `content`; given {str(message)[:120]}")


def divided(
    conversations: Sequence[Conversation], share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(to learn from, held out). About `share` of them is held out, at least one where there are two questions."""
    order: dict[str, list[Conversation]] = {}
    for one in conversations:
        order.setdefault(records.digest([seed, asked(one)]), []).append(one)
    wanted, held = max(1, round(share * len(conversations))) if share else 0, 0
    cut = 0
    for key in sorted(order)[:-1]:  # one question at least is learnt from
        if held >= wanted:
            break
        held, cut = held + len(order[key]), cut + 1
    parts = [order[key] for key in sorted(order)]
    return [c for part in parts[cut:] for c in part], [c for part in parts[:cut] for c in part]


def asked(one: Conversation) -> list[Any]:
    """What was said before the assistant first spoke."""
    roles = [message["role"] for message in one["messages"]]
    return [[m["role"], m.get("content")] for m in one["messages"][: roles.index("assistant")]]
