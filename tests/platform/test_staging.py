"""What is copied arrives as it was, whole or not at all, and is read once: by one process, and by ranks of a real MPI."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import artifacts, stages
from apps.platform import copies, nearby, unpacking
from apps.platform.copies import Unreadable
from apps.records import MeritError
from tests import command

MPIEXEC = str(Path(sys.executable).parent / "mpiexec")
CONTENTS = st.dictionaries(
    st.lists(st.text("abcd.-", min_size=1, max_size=3).filter(lambda word: word.strip(".")), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda name: not name.startswith("/")),
    st.binary(max_size=70),
    min_size=1,
    max_size=6,
)


def source(folder: Path, sizes: dict[str, int], seed: int = 0) -> Path:
    """A folder with files of such sizes, of random bytes."""
    rng = random.Random(seed)
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(size))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def unread(folder: Path) -> None:
    """From here on reading any file of the folder fails, even as root, though their sizes and times are to be seen."""
    for file in folder.rglob("*"):
        if file.is_file():
            times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
            file.write_bytes(
                bytes(file.stat().st_size)
            )  # the same file, of other contents: who read it would be found out
            os.utime(file, ns=times)


# one process


@settings(max_examples=60, deadline=None)
@given(CONTENTS, st.integers(1, 80))
def test_any_bytes_arrive_the_same_in_pieces_of_any_size(tmp_path_factory, files, chunk):
    folder = tmp_path_factory.mktemp("staging")
    place = folder / "source"
    wanted = {}
    for name, written in files.items():
        if not any((place / parent).is_file() for parent in Path(name).parents) and not (place / name).is_dir():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(written)
            wanted[name] = written
    digest, fault = copies.write(copies.listing(place), folder / "target", copies.reading(folder), chunk)
    assert fault is None and contents(folder / "target" / digest / "source") == wanted
    assert copies.damage(folder / "target" / digest) is None
    assert digest == copies.write(copies.listing(place), None, copies.reading(folder), chunk + 1)[0]
    assert not any((folder / "target" / "tmp").iterdir())


def test_a_copy_is_named_by_contents_and_names_and_keeps_what_may_be_run(tmp_path):
    one = source(tmp_path / "one" / "model", {"a": 10, "b/c": 0})
    (one / "a").chmod(0o755)
    shutil.copytree(one, tmp_path / "two" / "model")
    shutil.copytree(one, tmp_path / "three" / "other")
    made = [copies.copy(tmp_path / name, tmp_path / "target") for name in ("one/model", "two/model", "three/other")]
    assert made[0].path == made[1].path != made[2].path and made[2].path.name == "other"
    assert os.access(made[0].path / "a", os.X_OK) and not os.access(made[0].path / "b" / "c", os.X_OK)
    (manifest,) = [json.loads((copy.path.parent / "manifest.json").read_text()) for copy in made[:1]]
    assert manifest["files"]["model/a"]["sha256"] == hashlib.sha256((one / "a").read_bytes()).hexdigest()


def test_a_single_file_is_copied_too_and_a_link_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "blob")
    assert copies.copy(tmp_path / "blob", tmp_path / "t").path.read_bytes() == b"weights"
    assert not (copies.copy(tmp_path / "model", tmp_path / "t").path / "link").is_symlink()


def test_a_copy_that_is_there_is_not_read_again(tmp_path):
    model = source(tmp_path / "model", {"a": 1000, "b": 0})
    before = contents(model)
    assert copies.copy(model, tmp_path / "t").made
    unread(model)
    second = copies.copy(model, tmp_path / "t")
    assert not second.made and contents(second.path) == before


def test_a_source_that_has_changed_is_read_again(tmp_path):
    model = source(tmp_path / "model", {"a": 1000})
    first = copies.copy(model, tmp_path / "t").path
    source(tmp_path / "model", {"a": 1000}, seed=1)
    second = copies.copy(model, tmp_path / "t")
    assert second.made and second.path != first and contents(second.path) == contents(model) != contents(first)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone", "manifest", "stamp"])
def test_a_copy_that_is_not_whole_is_made_again(tmp_path, harm):
    model = source(tmp_path / "model", {"a": 1000, "b": 10})
    path = copies.copy(model, tmp_path / "t").path
    file = path.parent / "manifest.json" if harm == "manifest" else path / "a"
    if harm == "truncated":
        os.truncate(file, 999)
    elif harm == "gone":
        file.unlink()
    elif harm == "stamp":
        shutil.rmtree(tmp_path / "t" / "stamps")
    else:
        spoilt = bytearray(file.read_bytes())
        spoilt[len(spoilt) // 2] ^= 1
        file.write_bytes(spoilt)
    again = copies.copy(model, tmp_path / "t")
    assert again.made and again.path == path and contents(path) == contents(model)
    assert not copies.copy(model, tmp_path / "t").made and not any((tmp_path / "t" / "tmp").iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    model = source(tmp_path / "model", {"a": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 500))
    with pytest.raises(MeritError, match=r"/t on \S+ has 0 MB free, a copy of model takes 17 MB; nothing was written"):
        copies.copy(model, tmp_path / "t")
    assert not list((tmp_path / "t").glob("*/*/*")) and not (tmp_path / "t" / "tmp").exists()


@pytest.mark.parametrize("given, said", [("nowhere", "there is no file or folder"), ("empty", "has no files")])
def test_a_source_that_is_none_is_told(tmp_path, given, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unreadable, match=said):
        copies.copy(tmp_path / given, tmp_path / "t")


def test_a_source_that_shrinks_while_it_is_read_leaves_nothing(tmp_path):
    model = source(tmp_path / "model", {"a": 100})
    files = copies.listing(model)
    os.truncate(model / "a", 50)
    with pytest.raises(Unreadable, match="became shorter while it was read"):
        copies.write(files, tmp_path / "t", copies.reading(tmp_path))
    assert not contents(tmp_path / "t")


# an environment


def archive(folder: Path) -> Path:
    """Like a virtual environment: files, a program, a link out of it, an empty folder."""
    env = source(folder / "env", {"lib/a.py": 3000, "lib/b.py": 0, "bin/run": 20})
    (env / "bin" / "run").chmod(0o755)
    (env / "bin" / "python").symlink_to("/usr/bin/python3")
    (env / "include").mkdir()
    with tarfile.open(folder / "env.tar", "w") as tar:
        tar.add(env, ".")
    return folder / "env.tar"


def test_an_archive_is_unpacked_once_and_again_where_the_tree_is_not_whole(tmp_path):
    copy = copies.copy(archive(tmp_path), tmp_path / "t")
    tree, made = unpacking.unpack(copy.path, tmp_path / "t")
    assert made and contents(tree) == contents(tmp_path / "env") and (tree / "include").is_dir()
    assert os.readlink(tree / "bin" / "python") == "/usr/bin/python3" and os.access(tree / "bin" / "run", os.X_OK)
    (tree / "lib" / "__pycache__").mkdir()  # Python's own, which does no harm
    assert unpacking.unpack(copy.path, tmp_path / "t") == (tree, False)
    for harm in (lambda f: f.unlink(), lambda f: f.write_bytes(b"x" * 3000), lambda f: os.truncate(f, 9)):
        harm(tree / "lib" / "a.py")
        assert unpacking.unpack(copy.path, tmp_path / "t") == (tree, True)
        assert contents(tree) == contents(tmp_path / "env")
    assert not any((tmp_path / "t" / "tmp").iterdir())


def test_what_is_no_archive_is_told(tmp_path):
    (tmp_path / "env.tar").write_bytes(b"no tar")
    copy = copies.copy(tmp_path / "env.tar", tmp_path / "t")
    with pytest.raises(MeritError, match="is no archive that can be unpacked .* a tar is expected"):
        unpacking.unpack(copy.path, tmp_path / "t")


# where tasks look


def test_a_task_takes_the_copy_where_its_node_has_a_whole_one(tmp_path):
    model, judge = source(tmp_path / "model", {"a": 9}), source(tmp_path / "judge", {"a": 8})
    machine = {"model": str(model), "places": {"d": str(judge)}, "threads": 3, "staging": str(tmp_path / "t")}
    copy = copies.copy(model, tmp_path / "t").path
    assert nearby.models(machine) == {**machine, "model": str(copy)}
    assert copy.name == "model"  # what an adapter says of its base stays the same
    nearby._copy.cache_clear()
    os.truncate(copy / "a", 8)
    assert nearby.models(machine) == machine
    assert nearby.models({"model": "", "staging": ""}) == {"model": "", "staging": ""}


def look(out: Path, inputs: dict, options: dict) -> dict:
    """A stage that says what it was told."""
    return {"model": options["model"]}


train = look  # the stage whose ranks look themselves


@pytest.mark.parametrize("stage", ["look", "train"])
def test_a_stage_is_told_of_the_copy_wherever_it_runs_and_its_key_is_the_same(tmp_path, stage):
    model = source(tmp_path / "model", {"a": 9})
    copy = copies.copy(model, tmp_path / "t").path
    machine = {"model": str(model), "staging": str(tmp_path / "t")}
    made = stages.execute(
        stage=stage, key="ab" * 16, module="tests.platform.test_staging", root=str(tmp_path / "store"),
        options={}, machine=machine, given={}, pool="",
    )  # fmt: skip
    assert stages.facts_of(made)["model"] == str(copy if stage == "look" else model)
    assert str(copy) not in (Path(made.path) / "manifest.json").read_text()


def test_an_adapter_that_cannot_be_copied_is_read_in_place(tmp_path, caplog):
    adapter = source(tmp_path / "solver", {"weights": 10, "optimiser.safetensors": 20})
    assert contents(nearby.folder(adapter, tmp_path / "t", ("optimiser.safetensors",))).keys() == {"weights"}
    (tmp_path / "file").touch()
    assert nearby.folder(adapter, tmp_path / "file") == adapter and "is read in place" in caplog.text


READER = "import sys; from pathlib import Path; from apps.platform import copies; " \
    "print(copies.copy(Path(sys.argv[1]), Path(sys.argv[2])).made)"  # fmt: skip


def test_of_several_processes_that_want_a_copy_one_makes_it(tmp_path):
    model = source(tmp_path / "model", {"a": 3_000_000})
    words = [sys.executable, "-c", READER, str(model), str(tmp_path / "t")]
    started = [subprocess.Popen(words, cwd=command.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(one.communicate(timeout=100)[0].strip() for one in started) == ["False", "False", "True"]


# ranks


def staged(
    ranks: int, *words: object, status: int = 0, given: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The entry point with so many ranks; one is started without MPI."""
    python = [sys.executable, *(("-m", "mpi4py") if ranks > 1 else ()), "-m", "apps.platform.staging"]
    launched = [*given, *((MPIEXEC, "-n", str(ranks)) if ranks > 1 else ()), *python, *map(str, words)]
    ended = subprocess.run(launched, cwd=command.ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3])
def test_every_rank_with_a_place_of_its_own_gets_the_same_and_the_second_time_nothing_is_read(tmp_path, ranks):
    model = source(tmp_path / "model", {"a.safetensors": 40_000_000, "b/config.json": 11, "empty": 0})
    before = contents(model)
    words = (model, tmp_path / "{rank}", "--name", "model", "--out", tmp_path / "verdicts.json")
    assert f"{ranks} copied" in staged(ranks, *words).stdout
    for rank in range(ranks):
        assert contents(tmp_path / str(rank) / "model") == before
    unread(model)
    assert f"{ranks} there" in staged(ranks, *words).stdout
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())
    assert [verdict["state"] for verdict in verdicts] == ["there"] * ranks
    assert {verdict["bytes"] for verdict in verdicts} == {sum(map(len, before.values()))}


@pytest.mark.slow
def test_ranks_of_one_place_leave_it_to_one_of_them_and_a_spec_names_several_sources(tmp_path):
    (tmp_path / "tar").mkdir()
    model, env = source(tmp_path / "model", {"a": 5}), archive(tmp_path / "tar")
    (tmp_path / "spec.yaml").write_text(
        f"- {{source: {model}, target: {tmp_path}/t}}\n- {{source: {env}, target: {tmp_path}/t, unpack: true, name: env}}\n"
    )
    assert staged(2, tmp_path / "spec.yaml").stdout.endswith("2 copied\n")
    assert contents(tmp_path / "t" / "env") == contents(tmp_path / "tar" / "env")
    assert staged(2, tmp_path / "spec.yaml").stdout.endswith("2 there\n")


@pytest.mark.slow
def test_a_node_that_lost_its_copy_gets_it_from_another_and_not_from_the_source(tmp_path):
    model = source(tmp_path / "model", {"a": 5_000_000})
    before = contents(model)
    staged(3, model, tmp_path / "{rank}", "--name", "model")
    unread(model)
    shutil.rmtree(tmp_path / "0")
    file = next((tmp_path / "1").glob("*/model/a"))
    file.write_bytes(bytes(5_000_000))  # as long as it was
    assert "2 copied, 1 there" in staged(3, model, tmp_path / "{rank}", "--name", "model").stdout
    assert all(contents(tmp_path / str(rank) / "model") == before for rank in range(3))


@pytest.mark.slow
def test_a_node_without_a_place_is_told_and_the_others_have_theirs(tmp_path):
    model = source(tmp_path / "model", {"a": 1000})
    (tmp_path / "0").touch()  # no folder can be made there
    ended = staged(3, model, tmp_path / "{rank}", "--out", tmp_path / "verdicts.json", status=1)
    assert "failed: " in ended.stdout and "2 copied, 1 failed" in ended.stdout
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())
    assert [verdict["state"] for verdict in verdicts] == ["failed", "copied", "copied"]
    assert contents(Path(verdicts[1]["path"])) == contents(model)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_wrong_input_ends_all_ranks_at_once(tmp_path, ranks):
    assert (
        "error: staging: there is no file or folder" in staged(ranks, tmp_path / "no", tmp_path / "t", status=2).stderr
    )
    assert "this is to be a SPEC" in staged(ranks, tmp_path / "no", status=2).stderr


@pytest.mark.slow
def test_a_disk_that_fails_in_the_middle_holds_nobody_up(tmp_path):
    """The second rank may write no file of more than 64 MB (MPI's own are smaller), where the disk seems to have room."""
    model = source(tmp_path / "model", {"a": 100, "b": 100})
    os.truncate(model / "a", 80_000_000)
    words = [sys.executable, "-m", "mpi4py", "-m", "apps.platform.staging", str(model), str(tmp_path / "{rank}")]
    limited = ["bash", "-c", 'ulimit -f 65536; exec "$@"', "limited", *words]
    line = [MPIEXEC, "-n", "1", *words, ":", "-n", "1", *limited, ":", "-n", "1", *words]
    ended = subprocess.run(line, cwd=command.ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1 and "2 copied, 1 failed" in ended.stdout, ended.stdout + ended.stderr
    assert re.search(r"failed: staging: \S+/1 cannot be written to: .*File too large", ended.stdout)
    assert not contents(tmp_path / "1") and not any((tmp_path / "1" / "tmp").iterdir())


def ranks_of(place: Path) -> list[int]:
    """The processes whose command line names a place."""
    files = [file for file in Path("/proc").glob("[0-9]*/cmdline") if file.parent.name != str(os.getpid())]
    return [int(file.parent.name) for file in files if str(place).encode() in _bytes(file)]


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
@pytest.mark.parametrize("whom", ["all", pytest.param("one", marks=pytest.mark.slow)])
def test_what_was_killed_in_the_middle_is_not_taken_for_whole(tmp_path, whom):
    model = source(tmp_path / "model", {"a": 1000, "b": 0})
    with open(model / "b", "wb") as file:
        file.truncate(600_000_000)  # of zeros, which take no room here
    words = (str(model), str(tmp_path / "{rank}"))
    line = [MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-m", "apps.platform.staging", *words]
    started = subprocess.Popen(line, cwd=command.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not all(any((tmp_path / rank / "tmp").glob("*/model/b")) for rank in "01"):
        assert started.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    ranks = ranks_of(tmp_path)
    for pid in ranks if whom == "all" else ranks[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert started.wait(30) != 0
    while any(artifacts.alive(pid) for pid in ranks):  # what a living process writes is left to it
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not list(tmp_path.glob("[01]/*/manifest.json")) and not list(tmp_path.glob("[01]/stamps/*"))
    os.truncate(model / "b", 10)  # a smaller one does for the rest
    assert "2 copied" in staged(2, *words).stdout
    assert not list(tmp_path.glob("[01]/tmp/*"))
    assert all(contents(copy) == contents(model) for copy in tmp_path.glob("[01]/*/model"))
    assert len(list(tmp_path.glob("[01]/*/model"))) == 2


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A disk of 24 MB, at `tmp_path`/1."""
    place = tmp_path / "1"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_node_whose_disk_is_too_small_is_told_and_nothing_is_written_there(tmp_path, tiny_disk):
    model = source(tmp_path / "model", {"a": 12_000_000})
    ended = staged(2, model, tmp_path / "{rank}", status=1)
    assert re.search(r"/1 on \S+ has \d\d MB free, a copy of model takes 29 MB; nothing was written", ended.stdout)
    assert not any(tiny_disk.iterdir()) and "1 copied" in ended.stdout


# a run


@pytest.mark.slow
def test_a_run_with_copies_ends_in_the_adapters_of_one_without(tmp_path):
    """Its tasks read the model and the adapters from this node's folder; what comes of it, and under which keys, is the same."""
    from tests import test_kill
    from tests.checkout import Checkout

    made = Checkout(tmp_path / "checkout", (*test_kill.SETTINGS, "rounds=1", "credit={name: uniform}"))
    node = tmp_path / "node"
    assert "1 copied" in staged(1, made.folder / "model", node).stdout
    made.finish(tmp_path / "near", "--site-option", f"staging={node}")
    made.finish(tmp_path / "far")
    near, far = ({str(f.relative_to(run)): f.read_bytes() for f in (run / "runs").glob("small/adapters/*/*.safetensors")}
                 for run in (tmp_path / "near", tmp_path / "far"))  # fmt: skip
    assert near == far and len(near) == 8
    keys = [
        {f.parent.name for f in (run / "store").glob("*/??/*/manifest.json")}
        for run in (tmp_path / "near", tmp_path / "far")
    ]
    assert keys[0] == keys[1]
    adapters = {f.parent.name for f in node.glob("*/*/adapter_model.safetensors")}
    assert len(adapters) == 4 and not list(node.glob("*/*/optimiser.safetensors"))
