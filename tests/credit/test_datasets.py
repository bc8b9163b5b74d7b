"""Data sets of credit, by hand and by the command: which turns become rows, and that nothing leaks or changes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import datasets
from apps.credit.datasets import Rule
from apps.credit.turns import best_against_worst
from apps.records import Consult, Credit, Graded, MeritError, Outcome, Replay, Said, Sampling, Trace, Turn, Verdict
from tests.command import SMALL, run
from workflows.commands import data_sets, inspect_run

LEAST = {"sft": ("prompt", "completion"), "pairs": ("prompt", "chosen", "rejected")}
LEAST |= {"kto": ("prompt", "completion", "label"), "rl": ("prompt", "completion", "value")}


def turn(agent, said, state=1, **more):
    """`agent` says a word, having seen a state."""
    ids = np.frombuffer(said.encode() + b"\0", np.uint8).astype(np.int32)
    logprobs = np.full(len(ids), -0.1, np.float32)
    seen = np.full(3, state, np.int32)
    return replace(Turn(agent, f"{agent}.0", f"<{state}>", said, seen, ids, logprobs, "p", Sampling(), 0), **more)


def played(*turns, score=1.0, sample=0, task="t"):
    trace = Trace(task, str(sample), turns, "", True)
    return Graded(trace, Verdict(score, "1", ""), (None,) * len(turns))


def rows(kind, graded, values, findings=None, errors=None, **rule):
    errors = errors or [[0.0] * len(v) for v in values]
    credit = [Credit(g.trace.id, tuple(v), tuple(e)) for g, v, e in zip(graded, values, errors, strict=True)]
    return datasets.rows(kind, graded, credit, findings or {}, Rule(**rule))


def words(found, *columns):
    return [tuple(row[column] for column in columns) for row in found]


ONE = [played(turn("solver", "a"), turn("critic", "b", 2), turn("reviser", "c", 3))]


def test_positives_are_worth_more_than_the_threshold():
    assert words(rows("sft", ONE, [[0.5, 0.0, -0.5]]), "agent", "completion") == [("solver", "a")]
    assert words(rows("sft", ONE, [[0.5, 0.0, -0.5]], threshold=-0.5), "completion") == [("a",), ("b",)]
    assert rows("sft", ONE, [[1e-17, 0.0, -1e-17]]) == []  # dust of Shapley weights is worth nothing


def test_labels_leave_out_what_is_neither():
    assert words(rows("kto", ONE, [[0.5, 0.0, -0.5]]), "completion", "label") == [("a", True), ("c", False)]
    assert words(rows("kto", ONE, [[0.5, 0.2, -0.1]], margin=0.2), "completion", "label") == [("a", True), ("b", True)]
    assert words(rows("kto", ONE, [[1.0, 1.0, 0.0]], threshold=0.5), "label") == [(True,), (True,), (False,)]


def test_values_are_of_every_turn_with_its_tokens_as_they_were_sampled():
    found = rows("rl", ONE, [[0.5, 0.0, -0.5]], errors=[[0.1, 0.2, 0.3]])
    assert words(found, "value", "error", "outcome") == [(0.5, 0.1, 1.0), (0.0, 0.2, 1.0), (-0.5, 0.3, 1.0)]
    first, spoken = found[0], ONE[0].trace.turns[0]
    assert first["prompt_ids"] == [1, 1, 1] and first["completion_ids"] == spoken.completion_ids.tolist()
    assert np.array_equal(np.array(first["logprobs"], np.float32), spoken.logprobs) and first["logprobs"][0] == -0.1


def test_a_row_says_where_it_comes_from():
    (row,) = rows("sft", ONE, [[0.0, 0.25, 0.0]], errors=[[0.0, 0.125, 0.0]])
    assert row == {
        "prompt": "<2>", "completion": "b", "value": 0.25, "error": 0.125, "outcome": 1.0, "agent": "critic",
        "task": "t", "trace": "t#0", "path": "critic.0", "policy": "p",
    }  # fmt: skip


def test_what_a_stand_in_said_is_nobodys():
    spoken = [turn("solver", "a", stand_in="base"), turn("critic", ""), turn("critic", "b")]
    spoken[1] = replace(spoken[1], completion_ids=np.zeros(0, np.int32))
    for kind in ("sft", "kto", "rl"):
        assert words(rows(kind, [played(*spoken)], [[1.0, 1.0, 1.0]]), "completion") == [("b",)]


def test_pairs_are_of_one_agent_in_one_state_the_best_with_the_worst():
    graded = [played(turn("solver", word), sample=i) for i, word in enumerate("abcd")]
    values = [[0.2], [1.0], [0.8], [0.0]]
    assert words(rows("pairs", graded, values), "chosen", "rejected") == [("b", "d"), ("c", "a")]
    assert words(rows("pairs", graded, values, margin=0.7), "chosen", "rejected") == [("b", "d")]
    assert words(rows("pairs", graded, values, margin=0.6), "chosen", "rejected") == [("b", "d"), ("c", "a")]
    other = [graded[0], played(turn("solver", "b", 2), sample=1), played(turn("critic", "c"), sample=2)]
    assert rows("pairs", other, [[0.0], [1.0], [0.5]]) == []
    apart = [graded[0], played(turn("solver", "b"), task="u")]
    assert rows("pairs", apart, [[0.0], [1.0]]) == []


def test_pairs_have_the_value_and_error_of_each():
    graded = [played(turn("solver", word), sample=i) for i, word in enumerate("ab")]
    (row,) = rows("pairs", graded, [[-0.5], [0.5]], errors=[[0.1], [0.2]])
    assert (row["chosen"], row["chosen_value"], row["chosen_error"]) == ("b", 0.5, 0.2)
    assert (row["rejected"], row["rejected_value"], row["rejected_error"]) == ("a", -0.5, 0.1)
    assert (row["source"], row["trace"]) == ("turns", "t#1")


def test_the_same_words_in_other_tokens_are_no_pair():
    again = turn("solver", "a", completion_ids=np.array([7, 8], np.int32))
    assert rows("pairs", [played(turn("solver", "a")), played(again, sample=1)], [[1.0], [0.0]]) == []


def test_a_shared_turn_is_one_row_with_the_mean_of_its_values():
    root = turn("solver", "a")
    leaves = [played(root, turn("critic", word, 2), sample=f"0.{i}") for i, word in enumerate("bc")]
    found = rows("rl", leaves, [[1.0, 1.0], [0.0, 0.0]], errors=[[0.2, 0.1], [0.4, 0.3]])
    assert words(found, "completion", "value", "error") == [
        ("a", 0.5, pytest.approx(0.3)),
        ("b", 1, 0.1),
        ("c", 0, 0.3),
    ]


def again(text, score, repeat=0, trace=0, keep=0, **more):
    asked = replace(Replay(trace, (), repeat, keep, "next"), **more)
    return {asked: Outcome(score, "", 1, 1, (), text)}


def test_turns_that_replays_sampled_again_make_pairs_by_what_came_of_them():
    graded = [played(turn("solver", "a"), turn("critic", "b", 2), score=0.0)]
    found = {**again("x", 1.0), **again("x", 0.0, 1), **again("a", 0.0, 2), **again("y", 0.25, 3)}
    found[Consult("who?")] = Said("nobody", 1)
    made = rows("pairs", graded, [[0.0, 0.0]], {"t": found})
    columns = ("chosen", "rejected", "chosen_value", "rejected_value", "chosen_error", "source")
    assert words(made, *columns) == [("x", "a", 0.5, 0.0, pytest.approx(0.5), "replays")]
    assert rows("pairs", graded, [[0.0, 0.0]], {"t": found}, margin=0.6) == []
    assert rows("pairs", graded, [[0.0, 0.0]], {"u": found}) == []  # another task's


@pytest.mark.parametrize("more", [{"fresh": "rest"}, {"fresh": ""}, {"absent": (("critic", "null"),)}])
def test_other_replays_say_nothing_of_a_turn(more):
    assert rows("pairs", ONE, [[0.0] * 3], {"t": again("x", 0.0, **more)}) == []
    assert len(rows("pairs", ONE, [[0.0] * 3], {"t": again("x", 0.0)})) == 1


def test_a_pair_of_turns_is_not_given_twice():
    graded = [played(turn("solver", "a"), score=0.0), played(turn("solver", "x"), score=1.0, sample=1)]
    made = rows("pairs", graded, [[-1.0], [1.0]], {"t": again("x", 1.0)})
    assert words(made, "chosen", "rejected", "source") == [("x", "a", "turns")]


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), max_size=9), st.floats(0, 1))
def test_each_alternative_is_in_one_pair_and_the_better_is_better(values, margin):
    matched = best_against_worst(values, margin)
    places = [place for pair in matched for place in pair]
    assert len(set(places)) == len(places) <= len(values)
    assert all(values[better] - values[worse] >= max(margin, 1e-9) - 1e-8 for better, worse in matched)
    assert all(values[better] > values[worse] for better, worse in matched)


def test_credit_that_is_no_number_is_refused():
    with pytest.raises(MeritError, match="'t#0': the credit nan is no number; assign credit again"):
        rows("sft", ONE, [[float("nan"), 0.0, 0.0]])


# the command


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    ended = run(folder, *SMALL, "rollout={tasks: 4, shards: 2, branching: {solver: 2, critic: 2}}", "name=small")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def read(folder: Path):
    return {f.stem: [json.loads(line) for line in f.read_text().splitlines()] for f in folder.glob("*.jsonl")}


def made(folder: Path, out: str, *words: str):
    ended = run(folder, "datasets", "small", "--out", out, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return read(folder / out)


@pytest.mark.parametrize("kind", LEAST)
def test_the_command_writes_each_agents_rows_and_a_card(finished, kind):
    found = made(finished, f"data/{kind}", "--kind", kind)
    assert "solver" in found and set(found) <= {"solver", "critic", "reviser", "verifier"}
    for agent, its in found.items():
        for row in its:
            assert tuple(row)[: len(LEAST[kind])] == LEAST[kind]
            assert (row["agent"], row["split"], row["round"]) == (agent, "train", 1) and "-train-" in row["task"]
    card = (finished / "data" / kind / "README.md").read_text()
    for fact in (
        "- run: small",
        "- splits: train",
        '"name": "shapley", "repeats": 2',
        f"| solver | {len(found['solver'])} |",
    ):
        assert fact in card
    assert not (finished / "data" / f"{kind}.part").exists()


def test_the_card_is_read_by_the_library_it_is_written_for(finished):
    library = pytest.importorskip("datasets")
    mine = made(finished, "data/library", "--kind", "kto")["solver"]
    loaded = library.load_dataset(str(finished / "data/library"), "solver", cache_dir=str(finished / "cache"))
    assert loaded["train"]["label"] == [row["label"] for row in mine]


def test_the_same_words_give_the_same_bytes_and_nothing_is_written_over(finished):
    made(finished, "twice", "--kind", "rl"), made(finished, "other", "--kind", "rl")
    files = {f.name: f.read_bytes() for f in (finished / "twice").iterdir()}
    assert files == {f.name: f.read_bytes() for f in (finished / "other").iterdir()}
    made(finished, "twice", "--kind", "rl")
    refused = run(finished, "datasets", "small", "--out", "twice", "--kind", "sft")
    assert refused.returncode == 2 and "something else is there already" in refused.stderr
    assert files == {f.name: f.read_bytes() for f in (finished / "twice").iterdir()}


def test_a_folder_that_is_in_use_is_refused_whatever_it_is_called(finished):
    (finished / "mine").mkdir(exist_ok=True)
    (finished / "mine" / "notes.txt").write_text("mine")
    for out in (".", "mine", "mine/../mine"):
        refused = run(finished, "datasets", "small", "--out", out)
        assert refused.returncode == 2 and "something else is there already" in refused.stderr, refused.stderr
    assert [f.name for f in (finished / "mine").iterdir()] == ["notes.txt"]


def test_a_run_without_credit_is_told(finished):
    (finished / "runs" / "games").mkdir()
    (finished / "runs" / "games" / "artifacts.json").write_text("[]")
    for name in ("config.yaml", "environment.json"):
        shutil.copy(finished / "runs" / "small" / name, finished / "runs" / "games" / name)
    with pytest.raises(MeritError, match="no play of this run; name one of post_train"):
        inspect_run.shards(finished / "runs" / "games", "all")
    shutil.rmtree(finished / "runs" / "games")


def test_one_agent_alone_and_tasks_that_were_never_trained_on(finished):
    assert set(made(finished, "one", "--kind", "rl", "--agent", "critic", "--when", "1")) == {"critic"}
    shown = made(finished, "after", "--kind", "rl", "--when", "after")
    assert {(row["split"], row["round"]) for its in shown.values() for row in its} == {("test", 0)}
    assert "- splits: test" in (finished / "after" / "README.md").read_text()


def test_a_training_round_on_other_tasks_than_those_of_train_is_refused(finished):
    (shown,) = inspect_run.shards(finished / "runs" / "small", "after")
    assert list(data_sets.rows(shown, shown.graded(), "rl", Rule()))
    with pytest.raises(MeritError, match="is of the split test, not train"):
        list(data_sets.rows(replace(shown, round=1), shown.graded(), "rl", Rule()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["small", "--kind", "dpo"], "--kind: there is no 'dpo' .known: sft, pairs, kto, rl"),
        (["small", "--agent", "critc"], "--agent: there is no 'critc'; did you mean 'critic'"),
        (["small", "--when", "2"], "--when: there is no '2' .known: before, after, 1"),
        (["smal"], "there is no 'smal'; did you mean 'small'"),
        (["small", "--threshold", "2"], "no rows of --kind sft: no turn is worth more than the threshold"),
    ],
)  # fmt: skip
def test_wrong_words_are_answered_and_leave_nothing(finished, words, message):
    ended = run(finished, "datasets", *words, "--out", "wrong")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert re.search(message, ended.stderr), ended.stderr
    assert not (finished / "wrong").exists() and not (finished / "wrong.part").exists()
