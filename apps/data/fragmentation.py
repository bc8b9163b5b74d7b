"""Into how many pieces a tokenizer takes terms apart: what extending a vocabulary is decided by.

A term is looked at as it stands in a sentence, after a space, since most tokenizers keep that space in the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.data.vocabulary import cut
from apps.records import MeritError

Pieces = dict[str, list[str]]


def read(path: Path) -> list[str]:
    """The terms of a text file, one a line, each once."""
    if not path.is_file():
        raise MeritError(f"terms={path}: there is no such file; a text file with one term a line is expected")
    terms = list(dict.fromkeys(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()))
    if not terms:
        raise MeritError(f"terms={path}: the file is empty; one term a line is expected")
    return terms


def pieces(tokenizer, terms: Sequence[str]) -> Pieces:
    """The tokens of each term, after a space. `tokenizer` is one of Hugging Face's."""
    return {term: cut(tokenizer.backend_tokenizer, f" {term}") for term in terms}


def report(before: Pieces, after: Pieces, unknown: str | None) -> dict[str, Any]:
    """Terms with their pieces before and after, most broken first, and the means.

    `unknown` is the token for what is not in the vocabulary: a term that has it was not only broken but lost.
    """
    order = sorted(before, key=lambda term: (-len(before[term]), term))
    rows = [
        {"term": term, "before": before[term], "after": after[term], "lost": unknown in before[term]} for term in order
    ]
    return {
        "terms": rows,
        "mean_before": mean(before),
        "mean_after": mean(after),
        "whole_after": sum(len(found) == 1 for found in after.values()),
        "lost_before": sum(row["lost"] for row in rows),
    }


def mean(found: Mapping[str, Sequence[str]]) -> float:
    """Pieces a term."""
    return sum(map(len, found.values())) / max(1, len(found))


def table(report: Mapping[str, Any], most: int = 20) -> str:
    """Plain text for people: the most broken terms first."""
    lines = [f"{'term':<24}{'before':>7}{'after':>7}  pieces before"]
    for row in report["terms"][:most]:
        taken = " ".join(row["before"]) + ("  (unknown)" if row["lost"] else "")
        lines.append(f"{row['term']:<24}{len(row['before']):>7}{len(row['after']):>7}  {taken}")
    if len(report["terms"]) > most:
        lines.append(f"… and {len(report['terms']) - most} more")
    lines.append(f"{'mean':<24}{report['mean_before']:>7.2f}{report['mean_after']:>7.2f}")
    return "\n".join(lines)
