"""Where a text states its answer: after its last "ANSWER:", after its last "####", or in its last box; or its verdict.

Only finds the words; what they mean is the verifier's business. Every function is linear in the length of the text.
"""

from __future__ import annotations

import re

MARKER = "ANSWER:"
GSM8K_MARKER = "####"
BOXES = ("\\boxed", "\\fbox")
VERDICT = re.compile(r"VERDICT: (CORRECT|INCORRECT)\.?\s*$")


def verdict(text: str) -> bool | None:
    """A critic's verdict: True for CORRECT, False for INCORRECT, None where its text does not end in one."""
    found = VERDICT.search(text)
    return None if found is None else found.group(1) == "CORRECT"


def after(text: str, marker: str = MARKER) -> str | None:
    """The first line that is not blank after the last `marker`, stripped; "" where nothing follows, None without marker."""
    _, found, rest = text.rpartition(marker)
    if not found:
        return None
    return rest.strip().partition("\n")[0].strip()


def last_box(text: str) -> str | None:
    r"""The content of the last \boxed{…}, its braces balanced; None without a box that closes.

    TeX's short form without braces (\boxed 5) counts as the next word. Line breaks inside become spaces, as in TeX.
    """
    start, command = max((text.rfind(command), command) for command in BOXES)
    if start < 0:
        return None
    rest = text[start + len(command) :].lstrip()
    if not rest.startswith("{"):
        return rest.split("$")[0].split()[0] if rest.split("$")[0].split() else None
    end = closing(rest)
    return None if end is None else " ".join(rest[1:end].split())


def closing(text: str) -> int | None:
    r"""The index of the brace that closes the one `text` begins with; \{ and \} are letters, not braces."""
    depth, escaped = 0, False
    for index, letter in enumerate(text):
        if not escaped:
            depth += (letter == "{") - (letter == "}")
            if depth == 0:
                return index
        escaped = letter == "\\" and not escaped
    return None
