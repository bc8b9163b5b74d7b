"""What those who start ranks say when one of them dies, and on which node that began.

Their words: of MPICH's Hydra, which tells of the first death alone, and of PALS, as others met them on Aurora (pmodels/mpich,
issues 7569 and 7605; saforem2/ezpz, failover/patterns/aurora.py). PALS tells of every rank: signals 15 and 11 are mostly those of
ranks that went because another had, so they accuse nobody. A node is known by its name up to the first dot, since one writer
has the name in the fast network, another the node's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAID = tuple(
    re.compile(words, re.MULTILINE)
    for words in (  # what is surest first
        r"^(\S+): shepherd died from signal 9\b",  # PALS's own process on that node
        r"\bping RPC timeout from (\S+) after ",  # the node is silent
        r"^(\S+): rank \d+ died from signal (?!1[15]\b)\d",
        r"^=   PID \d+ RUNNING AT (\S+)\s*\n=   EXIT CODE: (?!15\b)\d",
    )
)


def short(host: str) -> str:
    """A host's name without its domain, of which a scheduler and the host itself may say more or less, and in small letters."""
    return host.partition(".")[0].lower()


def dead_node(output: str) -> str:
    """The node on which it began, in the launcher's own name for it; "" where nothing is said that is known here."""
    return next((found[1] for said in SAID if (found := said.search(output))), "")


def called(host: str, nodes: Sequence[str]) -> str:
    """The name that it has among `nodes`; as it is where it is not one of them."""
    return next((node for node in nodes if short(node) == short(host)), host)


def node_of(rank: int, ranks: int, host: str, nodes: Sequence[str]) -> str:
    """Where a rank was that calls its machine `host`. By its number, if none of the `nodes` has that name: all get as many."""
    known = called(host, nodes)
    return known if known in nodes or not nodes else nodes[rank // -(-ranks // len(nodes))]
