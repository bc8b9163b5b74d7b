"""Answers questions to models that do not play: judges and reward models. Not a credit method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.records import Consult, Finding, Rate, Task


def answers(
    asked: Sequence[tuple[Task, Consult | Rate]], inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]
) -> list[Finding]:
    """What the outside model says, in order."""
    if not asked:
        return []
    raise NotImplementedError
