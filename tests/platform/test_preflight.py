"""Bad nodes are found by what they say or do not say, whichever launch they spoil; the others go on."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.platform import all_reduce, fitness, mpi, preflight, probe
from apps.platform.fitness import Found, Usual, Wanted
from apps.platform.probe import Answer, Device, Question
from apps.records import MeritError
from tests import command
from tests.platform import hosts

QUICK = Question(device="cpu", imports=("torch", "mpi4py"))
A, B = Device("xpu:0", 64.0, 200_000.0), Device("xpu:1", 64.0, 198_000.0)
FOUND = Found(Answer("x1", 100.0, 103.0, (), {"TMPDIR": 400.0}, {"torch": "2.13"}, "xpu", (A, B), "FLAT"), 99.0, 104.0)
MOST = Usual({"torch": "2.13"}, 2, 64.0, 200_000.0)


# who answers


def names(count: int) -> list[str]:
    return [f"x{number}" for number in range(count)]


@given(st.integers(1, 300), st.data())
def test_who_is_silent_is_found_though_a_dead_node_silences_its_whole_launch(count, data):
    nodes = names(count)
    dead = set(data.draw(st.lists(st.sampled_from(nodes), max_size=3)))
    asked: list[int] = []

    def ask(group):
        asked.append(len(group))
        return {node: Found(silence="spoilt") if dead & set(group) else FOUND for node in group}

    found = preflight.questioned(nodes, ask)
    assert {node for node, one in found.items() if one.answer is None} == dead and set(found) == set(nodes)
    levels = 1 + math.ceil(math.log(count, preflight.PARTS)) if count > 1 else 1
    assert len(asked) <= 1 + len(dead) * preflight.PARTS * levels


def test_who_has_answered_is_not_asked_again():
    asked: list[tuple[str, ...]] = []

    def ask(group):  # b hangs once it was started, the others answer
        asked.append(tuple(group))
        return {node: Found(silence="hangs") if node == "b" else FOUND for node in group}

    assert preflight.questioned(["a", "b", "c"], ask)["b"].silence == "hangs"
    assert asked == [("a", "b", "c"), ("b",)]


@given(st.lists(st.integers(), max_size=200))
def test_parts_are_the_group_in_order_and_alike(group):
    parts = preflight.divided(group)
    assert [one for part in parts for one in part] == group and len(parts) <= preflight.PARTS
    assert all(parts) and len({len(part) for part in parts[:-1]}) <= 1


def test_a_node_is_known_by_its_name_or_else_by_its_rank():
    nodes = ["x7.hsn.aurora", "x9.hsn.aurora"]
    assert preflight._who("x9", 0, nodes) == "x9.hsn.aurora"
    assert preflight._who("vm", 1, nodes) == "x9.hsn.aurora"


# who sums


@given(st.integers(3, 200), st.data())
def test_company_is_all_but_those_with_which_no_other_works(count, data):
    """Such a node passes alone, so it must not be what the company begins with."""
    nodes = names(count)
    deaf = set(data.draw(st.lists(st.sampled_from(nodes), max_size=min(2, count - 2))))

    def attempt(group):
        return "hangs" if len(group) > 1 and deaf & set(group) else None

    together, bad = preflight.company(nodes, attempt)
    assert together == [node for node in nodes if node not in deaf] and set(bad) == deaf


@given(st.integers(1, 100), st.data())
def test_who_fails_alone_has_no_company(count, data):
    nodes = names(count)
    broken = set(data.draw(st.lists(st.sampled_from(nodes), max_size=2)))
    together, bad = preflight.company(nodes, lambda group: "fails" if broken & set(group) else None)
    assert together == [node for node in nodes if node not in broken] and set(bad) == broken


def test_a_network_without_any_pair_costs_a_bounded_number_of_attempts():
    tried: list[int] = []

    def attempt(group):
        tried.append(len(group))
        return "hangs" if len(group) > 1 else None

    together, bad = preflight.company(names(64), attempt)
    assert len(together) <= 1 and len(bad) >= 63 and len(tried) <= preflight.FAILURES + 1


# what an answer is worth


def test_a_node_like_the_others_is_fit():
    assert fitness.faults(FOUND, MOST, Wanted(devices=2)) == []


@pytest.mark.parametrize(
    "change, wanted, said",
    [
        ({"versions": {"torch": "2.10"}}, Wanted(), "torch 2.10, most nodes have 2.13"),
        ({"free_gib": {"TMPDIR": 0.25}}, Wanted(), "TMPDIR: 0.25 GiB free, 1 wanted"),
        ({"devices": (A,), "hierarchy": "COMPOSITE"}, Wanted(devices=2), r"1 devices of xpu, 2 expected \(.*COMPOSITE"),
        ({"devices": (A, replace(B, memory_gib=16.0))}, Wanted(), "xpu:1: memory 16 GiB, most have 64"),
        ({"devices": (A, replace(B, gflops=90_000.0))}, Wanted(), "xpu:1: rate 90000 GFLOP/s, most have 200000"),
        (
            {"kind": "cpu", "devices": (Device("cpu", 1.0, 1.0),)},
            Wanted(devices=2),
            "2 accelerators wanted, none there",
        ),
        ({"faults": ("import torch: OSError: x",)}, Wanted(), "import torch: OSError: x"),
        ({"started": 80.0}, Wanted(), "its clock is 19 s off, 5 allowed"),
    ],
)
def test_a_node_unlike_the_others_is_told_what_is_wrong_with_it(change, wanted, said):
    (fault,) = fitness.faults(replace(FOUND, answer=replace(FOUND.answer, **change)), MOST, wanted)
    assert re.match(said, fault)


def test_what_is_usual_is_what_most_have_and_in_a_draw_what_the_first_has():
    answers = [
        replace(FOUND.answer, versions={"torch": v}, devices=(A,) * n) for v, n in (("a", 2), ("b", 2), ("b", 6))
    ]
    assert fitness.usual(answers) == Usual({"torch": "b"}, 2, 64.0, 200_000.0)
    assert fitness.usual(answers[:2]).versions == {"torch": "a"}
    assert fitness.usual([]) == Usual()


@given(st.floats(-1e6, 1e6), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(-1e4, 1e4))
def test_a_clock_is_never_accused_of_more_than_it_is_off(asked, before, work, after, off):
    """Between question and answer a node's process begins and ends; all that is known are its own times, `off` seconds wrong."""
    started = asked + before
    answer = Answer("x", started + off, started + work + off)
    found = Found(answer, asked, started + work + after)
    assert fitness.skew(found) <= abs(off) + 1e-6
    assert fitness.skew(found) >= abs(off) - max(before, after) - 1e-6


# what a node does


def test_a_product_may_be_off_by_rounding_and_no_more():
    import torch

    for dtype in probe.TOLERANCE:
        found, expected = probe.product("cpu", dtype, 128)
        probe.check_product(found, expected, dtype)
        for wrong in (1.0, float("nan")):
            spoilt = found.clone()
            spoilt[5, 7] += wrong * expected.norm()
            with pytest.raises(MeritError, match=f"a product in {dtype} is wrong"):
                probe.check_product(spoilt, expected, dtype)
    assert torch.equal(*[probe.product("cpu", "float32", 64)[1] for _ in range(2)])  # every node has the same to do


def test_a_single_wrong_sum_is_found():
    import torch

    right = torch.arange(10.0)
    all_reduce.check(mpi.World(3, 4), right, right.clone())
    with pytest.raises(MeritError, match="rank 3 of 4: 1 of 10 sums of the all-reduce are wrong"):
        all_reduce.check(mpi.World(3, 4), right, right + (right == 7) * 2**-20)


def test_a_disk_is_written_to_and_a_shared_one_is_recognised(tmp_path):
    (tmp_path / "file").touch()
    token = tmp_path / "token"
    token.touch()
    question = Question(folders={"store": str(tmp_path / "new"), "staging": str(tmp_path / "file")}, token=str(token))
    found = probe.disk(question)
    assert found["free_gib"]["store"] > 0 and list((tmp_path / "new").iterdir()) == []
    (fault,) = found["faults"]
    assert re.match(r"staging: .*file cannot be written to \(.*exists\)", fault)
    token.unlink()
    assert "is not seen from here: no shared file system" in probe.disk(question)["faults"][1]


def test_a_long_tmpdir_is_told_before_a_socket_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * probe.TMPDIR_LENGTH)))
    assert any(
        "too long for the paths of sockets; use TMPDIR=/tmp" in fault for fault in probe.disk(Question())["faults"]
    )


def test_a_library_that_is_not_whole_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("raise OSError('libmissing.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    found = probe.imported(Question(imports=("half_there", "numpy", "nowhere")))
    assert found["versions"].keys() == {"python", "numpy"}
    assert found["faults"] == [
        "import half_there: OSError: libmissing.so: cannot open shared object file",
        "import nowhere: ModuleNotFoundError: No module named 'nowhere'",
    ]


# with processes


def launches(folder: Path, ailments: dict[str, object], timeout_s: float = 60) -> preflight.Launches:
    told = hosts.environment(ailments, folder / "record")
    return preflight.Launches(folder, hosts.WORDS, None, "", told, timeout_s)


def test_lines_of_ranks_are_heard_among_others_and_a_launch_that_hangs_is_ended(tmp_path):
    script = (
        "import json, os, sys, time\n"
        "from apps.platform import probe\n"
        "print('module loaded'); probe.say({'at': 'a'}); print('x: ' + probe.MARK + '{\"rank\": 1, \"at\": \"b\"}')\n"
        "print(probe.MARK + '{broken', flush=True); time.sleep(1000 if sys.argv[1] == 'hang' else 0); sys.exit(3)"
    )
    ended = preflight.listen([sys.executable, "-c", script, "end"], {}, 30)
    assert ended.status == 3 and {rank: said["at"] for rank, said in ended.said.items()} == {0: "a", 1: "b"}
    assert ended.fault == f"the launch ended with status 3: module loaded | {probe.MARK}{{broken"
    started = time.monotonic()
    assert preflight.listen([sys.executable, "-c", script, "hang"], {}, 2).status is None
    assert time.monotonic() - started < 10


def test_what_a_launch_has_started_ends_with_it(tmp_path):
    shell = f"sleep 1000 & echo $! > {tmp_path}/pid; trap '' TERM; wait"
    assert preflight.listen(["sh", "-c", shell], {}, 1).status is None
    stat = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_nodes_answer_over_the_launcher_and_one_that_is_refused_is_left_out(tmp_path):
    """The refused one spoils the first launch; then each is asked alone."""
    started = launches(tmp_path, {"x2": "refused"})
    found = preflight.questioned(["x1", "x2"], lambda group: preflight.ask(group, replace(QUICK, imports=()), started))
    assert found["x1"].answer.kind == "cpu" and found["x1"].answer.faults == ()
    assert re.match("the launch ended with status 1: a host was not reached", found["x2"].silence)
    tried = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert tried[0] == ["x1", "x2"] and sorted(tried[1:]) == [["x1"], ["x2"]]


SITE = '''"""Hosts that are names on this machine."""
import dataclasses
import json
import os
import runpy
from pathlib import Path
local = runpy.run_path({local!r})
Options = local["Options"]
def site(options):
    found = local["site"](options)
    return dataclasses.replace(found, device="cpu", hosts=tuple({nodes!r}), on_hosts={words!r}, launcher=None)
'''


def fly(folder: Path, nodes: list[str], ailments: dict[str, object], *words: str):
    local = str(command.ROOT / "site" / "local" / "config.py")
    (folder / "site.py").write_text(SITE.format(local=local, nodes=nodes, words=hosts.WORDS))
    told = hosts.environment(ailments, folder / "record")
    files = ("--nodefile", "jobs/nodes", "--out", "jobs/preflight.json")
    return command.run(folder, "preflight", "--site", "./site.py", *files, *words, **told)


@pytest.mark.slow
def test_bad_nodes_are_dropped_and_the_others_go_on(tmp_path):
    """Of six: one never answers, one hangs in the middle, one lacks a part of a library, one works with no other."""
    (tmp_path / "yaml.py").write_text("raise OSError('a part of it is missing')")
    ailments = {"x2": "dead", "x3": "hangs", "x4": {"PYTHONPATH": f"{tmp_path}:{command.ROOT}"}, "x6": "deaf"}
    question = Question(device="cpu", imports=("mpi4py", "yaml"))
    result = preflight.fly(names(7)[1:], question, Wanted(), launches(tmp_path, ailments, 25))
    assert result.good == ("x1", "x5") and set(result.bad) == {"x2", "x3", "x4", "x6"}
    assert "took too long" in result.bad["x2"][0] and "took too long" in result.bad["x3"][0]
    assert result.bad["x4"] == ("import yaml: OSError: a part of it is missing",)
    assert result.bad["x6"] == ("all-reduce of 3 nodes: the launch ended with status 1: no way to the others",)
    assert (result.together["backend"], result.together["ranks"]) == ("gloo", 2)
    assert result.device_id == {}


@pytest.mark.slow
def test_too_few_good_nodes_end_a_job_before_it_starts(tmp_path):
    (tmp_path / "jobs").mkdir()
    ended = fly(tmp_path, ["x1", "x2"], {"x2": "refused"}, "--at-least", "2", "--free-gib", "0")
    assert ended.returncode == 1 and not (tmp_path / "jobs" / "nodes").exists()
    assert "error: 1 of 2 nodes are good, 2 are needed (--at-least)" in ended.stderr
    assert json.loads((tmp_path / "jobs" / "preflight.json").read_text())["good"] == ["x1"]


@pytest.mark.slow
def test_this_machine_alone_has_its_preflight_too(tmp_path):
    ended = command.run(tmp_path, "preflight", "--site-option", "device=cpu")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(
        r"all-reduce: 2 ranks over gloo, [\d.]+ Gbit/s, sums are right\n1 of 1 nodes are good", ended.stdout
    )
