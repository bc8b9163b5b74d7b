"""What is packed and woken again is the same in every byte; whatever ends the packing, nothing is lost; damage is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import artifacts, attempt, dormant, packs, stages
from apps.platform import faults
from apps.records import Artifact
from workflows.store import Store

ROOT = Path(__file__).parents[1]
TREE = {"facts.json": b'{"n": 1}', "data.bin": bytes(range(256)), "sub/deep/one.txt": b"one", "empty": b""}
names = st.lists(st.text("ab.é ", min_size=1, max_size=3).filter(lambda n: n.strip(".") == n), min_size=1, max_size=3)
trees = st.dictionaries(names.map("/".join), st.binary(max_size=64), max_size=5).filter(
    lambda tree: (
        not any(other.startswith(f"{name}/") for name in tree for other in tree) and artifacts.MANIFEST not in tree
    )
)


def key(number: int) -> str:
    return f"{number:02d}" + "0" * 30


def write(root: Path, number: int = 0, tree: Mapping[str, bytes] = TREE) -> Path:
    with artifacts.new(root, "grade", key(number), {"options": {"number": number}}) as out:
        for name, data in tree.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
    return artifacts.locate(root, "grade", key(number))


def packed(root: Path, *places: Path) -> list[Path]:
    """Those that are dormant now."""
    done = dormant.pack(root, places)
    dormant.remove(dormant.take_down(root, done))
    return done


def files(path: Path) -> dict[str, bytes]:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def the_pack(root: Path) -> Path:
    (found,) = packs.every(root)
    return found


def spoil(file: Path, data: bytes) -> None:
    """Puts the file's last occurrence of these bytes into other ones."""
    before, found, after = file.read_bytes().rpartition(data)
    assert found
    file.write_bytes(before + bytes(byte ^ 1 for byte in found) + after)


@settings(deadline=None, max_examples=40)
@given(trees=st.lists(trees, min_size=1, max_size=4))
def test_what_is_woken_is_what_was_packed(tmp_path_factory, trees):
    root = tmp_path_factory.mktemp("store")
    places = [write(root, number, tree) for number, tree in enumerate(trees)]
    before = [files(place) for place in places]
    assert packed(root, *places) == places
    assert not any(place.exists() for place in places) and len(packs.every(root)) == 1
    for place, expected, tree in zip(places, before, trees, strict=True):
        assert dormant.whole(place) == expected
        assert dormant.manifest(place) == json.loads(expected[artifacts.MANIFEST])
        assert all(dormant.read(place, name) == data for name, data in tree.items())
        assert files(dormant.copied(place)) == expected and not place.exists()
        assert dormant.folder(place) == place and files(place) == expected
        assert artifacts.check(place, anew=True) is None
    assert os.listdir(root / "tmp") == []


def test_a_pack_is_a_zip_like_any_other(tmp_path):
    places = [write(tmp_path, number) for number in range(3)]
    expected = {f"grade/{place.name}/{name}": data for place in places for name, data in files(place).items()}
    packed(tmp_path, *places)
    with zipfile.ZipFile(the_pack(tmp_path)) as archive:
        assert archive.testzip() is None
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    assert found.pop(packs.INDEX) and found == expected


def test_a_full_pack_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "LIMIT", 3000)
    places = [write(tmp_path, number) for number in range(5)]
    assert packed(tmp_path, *places) == places
    assert len(packs.every(tmp_path)) > 1
    assert all(files(dormant.folder(place)).keys() == TREE.keys() | {artifacts.MANIFEST} for place in places)


def test_what_is_large_or_odd_stays_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(dormant, "LARGE", 1000)
    large, untold, hollow, damaged, plain = [
        write(tmp_path, number, {"file": bytes(2000 if number == 0 else 20)}) for number in range(5)
    ]
    (untold / "more").touch()
    (hollow / "nothing").mkdir()
    (damaged / "file").write_bytes(bytes(19) + b"x")
    missing = artifacts.locate(tmp_path, "grade", key(77))
    assert packed(tmp_path, large, untold, hollow, damaged, missing, plain) == [plain]
    assert all(place.is_dir() for place in (large, untold, hollow, damaged))


def test_it_stops_where_it_is_told_to(tmp_path):
    places, asked = [write(tmp_path, number) for number in range(4)], iter([True, True, False])
    assert dormant.pack(tmp_path, places, lambda: next(asked)) == places[:2]
    assert all(dormant.holds(place) for place in places[:2]) and not dormant.holds(places[2])


def test_what_was_woken_is_taken_down_again_without_another_pack(tmp_path):
    place = write(tmp_path)
    packed(tmp_path, place)
    dormant.folder(place)
    pack = the_pack(tmp_path)
    assert packed(tmp_path, place) == [place] and not place.exists() and the_pack(tmp_path) == pack


@settings(deadline=None, max_examples=150)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_pack_gives_no_wrong_byte(tmp_path_factory, position, bit):
    root = tmp_path_factory.mktemp("store")
    place = write(root)
    expected = files(place)
    packed(root, place)
    data = bytearray(the_pack(root).read_bytes())
    data[position % len(data)] ^= 1 << bit
    the_pack(root).write_bytes(data)
    packs.of.cache_clear()
    assert dormant.whole(place) in (None, expected)


@pytest.mark.parametrize("size", [0, 10, 300, -1, -30])
def test_a_pack_that_ends_too_early_counts_as_absent(tmp_path, size, caplog):
    place = write(tmp_path)
    packed(tmp_path, place)
    pack = the_pack(tmp_path)
    os.truncate(pack, size if size >= 0 else pack.stat().st_size + size)
    packs.of.cache_clear()
    assert dormant.whole(place) is None and "counts as absent" in caplog.text
    with pytest.raises(FileNotFoundError):
        dormant.read(place, "data.bin")


def test_a_damaged_member_counts_as_absent_and_is_made_again(tmp_path, caplog):
    """What lies beside it is still found, and the pack of what was made anew is asked first."""
    store, places = Store(tmp_path), [write(tmp_path, number) for number in range(2)]
    expected = files(places[1])
    packed(tmp_path, *places)
    assert all(store.find("grade", place.name) for place in places)
    spoil(the_pack(tmp_path), TREE["data.bin"])  # of the second, which comes last
    assert store.find("grade", places[0].name)
    assert store.find("grade", places[1].name) is None
    assert f"grade {places[1].name} is damaged in" in caplog.text
    write(tmp_path, 1)
    assert packed(tmp_path, places[1]) == [places[1]] and len(packs.every(tmp_path)) == 2
    assert store.find("grade", places[1].name) and dormant.whole(places[1]).keys() == expected.keys()


def test_a_damaged_folder_gives_place_to_what_its_pack_holds(tmp_path, caplog):
    store, place = Store(tmp_path), write(tmp_path)
    packed(tmp_path, place)
    dormant.folder(place)
    (place / "data.bin").write_bytes(b"")
    assert store.find("grade", place.name) and "moved to" in caplog.text
    assert files(dormant.folder(place))["data.bin"] == TREE["data.bin"]


def test_what_is_dormant_is_found_where_it_lies_and_stays_there(tmp_path):
    store, place = Store(tmp_path), write(tmp_path)
    packed(tmp_path, place)
    assert store.has("grade", place.name) and not store.has("rollout", place.name)
    found = store.find("grade", place.name)
    assert stages.facts_of(found) == {"n": 1} and not place.exists()


def test_a_store_wakes_what_it_found_in_packs(tmp_path):
    store, places = Store(tmp_path), [write(tmp_path, number) for number in range(3)]
    packed(tmp_path, *places[:2])
    found = [store.find("grade", place.name) for place in (places[0], places[2])]
    store.wake([*found, Artifact("grade", places[1].name, str(places[1]))])
    assert [place.is_dir() for place in places] == [True, False, True]


def test_a_pack_that_comes_while_a_process_looks_is_seen(tmp_path):
    """Also two within one tick of the file system's clock."""
    store = Store(tmp_path)
    for number in range(6):
        assert not store.has("grade", key(number))
        packed(tmp_path, write(tmp_path, number))
        assert store.has("grade", key(number))


def test_a_pack_that_was_removed_holds_nothing(tmp_path):
    store, place = Store(tmp_path), write(tmp_path)
    packed(tmp_path, place)
    assert store.has("grade", place.name)
    the_pack(tmp_path).unlink()
    assert store.find("grade", place.name) is None and not store.has("grade", place.name)


def test_a_task_has_its_inputs_woken_and_what_goes_meanwhile_is_lost_to_this_attempt(tmp_path):
    place = write(tmp_path)
    packed(tmp_path, place)
    with attempt.at_hand([Artifact("grade", place.name, str(place))], apart=False) as given:
        attempt.check_inputs(str(tmp_path), given)
        assert list(given.values()) == [place] and artifacts.check(place) is None
        packed(tmp_path, place)
        with pytest.raises(faults.LostInput, match="an input cannot be used"):
            attempt.check_inputs(str(tmp_path), given, FileNotFoundError("data.bin"))
    assert Store(tmp_path).find("grade", place.name) and not any((tmp_path / "damaged").iterdir())


def test_a_task_that_reads_a_whole_run_has_copies_that_go_with_it(tmp_path):
    places = [write(tmp_path, number) for number in range(2)]
    expected = files(places[0])
    packed(tmp_path, places[0])
    with attempt.at_hand([Artifact("grade", place.name, str(place)) for place in places], apart=True) as given:
        attempt.check_inputs(str(tmp_path), given)
        copy, folder = given.values()
        assert folder == places[1] and files(copy) == expected and copy.name == places[0].name
    assert not copy.exists() and not places[0].exists() and folder.is_dir()


KILLED = """
import os, shutil, signal, sys, zipfile
from pathlib import Path
from apps import artifacts, dormant
root, moment = Path(sys.argv[1]), int(sys.argv[2])
places, count = [artifacts.locate(root, "grade", f"{n:02d}" + "0" * 30) for n in range(4)], 0

def counted(function):
    def call(*given, **named):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return call

for owner, names in ((os, ("mkdir", "rename", "fsync", "unlink", "rmdir")), (zipfile.ZipFile, ("writestr", "close"))):
    for name in names:
        setattr(owner, name, counted(getattr(owner, name)))
dormant.remove(dormant.take_down(root, dormant.pack(root, places)))
print(count)
"""


def killed(root: Path, moment: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(root), str(moment)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_packing_process_that_is_killed_loses_nothing(tmp_path):
    """At each of its steps: directories made, members written, the flush, the renames, what is removed."""
    places = [write(tmp_path / "whole", number) for number in range(4)]
    steps = int(killed(tmp_path / "whole", 0).stdout)
    assert steps > 30 and not any(place.exists() for place in places)
    for moment in range(1, steps + 1, 2):
        root = tmp_path / str(moment)
        places = [write(root, number) for number in range(4)]
        expected = [files(place) for place in places]
        assert killed(root, moment).returncode == -9, moment
        store = Store(root)  # which removes what the dead have left
        assert os.listdir(root / "tmp") == [], moment
        assert all(store.find("grade", place.name) for place in places), moment
        assert [files(dormant.folder(place)) for place in places] == expected, moment
        assert packed(root, *places) == places, moment


WAKE = """
import sys
from pathlib import Path
from apps import artifacts, dormant
places = [Path(name) for name in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.readline()
assert all(artifacts.check(dormant.folder(place)) is None for place in places)
"""


def test_two_processes_wake_the_same_at_the_same_time(tmp_path):
    places = [write(tmp_path, number) for number in range(30)]
    expected = [files(place) for place in places]
    packed(tmp_path, *places)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", WAKE, *map(str, places)], cwd=ROOT, text=True, **pipes)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert [files(place) for place in places] == expected
    assert os.listdir(tmp_path / "tmp") == [] and not (tmp_path / "damaged").exists()
