"""A block of many nodes that has ended is started again on those of its nodes that answer.

One launch spans all nodes of a block. When a node dies a launcher may end the whole of it, and with that node in its hostfile no
other comes about. So before each start but the first all are asked, as preflight does (apps/platform/preflight.py), without a look at
their devices.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from workflows.cluster import roles

TIMEOUT_S = 60.0  # of one launch that asks
log = logging.getLogger("merit.blocks")


def on_who_answers(provider: Any, nodefile: Path, plain: Sequence[str]) -> Any:
    """The same Parsl provider, whose blocks are on the hosts of `nodefile`; `plain` is the site's `on_hosts`."""
    submit, starts = provider.submit, count()

    def submitted(command: str, tasks_per_node: int, job_name: str = "parsl.block") -> Any:
        if next(starts):
            nodes = roles.hosts(nodefile)
            answer = answering(nodes, plain)
            if answer and len(answer) < len(nodes):
                silent = ", ".join(node for node in nodes if node not in answer)
                log.warning("the block on %d nodes has ended; it is started again without %s", len(nodes), silent)
                nodefile.write_text("".join(f"{node}\n" for node in answer), encoding="utf-8")
                provider.nodes_per_block = len(answer)
        return submit(command, tasks_per_node, job_name)

    provider.submit = submitted
    return provider


def answering(nodes: Sequence[str], plain: Sequence[str]) -> list[str]:
    """Those on which a process can be started, in their order."""
    from apps.platform import preflight, probe

    with tempfile.TemporaryDirectory() as folder:  # read by the launcher, here
        launches = preflight.Launches(Path(folder), tuple(plain), timeout_s=TIMEOUT_S)
        question = probe.Question("cpu", imports=(), computes=False)
        found = preflight.questioned(nodes, lambda group: preflight.ask(group, question, launches))
    return [node for node in nodes if found[node].answer]
