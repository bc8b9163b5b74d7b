"""Every branch of Aurora's site, by the argument lists and environments that it comes to on hosts that are names here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from apps import stages
from apps.platform import mpi, slots
from apps.records import MeritError
from tests.site import here
from workflows import sites
from workflows.driver import live
from workflows.plan import Plan

AURORA = sites.FOLDER / "aurora"
CORES = "1-8:9-16:17-24:25-32:33-40:41-48:53-60:61-68:69-76:77-84:85-92:93-100"
TRAINING = {"CCL_OP_SYNC": "1", "CCL_ATL_SYNC_COLL": "1", "CCL_PROCESS_LAUNCHER": "pmix", "CCL_ATL_TRANSPORT": "mpi"}
TRAINING |= {"CCL_KVS_MODE": "mpi", "FI_CXI_DEFAULT_CQ_SIZE": "1048576", "FI_CXI_RX_MATCH_MODE": "hybrid"}
PLAYING = {"CCL_OP_SYNC": "0", "CCL_ATL_SYNC_COLL": "0", "CCL_PROCESS_LAUNCHER": "none"}
COMMON = {"TMPDIR": "/tmp", "HF_HUB_OFFLINE": "1", "FI_MR_CACHE_MONITOR": "userfaultfd"}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes this process one in a job on so many hosts, in a folder of its own."""

    def begin(count: int) -> Path:
        hosts = [f"x{number}" for number in range(1, count + 1)]
        for name, value in here.environment(tmp_path / "job", hosts).items():
            monkeypatch.setenv(name, value)
        for name in ("MERIT_VENV", "MERIT_NODEFILE", "CCL_KVS_MODE", "MERIT_HIERARCHY", "MERIT_FRAMEWORKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return begin


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.delenv("PBS_NODEFILE", raising=False)
    monkeypatch.delenv("MERIT_NODEFILE", raising=False)


def executors(folder: Path, **options) -> dict:
    site = sites.load("aurora", interface="lo", **options)
    return {e.label: e for e in site.parsl(folder / "runs" / "a" / "parsl", None).executors}


def hosts_of(folder: Path, role: str) -> list[str]:
    return (folder / "runs" / "a" / "parsl" / f"{role}.hosts").read_text().split()


def begun(executor, folder: Path, command: str) -> None:
    """Starts a block as Parsl does, with another command than its worker pool, and waits for its end."""
    scripts = folder / "scripts"
    scripts.mkdir(exist_ok=True)
    provider = executor.provider
    provider.script_dir = str(scripts)
    job = provider.submit(command, 1, f"parsl.{executor.label}.block-0")
    end = time.monotonic() + 60
    while not provider.status([job])[0].terminal and time.monotonic() < end:
        time.sleep(0.05)
    assert provider.status([job])[0].exit_code == 0, list(scripts.glob("*.err"))[-1].read_text()


def environment_of(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().split("\0") if "=" in line)


# what a block is started with


@pytest.mark.parametrize("frameworks", ["2025.3.1", "2026.1.0"])
@pytest.mark.parametrize("hierarchy", ["FLAT", "COMPOSITE"])
def test_each_playing_node_has_a_pool_of_workers_with_the_environment_of_inference(job, frameworks, hierarchy):
    folder = job(4)
    pools = executors(folder, frameworks=frameworks, hierarchy=hierarchy, training_nodes=1)
    begun(pools["inference"], folder, f"env -0 > {folder}/env.\\$PALS_RANKID")
    (call,) = map(json.loads, (folder / "job" / "mpiexec.jsonl").read_text().splitlines())
    assert call["hosts"] == ["x2", "x3", "x4"]
    assert call["words"][:6] == ["--cpu-bind", "none", "--ppn", "1", "-n", "3"]
    found = [environment_of(folder / f"env.{rank}") for rank in range(3)]
    assert sorted(env["PMI_HOSTNAME"] for env in found) == call["hosts"]
    for env in found:
        expected = {**PLAYING, **COMMON, "ZE_FLAT_DEVICE_HIERARCHY": hierarchy, "MERIT_FRAMEWORKS": frameworks}
        assert expected.items() <= env.items() and "CCL_KVS_MODE" not in env
        assert str(sites.FOLDER.parent) in env["PYTHONPATH"].split(":")
    assert (folder / "job" / "modules").read_text() == f"load frameworks/{frameworks}\n"
    assert not list(folder.glob("*.nodes")), "Parsl's hostfile belongs to its own folder"


def test_a_block_that_has_ended_starts_again_on_the_nodes_that_answer(job, monkeypatch):
    folder = job(4)
    monkeypatch.setenv("MERIT_MPIEXEC", str(folder / "job" / "mpiexec"))  # as env.sh tells the driver
    pool = executors(folder)["inference"]
    begun(pool, folder, "true")
    (folder / "job" / "down").write_text("x3\n")
    begun(pool, folder, f"env -0 > {folder}/env.\\$PALS_RANKID")
    *_, last = map(json.loads, (folder / "job" / "mpiexec.jsonl").read_text().splitlines())
    assert last["hosts"] == hosts_of(folder, "inference") == ["x2", "x4"]
    assert sorted(file.name for file in folder.glob("env.*")) == ["env.0", "env.1"]


@pytest.mark.parametrize("hierarchy", ["FLAT", "COMPOSITE"])
def test_training_has_a_worker_a_slot_on_the_first_node(job, hierarchy):
    folder = job(6)
    pools = executors(folder, hierarchy=hierarchy, training_nodes=4, slot_nodes=2)
    assert hosts_of(folder, "training") == ["x1"] and hosts_of(folder, "inference") == ["x5", "x6"]
    begun(pools["training"], folder, f"env -0 > {folder}/env")
    assert not (folder / "job" / "mpiexec.jsonl").exists()
    env = environment_of(folder / "env")
    assert {**TRAINING, **COMMON, "ZE_FLAT_DEVICE_HIERARCHY": hierarchy, "MERIT_CORES": CORES}.items() <= env.items()
    assert env["CCL_ALLREDUCE_SCALEOUT"] == "direct:0-1048576;rabenseifner:1048577-max"
    assert "MERIT_SLOTS" not in env, "the driver says which nodes a task has"
    assert pools["training"].max_workers_per_node == 2
    assert pools["training"].available_accelerators == (["0", "1"] if hierarchy == "FLAT" else ["0.0", "0.1"])


@pytest.mark.parametrize(
    ("ranks", "ppn", "cores"),
    [(24, "12", CORES), (12, "6", ":".join(CORES.split(":")[:6])), (2, "1", "1-8"), (3, "2", "1-8:9-16")],
)
def test_the_line_that_starts_ranks_names_the_workers_own_nodes_and_cores(job, monkeypatch, ranks, ppn, cores):
    folder = job(4)
    (folder / "slots").mkdir()
    (folder / "slots" / "1").write_text("x3\nx4\n")
    found = {"MERIT_SLOTS": str(folder / "slots"), "PARSL_WORKER_RANK": "1", "MERIT_CORES": CORES}
    for name, value in {**found, "MERIT_MPIEXEC": "/pals/mpiexec"}.items():
        monkeypatch.setenv(name, value)
    line = mpi.starter(sites.load("aurora", vni=False).launcher, ranks)
    placed = ["-n", str(ranks), "--ppn", ppn, "--hostfile", f"{folder}/slots/1", "--cpu-bind", f"list:{cores}"]
    assert line == ["/pals/mpiexec", *placed, "--envall", "--no-vni", "/bin/bash", str(AURORA / "rank.sh")]
    assert "--no-vni" not in sites.load("aurora").launcher


def test_more_ranks_than_a_slot_has_room_for_are_refused(tmp_path):
    (tmp_path / "0").write_text("x1\nx2\n")
    environment = {"MERIT_SLOTS": str(tmp_path), "PARSL_WORKER_RANK": "0", "MERIT_CORES": CORES}
    with pytest.raises(MeritError, match="training.ranks=25: .* at most 24 ranks"):
        slots.filled(["{ppn}"], 25, environment)
    with pytest.raises(MeritError, match="MERIT_SLOTS and PARSL_WORKER_RANK not set"):
        slots.filled(["{ppn}"], 25, {})
    assert slots.filled(["-n", "{ranks}"], 25, {}) == ["-n", "25"]


@pytest.mark.parametrize("ranks, refused", [(1, False), (24, False), (25, True)])
def test_that_is_told_before_anything_runs(outside, ranks, refused):
    node = Plan().add(stages.TRAIN, {}, agent="a", seed=1, objective={"name": "grpo"}, training={"ranks": ranks})
    with pytest.raises(MeritError, match="has room for 24 ranks") if refused else nullcontext():
        live.check_ranks([node], sites.load("aurora", slot_nodes=2, queue="debug"))


@pytest.mark.xdist_group("logs of ranks")
@pytest.mark.parametrize("hierarchy, masks", [("FLAT", ["0", "1", "2"]), ("COMPOSITE", ["0.0", "0.1", "1.0"])])
def test_a_rank_sees_its_own_tile_and_all_but_the_first_keep_their_output(tmp_path, hierarchy, masks):
    (tmp_path / "slot").write_text("x1\nx2\n")
    environment = {**os.environ, **here.environment(tmp_path / "job"), "ZE_FLAT_DEVICE_HIERARCHY": hierarchy}
    command = ["mpiexec", "-n", "6", "--ppn", "3", "--hostfile", str(tmp_path / "slot"), "--cpu-bind", "list:0:0:0"]
    said = f"env -0 > {tmp_path}/env.$PALS_RANKID; echo rank $PALS_RANKID"
    ended = subprocess.run(
        [*command, "--envall", "/bin/bash", str(AURORA / "rank.sh"), "sh", "-c", said],
        env=environment | {"ZE_AFFINITY_MASK": "7"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "rank 0\n" and ended.returncode == 0, ended.stderr
    assert [environment_of(tmp_path / f"env.{rank}")["ZE_AFFINITY_MASK"] for rank in range(6)] == masks * 2
    assert Path(f"/tmp/merit-{os.getuid()}/ranks/5.log").read_text() == "rank 5\n"


# the environment


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("driver", {"http_proxy": "http://proxy.alcf.anl.gov:3128"}),
        ("cpu", {}),
        ("inference", PLAYING),
        ("training", TRAINING),
    ],
)
def test_each_role_has_an_environment_of_its_own(tmp_path, role, expected):
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k} | here.environment(tmp_path)
    del environment["MERIT_HOST_SUFFIX"]
    told = subprocess.run(
        ["bash", "-c", f"source {AURORA}/env.sh {role} && env -0"], env=environment, capture_output=True, text=True
    ).stdout
    found = dict(line.split("=", 1) for line in told.split("\0") if "=" in line)
    suffix = {"MERIT_HOST_SUFFIX": ".hsn.cm.aurora.alcf.anl.gov", "HF_HOME": "/flare/datasets/model-weights"}
    assert {**expected, **COMMON, **suffix, "ZE_FLAT_DEVICE_HIERARCHY": "FLAT"}.items() <= found.items()
    assert found["MERIT_MPIEXEC"] == str(tmp_path / "mpiexec")
    assert (role in ("inference", "training")) == ("CCL_OP_SYNC" in found)


@pytest.mark.parametrize("fault", ["role", "module", "venv"])
def test_a_faulty_environment_ends_the_block(tmp_path, fault):
    environment = {**os.environ, **here.environment(tmp_path)}
    if fault == "module":
        (tmp_path / "modules.sh").write_text(
            "module() { echo 'Lmod has detected the following error' >&2; return 1; }\n"
        )
    if fault == "venv":
        environment["MERIT_VENV"] = "/no/such/venv"
    role = "trainig" if fault == "role" else "training"
    ended = subprocess.run(
        ["bash", "-c", f"source {AURORA}/env.sh {role} || exit 7"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 7
    assert {"role": "no role 'trainig' (known: driver,", "module": "Lmod", "venv": "/no/such/venv"}[
        fault
    ] in ended.stderr


def test_the_machines_own_mpiexec_is_taken_though_the_environment_brings_another(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    other = tmp_path / "venv" / "bin" / "mpiexec"
    other.write_text("#!/bin/sh\necho the other\n")
    other.chmod(0o755)
    (other.parent / "activate").write_text(f"export PATH={other.parent}:$PATH\n")
    environment = {**os.environ, **here.environment(tmp_path / "job"), "MERIT_VENV": str(tmp_path / "venv")}
    script = f"source {AURORA}/env.sh inference && mpiexec --hosts x1 -n 1 --ppn 1 echo this"
    assert subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True).stdout == "this\n"


def test_without_modules_it_goes_on_with_what_is_there(tmp_path):
    environment = {**os.environ, **here.environment(tmp_path), "BASH_ENV": ""}
    script = f"source {AURORA}/env.sh training && mpiexec --hosts x1 -n 1 --ppn 1 echo $CCL_OP_SYNC"
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert ended.stdout == "1\n" and "has no modules" in ended.stderr


# how many workers, pinned to what


@pytest.mark.parametrize(
    ("hierarchy", "tiles", "masks", "cores"),
    [
        ("FLAT", 1, [str(tile) for tile in range(12)], CORES.split(":")),
        ("COMPOSITE", 1, [f"{g}.{t}" for g in range(6) for t in range(2)], CORES.split(":")),
        (
            "FLAT",
            4,
            ["0,1,2,3", "4,5,6,7", "8,9,10,11"],
            ["1-8,9-16,17-24,25-32", "33-40,41-48,53-60,61-68", "69-76,77-84,85-92,93-100"],
        ),
        (
            "COMPOSITE",
            4,
            ["0.0,0.1,1.0,1.1", "2.0,2.1,3.0,3.1", "4.0,4.1,5.0,5.1"],
            ["1-8,9-16,17-24,25-32", "33-40,41-48,53-60,61-68", "69-76,77-84,85-92,93-100"],
        ),
        ("FLAT", 8, ["0,1,2,3,4,5,6,7"], ["1-8,9-16,17-24,25-32,33-40,41-48,53-60,61-68"]),
        ("COMPOSITE", 8, ["0.0,0.1,1.0,1.1,2.0,2.1,3.0,3.1"], ["1-8,9-16,17-24,25-32,33-40,41-48,53-60,61-68"]),
    ],
)
def test_a_worker_a_tile_or_group_of_tiles(job, hierarchy, tiles, masks, cores):
    found = executors(job(3), hierarchy=hierarchy, tensor_parallel=tiles)["inference"]
    assert found.available_accelerators == masks
    assert found.cpu_affinity == "list:" + ":".join(cores) and found.max_workers_per_node == len(masks)


def test_no_worker_is_bound_to_a_core_of_the_system_or_across_the_sockets():
    taken = [range(int(a), int(b) + 1) for a, b in (group.split("-") for group in CORES.split(":"))]
    assert not {0, 52} & {core for group in taken for core in group}
    assert all(group[-1] < 52 or group[0] > 52 for group in taken) and len(taken) == 12


def test_what_all_pools_have_alike(job):
    folder = job(3)
    site = sites.load("aurora", interface="lo")
    config = site.parsl(folder / "runs" / "a" / "parsl", None)
    pools = {executor.label: executor for executor in config.executors}
    assert set(pools) == set(sites.LABELS)
    for label in ("inference", "training", "cpu"):
        pool = pools[label]
        assert type(pool).__name__ == "HighThroughputExecutor" and pool.encrypted and pool.address == "127.0.0.1"
        assert pool.interchange_launch_cmd[:3] == ["setpriv", "--pdeathsig", "TERM"]
        assert pool.worker_logdir.startswith("/tmp/") and pool.heartbeat_period < pool.heartbeat_threshold
        assert (pool.provider.init_blocks, pool.provider.min_blocks, pool.provider.max_blocks) == (1, 1, 1)
    assert config.retries == 2 and config.strategy == "simple" and config.initialize_logging is False
    assert site.elsewhere and site.own_process and set(site.timeouts_s) == set(sites.LABELS)


def test_above_five_hundred_nodes_there_are_no_logs(job):
    for count, named in ((500, "bool"), (501, "NoopLogging")):
        folder = job(count)
        config = sites.load("aurora", interface="lo").parsl(folder / "p", None)
        assert type(config.initialize_logging).__name__ == named


def test_one_node_does_everything(job):
    folder = job(1)
    executors(folder)
    assert hosts_of(folder, "training") == hosts_of(folder, "inference") == hosts_of(folder, "cpu") == ["x1"]


def test_by_default_all_nodes_but_the_drivers_play_and_are_lent(job):
    folder = job(6)
    pools = executors(folder, slot_nodes=2)
    assert hosts_of(folder, "training") == ["x1"] and hosts_of(folder, "inference") == ["x2", "x3", "x4", "x5", "x6"]
    assert pools["training"].max_workers_per_node == 2, "five nodes may train, in slots of two"
    told = [pools[role].provider.worker_init.split() for role in ("inference", "training")]
    lends, borrows = (
        next(word for word in words if word.startswith("MERIT_" + what))
        for words, what in zip(told, ("LENDS", "BORROWS"), strict=True)
    )
    assert lends.partition("=")[2] == borrows.partition("=")[2]


def test_with_nodes_set_aside_none_is_lent(job):
    folder = job(6)
    pools = executors(folder, training_nodes=2)
    assert "MERIT_LENDS" not in pools["inference"].provider.worker_init


@pytest.mark.parametrize("frameworks", ["2025.3.1", "2026.1.0"])
def test_workers_load_what_their_job_has_loaded(job, monkeypatch, frameworks):
    folder = job(2)
    monkeypatch.setenv("MERIT_FRAMEWORKS", frameworks)
    assert f"export MERIT_FRAMEWORKS={frameworks}\n" in executors(folder)["inference"].provider.worker_init


def test_the_good_nodes_of_a_preflight_take_the_place_of_all(job, monkeypatch):
    folder = job(4)
    (folder / "good").write_text("x1\nx3\nx4\n")
    monkeypatch.setenv("MERIT_NODEFILE", str(folder / "good"))
    executors(folder)
    assert hosts_of(folder, "training") == ["x1"] and hosts_of(folder, "inference") == ["x3", "x4"]


# from a login node


@pytest.mark.parametrize("frameworks", ["2025.3.1", "2026.1.0"])
def test_from_a_login_node_blocks_are_jobs_of_their_own(outside, tmp_path, monkeypatch, frameworks):
    monkeypatch.chdir(tmp_path)
    options = {"account": "mine", "queue": "capacity", "walltime": "03:00:00", "nodes": 4, "blocks": 2}
    pools = executors(tmp_path, **options, training_nodes=2, slot_nodes=2, frameworks=frameworks, filesystems="home")
    qsub = tmp_path / "qsub"
    qsub.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words; echo 12.aurora\n')
    qsub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for label, nodes in (("inference", 4), ("training", 2)):
        provider = pools[label].provider
        assert (provider.init_blocks, provider.min_blocks) == (0, 0)
        provider.script_dir = str(tmp_path)
        assert provider.submit("the pool", 1, "block") == "12.aurora"
        *words, script = (tmp_path / "words").read_text().split()
        assert words == ["-q", "capacity", "-A", "mine"]
        lines = Path(script).read_text().splitlines()
        directives = [f"select={nodes}:ncpus=208", "walltime=03:00:00", "filesystems=home", "place=scatter"]
        assert {*(f"#PBS -l {directive}" for directive in directives), "#PBS -k doe"} <= set(lines)
        assert f"source {AURORA}/env.sh {label} || exit 1" in lines and f"export MERIT_FRAMEWORKS={frameworks}" in lines
        assert any(line.startswith("mpiexec --cpu-bind none --ppn 1 -n") for line in lines) == (label == "inference")
        assert any("MERIT_SLOTS" in line for line in lines) == (label == "training")
        assert pools[label].drain_period == 3 * 3600 - 1200
    assert pools["inference"].provider.max_blocks == 2 and pools["training"].provider.max_blocks == 1
    assert type(pools["cpu"].provider).__name__ == "LocalProvider" and pools["cpu"].max_workers_per_node == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"account": "a", "training_nodes": 0}, "training_nodes=0: on a login node"),
        ({"account": "a", "queue": "debgu"}, "there is no 'debgu'; did you mean 'debug'"),
        ({"account": "a", "nodes": 3}, r"queue=debug nodes=3 .*queue=debug-scaling nodes=3 walltime=01:00:00"),
        ({"account": "a", "walltime": "soon"}, "walltime=soon: HH:MM:SS"),
        ({"account": "a", "walltime": 7200}, r"walltime=02:00:00: there is no such job .*queue=capacity nodes=1"),
        ({"account": "a", "tensor_parallel": 12}, "tensor_parallel"),
        ({"account": "a", "frameworks": "2024.2"}, "frameworks"),
        ({"account": "a", "cores": "1-8"}, "a group a tile"),
        (
            {"account": "a", "queue": "debug-scaling", "nodes": 4, "training_nodes": 300},
            "queue=debug-scaling nodes=300",
        ),
        ({"where": "job", "queue": "prod", "nodes": 100, "walltime": "06:00:00"}, "queue=prod nodes=256"),
    ],
)
def test_what_aurora_has_not_is_refused_before_anything_is_submitted(outside, options, message):
    with pytest.raises(MeritError, match=message):
        sites.load("aurora", **options)


def test_to_submit_a_project_has_to_be_named(outside, tmp_path):
    with pytest.raises(MeritError, match="--site-option account=PROJECT"):
        sites.load("aurora").parsl(tmp_path, None)


def test_a_job_without_its_nodes_is_told_of_when_it_starts(outside, tmp_path):
    site = sites.load("aurora", where="job", queue="prod", nodes=256, walltime="06:00:00")
    with pytest.raises(MeritError, match="PBS_NODEFILE is not set"):
        site.parsl(tmp_path, None)


def test_an_interface_that_is_not_there_is_told_with_those_that_are(job):
    folder = job(2)
    with pytest.raises(MeritError, match=r"interface=hsn0: .*there are: .*lo"):
        sites.load("aurora").parsl(folder / "p", None)
