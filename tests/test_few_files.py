"""A run leaves few files, and nothing else is different for it: the real command, with packs and without."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apps import artifacts, dormant, packs
from tests.command import run
from workflows.driver import packing

ROUNDS = 6
WORDS = (  # some 210 tasks, of which 32 are a round's
    "engine.name=scripted", f"rounds={ROUNDS}", "name=mine",
    "tasks={name: arithmetic, train: 60, validation: 20, test: 20}",
    "rollout={tasks: 8, samples: 4, shards: 8}",
    "evaluation={tasks: 12, samples: 2, validation_tasks: 8, shown_tasks: 2, shards: 1}",
)  # fmt: skip
TIMES = ("seconds", "use")  # of a summary, that no two runs have in common

pytestmark = pytest.mark.slow


def done(folder: Path, *words: str) -> str:
    told = run(folder, *words)
    assert told.returncode == 0, told.stderr
    return told.stdout


def store(folder: Path) -> dict[str, int]:
    """The files of its store, and when they were written."""
    return {str(f): f.stat().st_mtime_ns for f in (folder / "store").rglob("*") if f.is_file() and f.name != ".lock"}


def summary(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "runs" / "mine" / "summary.json").read_text())
    return {name: value for name, value in found.items() if name not in TIMES}


def tasks(folder: Path) -> list[dict[str, Any]]:
    """What the run's sessions made."""
    return json.loads((folder / "runs" / "mine" / "work.json").read_text())["tasks"]


def file(folder: Path) -> Path:
    """A pack; what was free when the rounds were over may have gone into one, and the rest into another."""
    return packs.every(folder / "store")[0]


def copied(both: SimpleNamespace, name: str) -> Path:
    return shutil.copytree(both.packed, both.packed.parent / name, symlinks=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> SimpleNamespace:
    plain, packed = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("packed")
    done(plain, *WORDS, "pack=false")
    done(packed, *WORDS)
    return SimpleNamespace(plain=plain, packed=packed)


def test_a_round_leaves_few_files(both):
    """A pack or two hold all; what else is there are the store's own lists and locks."""
    assert len(store(both.plain)) > 3 * 200
    assert len(store(both.packed)) <= ROUNDS
    assert not list((both.packed / "store").glob("*/??/*/*"))
    assert len(tasks(both.packed)) == len(tasks(both.plain)) > packing.LEAST


def test_figures_and_keys_are_the_same(both):
    assert summary(both.packed) == summary(both.plain)
    index, other = (json.loads((f / "runs" / "mine" / "artifacts.json").read_text()) for f in (both.plain, both.packed))
    assert index == other


@pytest.mark.parametrize(
    "words", [("trace", "mine"), ("trace", "mine", "--when", "3"), ("why", "mine", ""), ("compare", "mine", "mine")]
)
def test_who_looks_sees_the_same_and_leaves_the_store_as_it_is(both, words):
    before = store(both.packed)
    assert done(both.packed, *words) == done(both.plain, *words) != ""
    assert store(both.packed) == before


def test_data_sets_are_the_same(both):
    before = store(both.packed)
    for folder in (both.plain, both.packed):
        done(folder, "datasets", "mine", "--out", "rows", "--kind", "rl")
    rows = [{f.name: f.read_bytes() for f in (folder / "rows").iterdir()} for folder in (both.plain, both.packed)]
    assert rows[0] == rows[1] and store(both.packed) == before


def test_a_prediction_reads_what_is_packed(both):
    before = store(both.packed)
    said = done(both.packed, "simulate", "--measured", "mine", "rounds=2")
    assert re.search(r"predicted +rounds=2: [\d.]+ s", said) and store(both.packed) == before


def test_run_again_it_makes_nothing(both):
    before, made = store(both.packed), tasks(both.packed)
    done(both.packed, *WORDS)
    done(both.packed, "--resume", "name=mine")
    assert tasks(both.packed) == made and summary(both.packed) == summary(both.plain)
    assert store(both.packed).keys() == before.keys()


def test_another_run_has_what_it_shares_woken_and_packed_again(both):
    """Other credit: rollouts and verdicts are those of the first run."""
    copy = copied(both, "another")
    done(copy, *WORDS[:2], "name=other", *WORDS[3:], "credit.name=local")
    index = json.loads((copy / "runs" / "other" / "artifacts.json").read_text())
    made = json.loads((copy / "runs" / "other" / "work.json").read_text())["tasks"]
    assert {task["stage"] for task in made} <= {"assign", "replay", "report"} and len(made) < len(index)
    held = {key for pack in packs.every(copy / "store") for keys in packs.read(pack).values() for key in keys}
    assert not held & {folder.name for folder in (copy / "store").glob("*/??/*")} and len(held) > packing.LEAST


def test_what_is_damaged_in_a_pack_is_made_again_and_nothing_else(both):
    copy = copied(both, "damaged")
    index, data = packs.read(file(copy)), bytearray(file(copy).read_bytes())
    key = min(index["grade"])
    begin, _ = index["grade"][key]
    data[begin + 200] ^= 1  # in its manifest
    file(copy).write_bytes(data)
    made, count = {task["key"] for task in tasks(copy)}, len(packs.every(copy / "store"))
    assert f"grade {key} is damaged in" in run(copy, *WORDS).stderr
    work = json.loads((copy / "runs" / "mine" / "work.json").read_text())
    assert {task["key"] for task in work["tasks"]} == made and len(work["sessions"]) == 1
    assert (
        dormant.whole(artifacts.locate(copy / "store", "grade", key)) and len(packs.every(copy / "store")) == count + 1
    )
    assert summary(copy) == summary(both.plain)


def test_a_clean_up_takes_packs_that_no_run_refers_to(both):
    copy = copied(both, "cleaned")
    for said in (copy / "store" / "used_by").iterdir():  # of the folder that this was copied from
        said.unlink()
    assert "kept: 210 results" in done(copy, "store", "gc")
    shutil.rmtree(copy / "runs" / "mine")
    (copy / "runs" / "latest").unlink()
    assert re.search(r"^packed +[12] +\d+\.\d MB$", done(copy, "store", "gc"), re.MULTILINE)
    done(copy, "store", "gc", "--yes")
    assert not packs.every(copy / "store") and "packed" not in done(copy, "store", "gc")
