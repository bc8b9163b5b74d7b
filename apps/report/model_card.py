"""The card of an exported policy: what it is, how it was trained, what was measured, how it is loaded. Pure: facts in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

TEXT = """---
{front}---
# {name}: the {agent} of a team

{what} It was trained by Merit to be the **{agent}** (duty: {duty}) of the team `{topology}` ({team}), on the credit that this
agent earned in the team's plays. Its prompt is the one below; it has learned nothing else.

## How to load it

```python
{code}
```

Prompt, a user's message of the chat template{system}:

```
{prompt}
```

## How it was trained

| | |
|---|---|
{settings}

## What was measured

On held-out tasks, by the run that trained it; {n} tasks, 95 % intervals over tasks. These are figures of the team, or of this agent in
it, not of the agent alone on other work.

| | before | after |
|---|---:|---:|
{figures}

## Licence

The weights derive from the base model `{base}`, {licence}. The training tasks (`{tasks}`) may have a licence of their own.
"""
ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")  # the folder of the base model{digest}
model = PeftModel.from_pretrained(base, "FOLDER")  # this folder
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""
WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")  # this folder
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""


def text(facts: Mapping[str, Any], config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The card. `facts`: agent, agents that share its policy, duty, team, base, digest, licence, prompt, kind, dtype."""
    adapter, training = facts["kind"] == "adapter", config["training"]
    front = {"library_name": "peft" if adapter else "transformers", "base_model": facts["base"]}
    front |= {"license": facts["licence"]} if facts["licence"] else {}
    front |= {"pipeline_tag": "text-generation", "tags": ["merit", config["tasks"]["name"], facts["duty"]]}
    code = ADAPTER if adapter else WHOLE
    digest = f", whose digest is {facts['digest'][:16]}" if facts["digest"] else ""
    system = config["team"]["system"]
    return TEXT.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=config["name"],
        what=_what(facts, training),
        code=code.format(base=facts["base"], digest=digest) if adapter else code,
        system=f" after the system message {system!r}" if system else "",
        topology=config["topology"]["name"],
        team=", ".join(facts["team"]),
        settings="\n".join(f"| {name} | {value} |" for name, value in settings(facts, config).items()),
        n=summary["accuracy"]["sampled"]["n"],
        figures="\n".join(figures(facts["agent"], summary)),
        licence=f"whose card names the licence {facts['licence']}"
        if facts["licence"]
        else "whose licence holds for them",
        tasks=config["tasks"]["name"],
        **{name: facts[name] for name in ("agent", "duty", "prompt", "base")},
    )


def _what(facts: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    lora, base = training["lora"] or {}, facts["base"]
    kind = "".join(part for part, on in (("rs", lora.get("rslora")), ("LoRA", not lora.get("dora"))) if on) or "DoRA"
    kind = f"{kind} of rank {lora.get('r')}"
    said = {
        "adapter": f"An adapter ({kind}) in PEFT format for the base model `{base}`.",
        "merged": f"The base model `{base}` with an adapter ({kind}) merged into its weights, kept in {facts['dtype']}.",
        "whole": f"A whole model, all weights of which were trained from the base model `{base}`.",
    }[facts["kind"]]
    if lora.get("quantise"):
        said += f" It was trained over the base model in 4 bits ({lora['quantise']}); over other weights it says something slightly else."
    if facts["shared"]:
        said += f" The agents {', '.join([facts['agent'], *facts['shared']])} speak with these very weights."
    return said


def settings(facts: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """What decided the training, for a table."""
    shown = {
        "base model": f"`{facts['base']}`" + (f", digest {facts['digest'][:16]}" if facts["digest"] else ""),
        "tasks": _section(config["tasks"]),
        "credit": _section(config["credit"]),
        "advantage": _section(config["advantage"]),
        "objective": _section(config["objective"]),
        "schedule": _section(config["schedule"]),
        "rounds": str(config["rounds"]),
        "promotion": _section({"name": config["promotion"]["rule"], **config["promotion"]}, "rule"),
        "seed": str(config["seed"]),
    }
    trained = {name: value for name, value in config["training"].items() if value not in (None, False, [], ())}
    return shown | {"training": ", ".join(f"{name} {_plain(value)}" for name, value in trained.items())}


def _section(section: Mapping[str, Any], *without: str) -> str:
    """`name (key value, …)` of a section of the configuration."""
    rest = [
        f"{k} {_plain(v)}" for k, v in section.items() if k not in ("name", *without) and v not in (None, "", {}, [])
    ]
    return f"`{section['name']}`" + (f" ({', '.join(rest)})" if rest else "")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_plain(v)}" for k, v in value.items() if v not in (None, False, [], ())) + "}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def figures(agent: str, summary: Mapping[str, Any]) -> Sequence[str]:
    """Rows of a table: the team, its solver alone, and this agent in it."""
    rows = [(f"team, {mode}", pair["before"], pair["after"]) for mode, pair in summary["accuracy"].items()]
    rows += [(f"solver alone, {mode}", pair["before"], pair["after"]) for mode, pair in summary["solver_alone"].items()]
    rows += [
        (f"{agent}: {name.replace('_', ' ')}", pair["before"], pair["after"])
        for name, pair in summary["roles"].get(agent, {}).items()
    ]
    return [f"| {name} | {shown(before)} | {shown(after)} |" for name, before, after in rows]


def shown(figure: Mapping[str, Any]) -> str:
    """ ".853 [.821, .881]"; a figure over nothing is a dash."""
    if figure.get("value") is None:
        return "–"
    low, high = figure.get("low"), figure.get("high")
    return f"{figure['value']:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")
