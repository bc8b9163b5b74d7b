"""The output formats that topologies agree on with their agents, parsed strictly."""

from __future__ import annotations

import re

VERDICT = re.compile(r"VERDICT: (CORRECT|INCORRECT)\.?\s*$")


def verdict(text: str) -> bool | None:
    """A critic's verdict: True for CORRECT, False for INCORRECT, None where its text does not end in one."""
    found = VERDICT.search(text)
    return None if found is None else found.group(1) == "CORRECT"
