"""Files and splits."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError, Task
from apps.tasks import jsonl, source


def made(question: str, answer: str = "1") -> Task:
    return Task(source.identify("t", question), question, answer, "t", "train")


questions = st.lists(st.text("abc", max_size=3), max_size=30)


@given(st.dictionaries(st.sampled_from([*source.SPLITS, source.POOL]), questions, min_size=1), st.booleans())
def test_splits_never_share_a_question_whatever_is_given(texts, carve):
    given = {name: [made(text) for text in part] for name, part in texts.items()}
    parts = []
    for split in source.SPLITS:
        try:
            parts.append({task.question for task in source.divide(given, split, carve, "t")})
        except MeritError:
            parts.append(set())
    train, validation, test = parts
    assert not train & validation and not train & test and not validation & test
    if carve and len(given) == 1:
        assert train | validation | test == {text for part in texts.values() for text in part}
    if "test" in given and len(given) > 1:
        assert test == set(texts["test"])


def test_a_tenth_of_train_is_validation_and_stays_so_when_train_grows():
    small, large = ({"train": [made(str(n)) for n in range(size)]} for size in (500, 1000))
    before, after = (source.divide(given, "validation", False, "t") for given in (small, large))
    assert 30 < len(before) < 70
    assert {task.id for task in before} <= {task.id for task in after}


def test_without_test_answers_validation_serves_as_test_on_request():
    given = {"train": [made(str(n)) for n in range(100)], "validation": [made("v")]}
    with pytest.raises(MeritError, match="no test tasks, only train, validation; tasks.carve=true"):
        source.divide(given, "test", False, "t")
    assert [task.question for task in source.divide(given, "test", True, "t")] == ["v"]
    assert len(source.divide(given, "validation", True, "t")) + len(source.divide(given, "train", True, "t")) == 100


ROWS = [{"prompt": f"{n} + 1?", "target": str(n + 1)} for n in range(40)]
FIELDS = jsonl.Fields(question="prompt", answer="target")


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("ending", source.ENDINGS)
def test_every_kind_of_file_gives_the_same_tasks(tmp_path, ending):
    write(tmp_path / f"test-00000-of-00001{ending}", ROWS)
    tasks = jsonl.load("test", jsonl.Options(path=str(tmp_path), fields=FIELDS))
    assert {(task.question, task.answer) for task in tasks} == {(row["prompt"], row["target"]) for row in ROWS}
    assert [task.id for task in tasks] == sorted(source.identify("jsonl", row["prompt"]) for row in ROWS)


def test_the_order_of_rows_changes_nothing(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.jsonl", ROWS[::-1])
    a, b = (
        jsonl.load("train", jsonl.Options(path=str(tmp_path / name), fields=FIELDS, carve=True, limit=7))
        for name in ("a.jsonl", "b.jsonl")
    )
    assert a == b and len(a) == 7


def test_a_column_that_is_missing_is_answered_with_the_nearest(tmp_path):
    write(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(MeritError, match="no 'promt'; did you mean 'prompt'"):
        jsonl.load("test", jsonl.Options(path=str(tmp_path), fields=jsonl.Fields(question="promt", answer="target")))


def test_choices_and_verifier_of_own_rows(tmp_path):
    write(tmp_path / "test.json", [{"question": "Colour?", "answer": "blue", "among": ["red", "blue"], "hard": 2}])
    fields = jsonl.Fields(choices="among", level="hard")
    options = jsonl.Options(path=str(tmp_path), fields=fields, verifier="multiple_choice")
    (task,) = jsonl.load("test", options)
    assert (task.answer, task.choices, task.level, options.verifier) == ("B", ("red", "blue"), 2, "multiple_choice")
    assert jsonl.Options().verifier == jsonl.VERIFIER


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test.jsonl", '{"question": 1}\nnonsense', "test.jsonl: cannot be read: line 2"),
        ("test.json", '{"rows": []}', "expected a list of rows"),
        ("test.xml", "<a/>", "named train, validation or test"),
        ("questions.jsonl", "{}", "named train, validation or test"),
    ],
)
def test_faults_of_a_folder_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(MeritError, match=message):
        jsonl.load("test", jsonl.Options(path=str(tmp_path)))


def test_a_path_that_does_not_exist_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    with pytest.raises(MeritError, match="did you mean '.*gsm8k'"):
        jsonl.load("test", jsonl.Options(path=str(tmp_path / "gsm8")))


def test_without_network_the_message_names_the_remedy():
    pytest.importorskip("datasets")
    program = "from apps.tasks import gsm8k; gsm8k.load('test', gsm8k.Options(hub='merit/does-not-exist'))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "MeritError: gsm8k: 'merit/does-not-exist' could not be loaded" in done.stderr
    assert "tasks.path=FOLDER" in done.stderr
