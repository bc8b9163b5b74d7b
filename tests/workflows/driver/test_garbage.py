"""What `store gc` takes, and what it leaves: everything that any run refers to, wherever its folder is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from apps import artifacts, dormant, packs
from tests.command import SMALL, run
from workflows.driver import garbage, references


def node(key: str, lineage: str = "") -> SimpleNamespace:
    return SimpleNamespace(stage=SimpleNamespace(name="rollout"), key=key, lineage=lineage)


@pytest.fixture
def root(tmp_path) -> Path:
    """A store with four results, two that were cut short, and what crashes leave behind."""
    store = tmp_path / "store"
    for name in ("aa1", "bb2", "cc3", "dd4"):
        with artifacts.new(store, "rollout", name, {}) as out:
            (out / "traces").write_bytes(b"x" * 1000)
    for place in ("partial/one/step-000001", "partial/two/step-000001", "damaged/rollout-ee5-0000"):
        (store / place).mkdir(parents=True)
        (store / place / "state").write_bytes(b"x" * 500)
    return store


def left(root: Path) -> set[str]:
    return {f.parent.name for f in root.glob("rollout/*/*/manifest.json")}


def test_what_runs_refer_to_stays_and_the_rest_goes(root, tmp_path):
    """One run in the folder that is asked, one elsewhere that the store remembers, one whose folder is gone."""
    for folder, key, lineage in (("runs/mine", "aa1", "one"), ("else/where", "bb2", ""), ("runs/gone", "cc3", "")):
        (tmp_path / folder).mkdir(parents=True)
        references.keep(root, tmp_path / folder, [node(key, lineage)])
    (tmp_path / "runs" / "gone" / references.PLAN).unlink()
    (tmp_path / "runs" / "gone").rmdir()
    found = garbage.clean(root, tmp_path / "runs", remove=False)
    assert {name: sorted(p.name for p in places) for name, places in found.places.items()} == {
        "rollout": ["cc3", "dd4"], "partial": ["two"], "damaged": ["rollout-ee5-0000"],
    }  # fmt: skip
    assert found.kept == 2 and found.bytes["partial"] == 500 and found.bytes["rollout"] > 2000
    assert left(root) == {"aa1", "bb2", "cc3", "dd4"}  # it only looked
    garbage.clean(root, tmp_path / "runs", remove=True)
    assert left(root) == {"aa1", "bb2"} and [p.name for p in (root / "partial").iterdir()] == ["one"]
    assert not any((root / "damaged").iterdir()) and not any((root / "tmp").iterdir())
    assert not garbage.clean(root, tmp_path / "runs", remove=True).places


def test_a_finished_run_of_an_older_version_is_asked_by_its_index_and_an_unfinished_one_is_told_of(root, tmp_path):
    for name in ("old", "older"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    index = [{"stage": "rollout", "key": "dd4", "round": 1, "inputs": {}}]
    (tmp_path / "runs" / "old" / references.INDEX).write_text(json.dumps(index))
    found = garbage.clean(root, tmp_path / "runs", remove=True)
    assert left(root) == {"dd4"} and [folder.name for folder in found.silent] == ["older"]


def test_a_pack_stays_while_a_run_refers_to_anything_in_it(root, tmp_path):
    """Also where what is wanted was woken; one that cannot be read stays too, since nobody knows what it holds."""
    places = {name: artifacts.locate(root, "rollout", name) for name in ("aa1", "bb2", "cc3", "dd4")}
    for pair in (("aa1", "bb2"), ("cc3", "dd4")):
        dormant.remove(dormant.take_down(root, dormant.pack(root, [places[name] for name in pair])))
    dormant.folder(places["aa1"])
    (root / packs.FOLDER / "spoilt.zip").write_bytes(b"PK")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    references.keep(root, tmp_path / "runs" / "mine", [node("aa1"), node("bb2")])
    wanted, other, spoilt = packs.every(root)
    size = other.stat().st_size
    found = garbage.clean(root, tmp_path / "runs", remove=True)
    assert found.places["packed"] == [other] and found.bytes["packed"] == size and found.kept == 2
    assert list(packs.every(root)) == [wanted, spoilt]
    assert dormant.whole(places["bb2"]) and not dormant.holds(places["cc3"]) and left(root) == {"aa1"}
    assert not any((root / "tmp").iterdir())


def test_drafts_go_where_nobody_writes_them_any_more(root):
    host = socket.gethostname()
    for name in (f"a.{host}.{os.getpid()}.1", f"b.{host}.999999999.2", "c.elsewhere.1.3", "d.else.where.net.1.4"):
        (root / "tmp" / name).mkdir()
    (root / "tmp" / "d.else.where.net.1.4" / "file").touch()
    yesterday = time.time() - garbage.SILENT_S - 60
    for path in (root / "tmp" / "d.else.where.net.1.4" / "file", root / "tmp" / "d.else.where.net.1.4"):
        os.utime(path, (yesterday, yesterday))
    found = garbage.look(root, root.parent / "runs")
    assert [place.name for place in found.places["tmp"]] == [f"b.{host}.999999999.2", "d.else.where.net.1.4"]


def test_a_run_that_begins_waits_for_a_clean_up_and_is_seen_by_the_next(root, tmp_path):
    (tmp_path / "runs" / "late").mkdir(parents=True)
    began = threading.Thread(target=references.keep, args=(root, tmp_path / "runs" / "late", [node("aa1")]))
    with references.locked(root, fcntl.LOCK_EX):
        began.start()
        began.join(0.3)
        assert began.is_alive() and not (tmp_path / "runs" / "late" / references.PLAN).exists()
    began.join(10)
    garbage.clean(root, tmp_path / "runs", remove=True)
    assert left(root) == {"aa1"}


@pytest.mark.slow
def test_the_command_says_what_goes_and_removes_it_when_told_to(tmp_path):
    """A run whose folder is removed frees what no other has; the other still finds all of its own."""
    for name in ("one", "two"):
        assert (
            run(tmp_path, *SMALL, f"name={name}", f"credit.name={'uniform' if name == 'one' else 'local'}").returncode
            == 0
        )
    assert "kept: " in (told := run(tmp_path, "store", "gc").stdout) and "Nothing" not in told
    for file in sorted((tmp_path / "runs" / "one").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (tmp_path / "runs" / "one").rmdir()
    said = run(tmp_path, "store", "gc").stdout
    assert "assign" in said and "report" in said and "rollout" not in said and "Nothing was removed" in said
    done = run(tmp_path, "store", "gc", "--yes")
    assert done.returncode == 0 and "Nothing" not in done.stdout
    assert run(tmp_path, *SMALL, "name=two", "credit.name=local", "--dry-run").stdout.split()[-1] != "0"
    counted = [
        line.split() for line in run(tmp_path, *SMALL, "name=two", "credit.name=local", "--dry-run").stdout.splitlines()
    ]
    assert counted[-1][1] == counted[-1][2]  # nothing of it was taken
    missing = run(tmp_path, "store", "gc", "--store", "stroe")
    assert missing.returncode == 2 and "no file" in missing.stderr
