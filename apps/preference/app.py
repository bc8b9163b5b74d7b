"""The stages of a reward model that learns from preferences, files in and files out.

`pairs` puts completions side by side, `prefer` has a judge label them by a constitution, `agreement` compares such labels with
trusted ones, `reward_rows` makes what the stage `train` reads, `appraise_pairs` says how well the trained model orders others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, scoring
from apps.inference import app as inference_app
from apps.inference import chat, outside, traces
from apps.preference import agreement as agreeing
from apps.preference import figures, judge
from apps.preference import pairs as pairing
from apps.preference import rows as rowing
from apps.preference.pairs import Pair
from apps.records import Finding, MeritError, Question, Reward, Task, digest
from apps.reward import verdicts
from apps.reward_model.app import AGENT, SUMMARY
from apps.tasks import app as tasks_app

ORDERS = "orders.json"


def pairs(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `pairs.jsonl`: of the shards `rollout` and `grade`, or of a file, of which `side` says the half that is meant."""
    if file := options.get("file"):
        found = pairing.of_file(Path(file).expanduser())
        found = {"all": found, **dict(zip(("train", "held_out"), pairing.held_out(found), strict=True))}[
            options["side"]
        ]
    else:
        graded = [
            one
            for rollout, grade in zip(inputs["rollout"], inputs["grade"], strict=True)
            for one in verdicts.read(grade, traces.read(rollout / traces.FILE))
        ]
        questions = {task.id: task.question for task in tasks_app.read(inputs["tasks"][0])}
        found = pairing.of_plays(graded, questions, pairing.Options(**options["pairs"]), options["labelled"])
    if options.get("shuffle") is not None:
        found = pairing.shuffled(found, options["shuffle"])
    pairing.write(out, found)
    return {"pairs": len(found), "prompts": len({pair.prompt for pair in found})}


def prefer(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs with the judge's preferences, and in `orders.json` what it said in either order."""
    given, options = pairing.read(inputs["pairs"][0]), inference_app.based(inputs, options)
    chosen = judge.Options(**options["judge"])
    asked = [judge.questions(pair, options["principles"], chosen) for pair in given]
    found = _answers(asked, chosen, options["judge"], (), options)
    orders = [judge.preferences(replies, chosen) for replies in found]
    labelled = [pairing.with_preference(pair, sum(said) / 2) for pair, said in zip(given, orders, strict=True)]
    if options.get("shuffle") is not None:
        labelled = pairing.shuffled(labelled, options["shuffle"])
    pairing.write(out, labelled)
    (out / ORDERS).write_text(json.dumps([] if chosen.alone else orders) + "\n")
    return {"pairs": len(given), "decided": len(rowing.decided(labelled, chosen.least))}


def agreement(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Labels (`prefer`) against trusted ones of the same pairs (`pairs`)."""
    said, trusted = pairing.read(inputs["prefer"][0]), pairing.read(inputs["pairs"][0])
    if [(p.prompt, p.first, p.second) for p in said] != [(p.prompt, p.first, p.second) for p in trusted]:
        raise MeritError("agreement: the labels are of other pairs than those that they are compared with")
    columns = (np.array([pair.preferred for pair in part], np.float64) for part in (said, trusted))
    orders = np.array(json.loads((inputs["prefer"][0] / ORDERS).read_text()), np.float64).reshape(-1, 2)
    found = agreeing.figures([pair.unit for pair in trusted], *columns, orders if len(orders) else None)
    (out / SUMMARY).write_text(json.dumps(found, indent=1) + "\n")
    return {"pairs": found["pairs"], "agreement": found["agreement"]["value"], "kappa": found["kappa"]["value"]}


def reward_rows(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows for `train`, of the agent `reward_model`."""
    from transformers import AutoTokenizer

    found = pairing.read(inputs["pairs"][0])
    decided = rowing.decided(found, options["least"])
    tokenizer = AutoTokenizer.from_pretrained(inference_app.based(inputs, options)["model"], local_files_only=True)

    def encode(pair: Pair, text: str) -> rowing.Encoded:
        prompt = pair.prompt if pair.rendered else chat.rendered(tokenizer, "", pair.prompt)
        return chat.encoded(tokenizer, prompt), chat.joined(tokenizer, [text])[0]

    rows = rowing.rows_of(decided, leaf.find("training/objectives", options["objective"]["name"]).NEEDS, encode)
    rows.save(out / f"{AGENT}.npz")
    return {"pairs": len(decided), "rows": len(rows), "undecided": len(found) - len(decided)}


def appraise_pairs(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `summary.json`: how well held-out pairs are ordered by the members that were trained (`train`), alone and together.

    Beside them stand the base model that judges by a word, and the rule that the longer text is better.
    """
    held, options = rowing.decided(pairing.read(inputs["pairs"][0]), 0.0), inference_app.based(inputs, options)
    if not held:
        raise MeritError("no held-out pair of which one is better; more plays, or more held-out tasks make some")
    units, preferred = [pair.unit for pair in held], np.array([pair.preferred for pair in held])
    lengths = np.array([[len(pair.first), len(pair.second)] for pair in held], np.float64)
    told = {name: figures.figures(units, s, preferred, lengths) for name, s in _scores(held, inputs, options).items()}
    summary: dict[str, Any] = {"scores": told, "table": figures.table(told)}
    if "agreement" in inputs:
        summary["agreement"] = json.loads((inputs["agreement"][0] / SUMMARY).read_text())
        summary["table"] += "\n\n" + agreement_table(summary["agreement"])
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return {"pairs": len(held), "accuracy": told["reward model"]["accuracy"]["value"]}


def agreement_table(found: Mapping[str, Any]) -> str:
    """For the terminal."""
    names = {"agreement": "agreement", "kappa": "Cohen's kappa", "same_in_both_orders": "same in both orders"}
    names["prefers_the_first_place"] = "prefers the first place"
    lines = [f"the judge's labels of {found['pairs']} pairs, against trusted ones"]
    return "\n".join(lines + [f"{name:<26}{figures.cell(found[key])}" for key, name in names.items() if key in found])


def _scores(
    held: Sequence[Pair], inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """(pairs, 2) of each scorer."""
    texts = [(pair, text) for pair in held for text in (pair.first, pair.second)]
    asked: list[list[Question]] = [[Reward(pair.prompt, (text,), pair.rendered)] for pair, text in texts]
    rewards = _answers(asked, scoring.Options(), {}, inputs["train"], options)
    reading = scoring.Options(**options["reading"])
    untrained = [scoring.asked(pair.question or pair.prompt, text, reading) for pair, text in texts]
    replies = _answers(untrained, reading, options["reading"], (), options)
    combined = {combine: scoring.Options(combine=combine) for combine in ("mean", "worst")}
    found = {"reward model": [scoring.score(reply, combined["mean"]) for reply in rewards]}
    if len(inputs["train"]) > 1:
        found["worst of the ensemble"] = [scoring.score(reply, combined["worst"]) for reply in rewards]
        found["first member alone"] = [reply[0].rewards[0][-1] for reply in rewards]
    found[f"untrained, by {reading.by}"] = [scoring.score(reply, reading) for reply in replies]
    found["the longer text"] = [float(len(text)) for _, text in texts]
    return {name: np.array(scores, np.float64).reshape(-1, 2) for name, scores in found.items()}


def _answers(
    asked: Sequence[Sequence[Question]],
    chosen: scoring.Options,
    section: Mapping[str, Any],
    trained: Sequence[Path],
    options: Mapping[str, Any],
) -> list[list[Finding]]:
    """What is replied to each list of questions; equal questions are asked once."""
    flat = list(dict.fromkeys(question for questions in asked for question in questions))
    who, home = outside.speakers(section, trained, options), outside.home(section, options)
    engine = inference_app.ready(who, home)
    task = [Task(digest(repr(question)), "", "", "", "") for question in flat]  # keys a reply's randomness
    found = dict(
        zip(
            flat, outside.answers(list(zip(task, flat, strict=True)), engine, who, chosen, options["seed"]), strict=True
        )
    )
    return [[found[question] for question in questions] for questions in asked]
