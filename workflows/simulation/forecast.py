"""What a run would take: tables over numbers of nodes, the best share for training, the shard sizes to choose. Runs simulations."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from apps.platform import devices
from apps.records import MeritError
from workflows import post_train
from workflows.config import PostTrain
from workflows.plan import Plan
from workflows.simulation.events import Simulation
from workflows.simulation.placement import POLICIES, Policy
from workflows.simulation.result import Result
from workflows.simulation.shape import MARKS, Group, scaled, shape
from workflows.simulation.times import Times

NODES = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 10000)
SHARES = (1 / 16, 3 / 32, 1 / 4)  # of the nodes that a round trains on
TRIAL_ROUNDS = 8  # of fewer the last one, which has nothing beside it, would weigh too much
SHARD_S, LEAST_S = (
    300,
    60,
)  # seconds of a tile that a shard had better take, so that a failure costs little; and at least
MOST = 32  # shards a tile
COLUMNS = (
    "sharing",
    "overlap",
    "nodes",
    "training nodes",
    "hours",
    "node-hours",
    "jobs",
    "failures",
    "utilisation",
    "waiting",
    "loading",
    "dead",
    "lost",
    "lent",
    "ending",
)
SHARED = COLUMNS[9:]
OVERLAP = ("rounds one after another", "rounds that overlap")
DRAWN = {"fixed": "#0072b2", "measured": "#d55e00"}


def groups_of(config: PostTrain, times: Times, overlap: int, rounds: int) -> list[Group]:
    """The shape of the run's real plan at the shards of `times`."""
    rollout = config.rollout.model_copy(
        update={"shards": MARKS["rollout"], "tasks": 10 * MARKS["rollout"], "overlap": overlap}
    )
    evaluation = config.evaluation.model_copy(
        update={"shards": MARKS["evaluation"], "tasks": 520, "validation_tasks": 130}
    )
    plan = Plan()
    post_train.dag(config.model_copy(update={"rollout": rollout, "evaluation": evaluation, "rounds": rounds}), plan)
    return scaled(shape(plan), times.shards)


def best(config: PostTrain, times: Times, nodes: int, overlap: int, policy: Policy, seed: int = 0) -> Result:
    """The run with the number of training nodes that is through first."""
    counts = sorted({max(1, round(nodes * share)) for share in SHARES})
    if not policy.lends:
        counts, policy = [n for n in counts if n < nodes] or [1], replace(policy, lends=nodes == 1)
    trial = groups_of(config, times, overlap, min(TRIAL_ROUNDS, times.rounds))

    def hours(count: int) -> float:
        return Simulation(trial, times, nodes, count, policy, seed).run().hours

    chosen = min(counts, key=hours) if len(counts) > 1 else counts[0]
    return Simulation(groups_of(config, times, overlap, times.rounds), times, nodes, chosen, policy, seed).run()


def row(sharing: str, overlap: int, found: Result) -> dict[str, Any]:
    """A line of the table: shares are of all tile-seconds."""
    shares = {name: round(getattr(found, name) / found.offered, 4) for name in SHARED}
    counts = (found.nodes, found.training_nodes, round(found.hours, 2), round(found.node_hours))
    told = (sharing, overlap, *counts, found.jobs, found.failures, round(found.utilisation, 4), *shares.values())
    return dict(zip(COLUMNS, told, strict=True))


def heading() -> str:
    return "  ".join(name.rjust(max(7, len(name))) for name in COLUMNS)


def line(found: Mapping[str, Any]) -> str:
    told = {name: value if isinstance(value, str) else f"{value:,}" for name, value in found.items()}
    return "  ".join(value.rjust(max(7, len(name))) for name, value in told.items())


def rows(
    config: PostTrain, times: Times, counts: Sequence[int], sharings: Sequence[str], overlaps: Sequence[int], seed: int
) -> Iterator[dict[str, Any]]:
    """The lines of the table one after another; a core works on each."""
    asked = [(who, overlap, count) for count in counts for who in sharings for overlap in overlaps]
    with ProcessPoolExecutor(min(devices.cores(), len(asked))) as pool:
        yield from pool.map(partial(_row, config, times, seed), asked)


def _row(config: PostTrain, times: Times, seed: int, asked: tuple[str, int, int]) -> dict[str, Any]:
    sharing, overlap, count = asked
    return row(sharing, overlap, best(config, times, count, overlap, POLICIES[sharing], seed))


def advice(times: Times, nodes: int, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shard sizes and shares of nodes: enough shards for the last wave to be a small part, not so many that overheads count."""
    tiles, lines = times.tiles * nodes, [f"{nodes:,} nodes, {times.tiles * nodes:,} tiles:"]
    for kind, count in times.shards.items():
        seconds = times.seconds("rollout", kind) + (times.seconds("replay", "rollout") if kind == "rollout" else 0)
        work = count * seconds
        wanted = max(1, round(min(max(tiles, work / SHARD_S), work / LEAST_S, MOST * tiles)))
        told = f"{kind}.shards={wanted} (of {work / wanted:.0f} s each; now {count} of {seconds:.0f} s)"
        lines.append(f"  {told}, {wanted / tiles:.1f} a tile")
    mine = [row for row in found if row["nodes"] == nodes]
    for sharing in dict.fromkeys(row["sharing"] for row in mine):
        first = min((row for row in mine if row["sharing"] == sharing), key=lambda row: row["hours"])
        told = f"{first['training nodes']} nodes for training, rollout.overlap={first['overlap']}"
        lines.append(f"  {sharing}: {told}: {first['hours']} hours, {first['utilisation']:.0%} of the tiles at work")
    return lines


def write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """`simulation.csv` and `simulation.svg`."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "simulation.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    _figure(rows, out / "simulation.svg")


def _figure(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for sharing, overlap in sorted({(row["sharing"], row["overlap"]) for row in rows}):
        chosen = [row for row in rows if (row["sharing"], row["overlap"]) == (sharing, overlap)]
        nodes = [row["nodes"] for row in chosen]
        style = {"marker": "o" if overlap else "s", "markersize": 4, "color": DRAWN[sharing]}
        style |= {"linestyle": "-" if overlap else "--", "label": f"{sharing} nodes, {OVERLAP[overlap]}"}
        left.plot(nodes, [row["utilisation"] for row in chosen], **style)
        right.plot(nodes, [row["hours"] for row in chosen], **style)
    left.set(xscale="log", xlabel="nodes", ylabel="tiles at work, share", ylim=(0, 1))
    right.set(xscale="log", yscale="log", xlabel="nodes", ylabel="hours to the end")
    left.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def numbers(text: str) -> list[int]:
    """`1,8,512` as numbers of nodes."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 20_000:
        raise MeritError(f"--nodes {text!r}: numbers from 1 to 20000 with commas between are expected, as in 1,64,512")
    return found
