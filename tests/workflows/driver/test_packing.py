"""What is packed while a run goes on: what nobody waits for, neither in this run nor in another one."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from apps import artifacts, dormant, packs, stages
from apps.stages import Stage
from tests.checkout import wait_for
from workflows import store
from workflows.driver import packing, references
from workflows.driver.packing import Packing
from workflows.plan import Node, Plan

TICK = Stage("tick", "tests.survival.soak", "cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(packing, "LEAST", 3)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "store"


def rounds(count: int = 3, width: int = 3) -> list[list[Node]]:
    """Layers of a plan, each made from all of the layer before."""
    plan, layers = Plan(), []
    for plan.round in range(1, count + 1):
        given = {"before": layers[-1]} if layers else {}
        layers.append([plan.add(TICK, given, number=number, round=plan.round) for number in range(width)])
        for node in layers[-1]:
            node.future = Future()
    return layers


def place(root: Path, node: Node) -> Path:
    return artifacts.locate(root, "tick", node.key)


def end(root: Path, *nodes: Node) -> None:
    for node in nodes:
        with artifacts.new(root, "tick", node.key, {}) as out:
            (out / "file").write_text(node.key)
        node.future.set_result(None)


def followed(root: Path, *layers: list[Node], wanted: bool = True) -> Packing:
    found = Packing(root, root.parent / "runs" / "mine", wanted)
    found.follow(node for layer in layers for node in layer)
    return found


def folders(root: Path, *layers: list[Node]) -> list[int]:
    """How many of each layer are folders."""
    return [sum(place(root, node).is_dir() for node in layer) for layer in layers]


def test_what_a_task_still_waits_for_stays_a_folder(root):
    layers = rounds()
    packed = followed(root, *layers)
    end(root, *layers[0], *layers[1][:2])
    packed.pack()
    assert folders(root, *layers) == [3, 2, 0]
    end(root, layers[1][2])
    packed.pack()
    assert folders(root, *layers) == [0, 3, 0] and len(packs.every(root)) == 1
    end(root, *layers[2])
    packed.pack()
    assert folders(root, *layers) == [0, 0, 0] and len(packs.every(root)) == 2
    assert all(store.Store(root).find("tick", node.key) for layer in layers for node in layer)


def test_a_thread_packs_when_a_round_is_over(root):
    layers = rounds()
    packed = followed(root, *layers)
    with packed.beside():
        end(root, *layers[0], *layers[1])
        assert wait_for(lambda: folders(root, *layers) == [0, 3, 0], 20)


@pytest.mark.parametrize(("count", "left"), [(1, [2]), (3, [0, 0, 0])])
def test_the_end_of_a_run_takes_what_is_left_unless_the_run_is_small(root, count, left):
    layers = rounds(count, 2)
    packed = followed(root, *layers)
    with packed.beside():
        end(root, *(node for layer in layers for node in layer))
    packed.pack()
    assert folders(root, *layers) == left


def with_report(count: int = 3) -> tuple[list[list[Node]], Node]:
    """Rounds, and a report made from all of them."""
    layers, plan = rounds(count), Plan()
    report = plan.add(stages.REPORT, {"everything": [node for layer in layers for node in layer]})
    report.future = Future()
    return layers, report


def test_rounds_do_not_wait_for_the_report_but_while_it_is_made(root):
    layers, report = with_report()
    packed = followed(root, *layers, [report])
    end(root, *layers[0], *layers[1])
    packed.pack()
    assert folders(root, *layers) == [0, 3, 0]
    end(root, *layers[2])  # now it can begin
    packed.pack()
    assert folders(root, *layers) == [0, 3, 3]
    report.future.set_result(None)
    packed.pack()
    assert folders(root, *layers) == [0, 0, 0]


def test_a_report_that_begins_while_a_pack_is_written_keeps_what_it_reads(root, monkeypatch):
    plan, write = Plan(), packs.write
    first = [plan.add(TICK, number=number) for number in range(3)]
    plan.round = 2
    last = plan.add(TICK, number=3)
    report = plan.add(stages.REPORT, {"everything": [*first, last]})
    for node in plan.nodes.values():
        node.future = Future()
    packed = followed(root, [*first, last, report])
    end(root, *first)
    monkeypatch.setattr(packs, "write", lambda *given: (write(*given), end(root, last)))
    packed.pack()
    assert folders(root, first) == [3] and all(dormant.holds(place(root, node)) for node in first)
    report.future.set_result(None)
    packed.pack()
    assert folders(root, first, [last]) == [0, 1] and len(packs.every(root)) == 1


def test_fewer_than_make_a_pack_wait_for_more(root):
    first, second = rounds(2, 2)
    packed = followed(root, first, second)
    end(root, *first, *second[:1])
    packed.pack()
    assert folders(root, first, second) == [2, 1] and not packs.every(root)
    end(root, *second[1:])
    packed.pack()
    assert folders(root, first, second) == [0, 0] and len(packs.every(root)) == 1


def test_what_went_into_a_failed_task_stays_for_its_next_attempt(root):
    first, second = rounds(2)
    packed = followed(root, first, second)
    end(root, *first, *second[:2])
    second[2].future.set_exception(ValueError("no luck"))
    packed.pack()
    assert folders(root, first, second) == [3, 2]


def test_tasks_that_are_not_handed_over_yet_keep_what_goes_into_them(root):
    first, second = rounds(2)
    packed = Packing(root, root.parent / "runs" / "mine")
    packed.expect([*first, *second])
    packed.follow(first)
    end(root, *first)
    packed.pack()
    assert folders(root, first) == [3]
    packed.follow(second)
    end(root, *second)
    packed.pack()
    assert folders(root, first, second) == [0, 0]


def test_what_the_driver_will_read_stays_until_it_lets_go(root):
    (layer,) = rounds(1, 4)
    packed = followed(root, layer)
    packed.hold(layer[:1])
    end(root, *layer)
    packed.pack()
    assert folders(root, layer) == [1] and place(root, layer[0]).is_dir()
    packed.let_go(layer[:1])
    dormant.folder(place(root, layer[1]))
    packed.pack()
    assert folders(root, layer) == [2]  # one is no pack, and what others woke is theirs


def test_what_a_later_task_had_woken_goes_back_to_its_pack(root):
    layers = rounds()
    packed = followed(root, layers[0], layers[1])
    end(root, *layers[0], *layers[1])
    packed.pack()
    assert folders(root, *layers) == [0, 0, 0]
    packed.follow(layers[2])  # of a later rung
    for node in layers[1]:
        dormant.folder(place(root, node))
    end(root, *layers[2])
    packed.pack()
    assert folders(root, *layers) == [0, 0, 0] and len(packs.every(root)) == 2


@pytest.mark.parametrize("where", ["runs/other", "runs/study/other"])
def test_what_another_run_at_work_refers_to_is_left_alone(root, where):
    """A run of a study is locked by its study; a run that ended says what it refers to, and is not asked."""
    (layer,) = rounds(1, 8)
    other, ended = root.parent / where, root.parent / "runs" / "ended"
    locked = other.parent if "study" in where else other
    for folder, nodes in ((other, layer[:2]), (ended, layer[2:4]), (root.parent / "runs" / "mine", layer)):
        folder.mkdir(parents=True)
        references.keep(root, folder, nodes)
    end(root, *layer)
    packed = followed(root, layer)
    with store.lock(locked), store.lock(root.parent / "runs" / "mine"):
        packed.pack()
    assert [place(root, node).is_dir() for node in layer] == [True] * 2 + [False] * 6


def test_a_run_that_begins_while_a_pack_is_written_keeps_its_folders(root, monkeypatch):
    (layer,) = rounds(1, 4)
    other = root.parent / "runs" / "other"
    other.mkdir(parents=True)
    end(root, *layer)
    packed, write = followed(root, layer), packs.write
    with store.lock(other):
        monkeypatch.setattr(packs, "write", lambda *given: (write(*given), references.keep(root, other, layer[:1])))
        packed.pack()
    assert [place(root, node).is_dir() for node in layer] == [True, False, False, False]
    assert all(dormant.holds(place(root, node)) for node in layer)


def test_nothing_is_packed_where_nobody_wants_it(root):
    layers = rounds(1)
    packed = followed(root, *layers, wanted=False)
    with packed.beside():
        end(root, *layers[0])
    packed.pack()
    assert folders(root, *layers) == [3] and not packs.every(root)


def test_a_full_disk_is_told_and_costs_nothing(root, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    layers = rounds(1)
    packed = followed(root, *layers)
    end(root, *layers[0])
    monkeypatch.setattr(packs, "write", full)
    packed.pack()
    packed.pack()
    assert folders(root, *layers) == [3]
    assert (
        caplog.text.count("results are packed no more: [Errno 28] No space left on device; all of them are kept") == 1
    )


def test_a_run_that_is_broken_off_packs_no_more(root):
    layers = rounds(1)
    packed = followed(root, *layers)
    with pytest.raises(KeyboardInterrupt), packed.beside():
        raise KeyboardInterrupt
    end(root, *layers[0])
    packed.pack()
    assert folders(root, *layers) == [3]
