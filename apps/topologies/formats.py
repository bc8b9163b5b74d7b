"""The output formats that topologies agree on with their agents, parsed strictly.

A critic's verdict is read in `apps/answer.py`, beside answers: the credit methods need it too.
"""

from __future__ import annotations

from apps.answer import verdict

__all__ = ["verdict"]
