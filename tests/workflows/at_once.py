"""A plan that is carried out while it is made: every task at once, by its real stage, in this process. For scripted agents."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from apps import stages
from workflows.plan import Node


def launcher(root: Path) -> Callable[[Node], Future]:
    """For `Plan`; artifacts lie under `root`."""

    def launch(node: Node) -> Future:
        given = {name: [n.future.result() for n in nodes] for name, nodes in node.inputs.items()}
        future: Future = Future()
        future.set_result(
            stages.execute(stage=node.stage.name, key=node.key, module=node.stage.module, root=str(root), pool="",
                           options=dict(node.options), machine={"model": ""}, given=given)
        )  # fmt: skip
        return future

    return launch
