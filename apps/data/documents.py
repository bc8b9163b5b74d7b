"""Documents as rows for continued pretraining: each closed by the end token, cut at the context, never joined.

A row has no prompt but the tokenizer's begin token, where it has one; every token of it is learnt but the first, which
nothing precedes. A longer document becomes several rows; from the second on, the last token of the one before is the
prompt, so that each token is predicted once. Rows share lines in the trainer, which lets none of them see another: packing
changes neither loss nor gradient.

A document occurs once: copies within a domain, or of an earlier domain, are left out, so that what is held out was not learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from apps import records
from apps.records import MeritError
from apps.training.rows import Rows

BATCH = 1000  # texts that are encoded at once


def read(path: Path, field: str, where: str) -> Iterator[str]:
    """The documents of a .jsonl file (its column `field`), of a text file (one), or of a folder of both, in order of name."""
    files = sorted(f for f in path.rglob("*") if f.suffix in (".jsonl", ".txt")) if path.is_dir() else [path]
    if not files:
        raise MeritError(f"{where}={path}: no document in this folder; .jsonl or .txt files are expected")
    for file in files:
        yield from _lines(file, field, where) if file.suffix == ".jsonl" else [_text(file, where)]


def _text(file: Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MeritError(f"{where}: {file} is no text in UTF-8: {error}") from error


def _lines(file: Path, field: str, where: str) -> Iterator[str]:
    for number, line in enumerate(_text(file, where).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise MeritError(f"{where}: {file.name}, line {number}: no valid JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            columns = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise MeritError(
                f"{where}: {file.name}, line {number}: no text in the column {field!r} (there is: {columns})"
            )
        yield row[field]


def once(texts: Iterable[str], seen: set[str]) -> list[str]:
    """The texts that are neither blank nor, but for white space around them, in `seen`, which takes them in."""
    kept = []
    for text in texts:
        mark = records.digest(text.strip())
        if text.strip() and mark not in seen:
            seen.add(mark)
            kept.append(text)
    return kept


def divided(texts: Sequence[str], share: float, most: int, seed: int) -> tuple[list[str], list[str]]:
    """(to learn from, held out): `share` of them, at most `most` and at least one, chosen by a digest of the text."""
    order = sorted(texts, key=lambda text: records.digest([seed, text]))
    count = min(max(1, round(share * len(texts))), most, len(texts) - 1)
    return order[count:], order[:count]


def encoded(tokenizer, texts: Sequence[str], special: bool) -> Iterator[np.ndarray]:
    """Token ids int32 of each text. Without `special`, words that spell a special token are just words."""
    for start in range(0, len(texts), BATCH):
        coded = tokenizer(
            list(texts[start : start + BATCH]), add_special_tokens=False, split_special_tokens=not special
        )
        yield from (np.asarray(ids, np.int32) for ids in coded["input_ids"])


def rows_of(documents: Iterable[np.ndarray], context: int, begin: int | None, end: int) -> Rows:
    """Rows of at most `context` tokens. A document that has its end token already gets no second one."""
    prompts, completions = [], []
    for ids in documents:
        closed = ids if len(ids) and ids[-1] == end else np.append(ids, np.int32(end))
        for prompt, completion in parts(closed, context, begin):
            prompts.append(prompt)
            completions.append(completion)
    return Rows(prompts, completions, [np.zeros(0, np.float32)] * len(prompts), np.ones(len(prompts)))


def parts(ids: np.ndarray, context: int, begin: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(prompt, completion) of each row of a document: together at most `context` tokens."""
    prompt = np.array([] if begin is None else [begin], np.int32)
    at = 0
    while at < len(ids):
        room = context - len(prompt)
        yield prompt, ids[at : at + room]
        at += room
        prompt = ids[at - 1 : at]
