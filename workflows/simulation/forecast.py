"""What a run would take: tables over numbers of nodes, the best share for training, the shard sizes to choose. Runs simulations."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from apps.records import MeritError
from workflows import post_train
from workflows.config import PostTrain
from workflows.plan import Plan
from workflows.simulation.events import Result, Simulation
from workflows.simulation.shape import MARKS, Group, scaled, shape
from workflows.simulation.times import Times

NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10000)
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of the nodes that a round trains on, lent by inference
TRIAL_ROUNDS = 3  # enough to compare shares
COLUMNS = (
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
)


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


def best(config: PostTrain, times: Times, nodes: int, overlap: int, seed: int = 0) -> Result:
    """The run with the number of training nodes that is through first."""
    trial = groups_of(config, times, overlap, min(TRIAL_ROUNDS, times.rounds))
    counts = sorted({max(1, round(nodes * share)) for share in SHARES})
    chosen = min(counts, key=lambda count: Simulation(trial, times, nodes, count, seed=seed).run().hours)
    return Simulation(groups_of(config, times, overlap, times.rounds), times, nodes, chosen, seed=seed).run()


def row(result: Result) -> dict[str, float]:
    """A line of the table: shares are of all tile-seconds."""
    shares = {name: getattr(result, name) / result.offered for name in ("waiting", "loading", "dead", "lost")}
    counts = (
        result.nodes,
        result.training_nodes,
        round(result.hours, 2),
        round(result.node_hours),
        result.jobs,
        result.failures,
    )
    return dict(
        zip(
            COLUMNS,
            (*counts, round(result.utilisation, 4), *(round(share, 4) for share in shares.values())),
            strict=True,
        )
    )


def heading() -> str:
    return "  ".join(name.rjust(max(7, len(name))) for name in ("overlap", *COLUMNS))


def line(found: dict[str, float]) -> str:
    return "  ".join(f"{value:,}".rjust(max(7, len(name))) for name, value in found.items())


def advice(times: Times, nodes: int) -> list[str]:
    """Shard sizes for so many nodes: enough shards for the last wave to be a small part, not so many that overheads count."""
    tiles, lines = times.tiles * nodes, []
    for kind, count in times.shards.items():
        seconds = times.seconds("rollout", kind) + (times.seconds("replay", "rollout") if kind == "rollout" else 0)
        wanted = max(
            tiles, min(32 * tiles, round(count * seconds / 300))
        )  # some five minutes a shard, at most 32 a tile
        lines.append(
            f"{kind}: {count} shards of {seconds:.0f} s each on {tiles} tiles; {wanted} of {count * seconds / wanted:.0f} s would do"
        )
    return lines


def write(rows: Sequence[dict[str, float]], out: Path) -> None:
    """`simulation.csv` and `simulation.svg`."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "simulation.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["overlap", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
    _figure(rows, out / "simulation.svg")


def _figure(rows: Sequence[dict[str, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for overlap in sorted({row["overlap"] for row in rows}):
        chosen = [row for row in rows if row["overlap"] == overlap]
        nodes, label = [row["nodes"] for row in chosen], "rounds overlap" if overlap else "one after another"
        left.plot(nodes, [row["utilisation"] for row in chosen], marker="o", label=label)
        right.plot(nodes, [row["hours"] for row in chosen], marker="o", label=label)
    left.set(xscale="log", xlabel="nodes", ylabel="tiles at work, share", ylim=(0, 1))
    right.set(xscale="log", yscale="log", xlabel="nodes", ylabel="hours to the end")
    left.legend(frameon=False)
    figure.savefig(file)
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
