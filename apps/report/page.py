"""The report as one HTML page: no script, no address outside of itself. What is said is here, how it looks in the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import artifacts
from apps.records import Credit, Graded
from apps.report import conversation, figures, health
from apps.report.rounds import Inputs, played, rounds
from apps.report.summary import SHOWN, every
from apps.tasks import app as tasks_app

TEMPLATE = Path(__file__).with_name("page.html.jinja")
KINDS = {"mended": (False, True), "broken": (True, False), "still wrong": (False, False), "still right": (True, True)}
SHOWN_TASKS = 5
LOWER_IS_BETTER = ("right_to_wrong", "misread")

Pair = tuple[Graded, Credit, Graded, Credit]  # the same task before and after


def render(summary: Mapping[str, Any], inputs: Inputs, options: Mapping[str, Any]) -> str:
    """The page as text."""
    import jinja2
    import yaml
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "p": p_value,
        "duration": duration,
        "points": points,
    }
    environment.filters |= {"signed": lambda v: "–" if v is None else conversation.signed(v), "number": number}
    environment.filters |= {"words": lambda name: name.replace("_", " ")}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        s=summary,
        ran=ran(inputs, options),
        drawn={name: Markup(svg) for name, svg in drawings(summary, inputs).items()},
        plays=side_by_side(inputs),
        lower=LOWER_IS_BETTER,
        command=options.get("command", ""),
        config=yaml.safe_dump(dict(options["config"]), sort_keys=False, allow_unicode=True),
    )


def ran(inputs: Inputs, options: Mapping[str, Any]) -> dict[str, str]:
    """What was run, as pairs for a table; what the configuration does not say is left out."""
    config = options["config"]
    team = ", ".join(f"{role} ({options['duties'].get(role, '')})" for role in options["agents"])
    topology = _name(config, "topology")
    found = {
        "Tasks": _name(config, "tasks"),
        "Model": str(config.get("model", "")),
        "Team": f"{topology}: {team}" if topology else team,
        "Credit": _name(config, "credit"),
        "Objective": ", ".join(filter(None, (_name(config, "objective"), _name(config, "advantage")))),
        "Rounds": str(config.get("rounds", "")),
        "Schedule": _name(config, "schedule"),
        "Policies": shared(config.get("team") or {}),
        "Seed": str(config.get("seed", "")),
        "Host": ", ".join(sorted({artifacts.manifest(folder)["host"] for folder in every(inputs)})),
    }
    if options.get("stages"):  # each has an objective and rounds of its own
        found |= {"Stages": ", ".join(options["stages"]), "Objective": "", "Rounds": ""}
    return {what: value for what, value in found.items() if value}


def shared(team: Mapping[str, Any]) -> str:
    """Who speaks with another agent's policy, and who has a base model of its own."""
    said = [f"{agent} speaks with the policy of {owner}" for agent, owner in (team.get("share") or {}).items()]
    return "; ".join(
        said + [f"{agent} is made of {Path(path).name}" for agent, path in (team.get("models") or {}).items()]
    )


def drawings(summary: Mapping[str, Any], inputs: Inputs) -> dict[str, str]:
    """Every figure that there is something to draw for, by name."""
    s, drawn = summary, {}
    rows = [
        (f"team, {mode}", s["accuracy"][mode]["before"], s["accuracy"][mode]["after"]) for mode in ("greedy", "sampled")
    ]
    rows += [(f"solver alone, {mode}", f["before"], f["after"]) for mode, f in s["solver_alone"].items()]
    drawn["accuracy"] = figures.dumbbell("accuracy", rows, "accuracy on held-out tasks, 95 % interval")
    rows = [
        (f"{role}: {figure.replace('_', ' ')}", pair["before"], pair["after"])
        for role, by_name in s["roles"].items()
        for figure, pair in by_name.items()
    ]
    drawn["roles"] = figures.dumbbell("roles", rows, "share of the role's turns, 95 % interval")
    if s["validation"]:
        drawn["validation"] = figures.validation("validation", s["validation"], let_in(s["promotions"]))
    if any(row["reward"] is not None for row in s["training"]):
        reward = {"team": [{"value": row["reward"]} for row in s["training"]]}
        drawn["reward"] = figures.over_rounds("reward", reward, "mean reward of the plays trained on")
    if history := loss_history(inputs):
        drawn["loss"] = figures.losses("loss", history)
    credit = s["credit"]
    if any(row[when]["n"] for row in credit.values() for when in ("before", "after")):
        rows = [(role, row["before"], row["after"]) for role, row in credit.items()]
        drawn["credit"] = figures.bars("credit", rows, "mean credit a trace, 95 % interval")
    if any(point["n"] for row in credit.values() for point in row["rounds"]):
        lines = {role: row["rounds"] for role, row in credit.items()}
        drawn["credit_rounds"] = figures.over_rounds("credit-by-round", lines, "mean credit a trace", zero=True)
    drawn["seconds"] = figures.seconds("seconds", s["seconds"])
    return drawn


def let_in(promotions: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each round let anyone in."""
    rounds = sorted({p["round"] for p in promotions})
    return [any(p["promoted"] for p in promotions if p["round"] == number) for number in rounds]


def loss_history(inputs: Inputs) -> dict[str, list[list[float]]]:
    """agent → the loss of each step, a list a round."""
    found: dict[str, list[list[float]]] = {}
    for r in rounds(inputs):
        for agent, folder in r.train.items():
            found.setdefault(agent, []).append([m["loss"] for m in health.steps(folder)])
    return {agent: parts for agent, parts in found.items() if any(parts)}


def side_by_side(inputs: Inputs) -> list[dict[str, Any]]:
    """A handful of tasks as both teams played them."""
    if not all(inputs.get(name) for name in SHOWN):
        return []
    before, after = (played(*([folder] for folder in inputs[name])) for name in SHOWN)
    later = {g.trace.id: (g, c) for g, c in zip(after.graded, after.credit, strict=True)}
    pairs = [
        (g, c, *later[g.trace.id]) for g, c in zip(before.graded, before.credit, strict=True) if g.trace.id in later
    ]
    tasks = {t.id: t for folder in inputs.get("tasks", ()) for t in tasks_app.read(folder)}
    return [
        {"kind": kind, "task": g.trace.task, "question": tasks.get(g.trace.task), "plays": [play(g, c), play(*rest)]}
        for kind, (g, c, *rest) in choose(pairs)
    ]


def choose(pairs: Sequence[Pair]) -> list[tuple[str, Pair]]:
    """Up to SHOWN_TASKS pairs of different tasks: some of each kind, of those the ones in which most was said."""
    longest = sorted(pairs, key=lambda pair: -len(pair[0].trace.turns) - len(pair[2].trace.turns))
    once = list({pair[0].trace.task: pair for pair in reversed(longest)}.values())[::-1]
    same = {
        kind: [pair for pair in once if (pair[0].verdict.right, pair[2].verdict.right) == KINDS[kind]] for kind in KINDS
    }
    by_turns = [(kind, pair) for k in range(SHOWN_TASKS) for kind in KINDS for pair in same[kind][k : k + 1]]
    return sorted(by_turns[:SHOWN_TASKS], key=lambda chosen: list(KINDS).index(chosen[0]))


def play(graded: Graded, credit: Credit) -> dict[str, Any]:
    """One trace as the template wants it."""
    turns = []
    for i, turn in enumerate(graded.trace.turns):
        text, fair = conversation.mark(graded, i)
        value, error = credit.values[i], credit.errors[i]
        turns.append(
            {
                "turn": turn,
                "mark": text,
                "fair": fair,
                "value": round(value, 2),
                "credit": conversation.signed(value, error),
            }
        )
    return {"turns": turns, "right": graded.verdict.right, "outcome": conversation.outcome(graded.verdict)}


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %".replace("-", "−")


def points(difference: float | None) -> str:
    """A difference of shares in points, "+12.5"."""
    return "–" if difference is None else f"{round(100 * difference, 1) + 0.0:+.1f}".replace("-", "−")


def interval(shown: Mapping[str, Any]) -> str:
    """ "41.2 to 49.8", in per cent."""
    ends = [shown.get("low"), shown.get("high")]
    return "" if None in ends else " to ".join(f"{round(100 * end, 1) + 0.0:.1f}" for end in ends).replace("-", "−")


def p_value(p: float | None) -> str:
    return "–" if p is None else "< .0001" if p < 1e-4 else f"{p:.4f}".removeprefix("0")


def number(value: float | None, digits: int = 3) -> str:
    """Short, never in exponents for what is large; a count without decimals."""
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}".replace("-", "−")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _name(config: Mapping[str, Any], section: str) -> str:
    """The name that a section of the configuration chooses; the section may stand under `training`."""
    for place in (config, config.get("training", {})):
        found = place.get(section)
        if found:
            return str(found["name"]) if isinstance(found, Mapping) else str(found)
    return ""
