"""How a job's nodes are shared out between training and playing."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError
from workflows.cluster import roles, tiles

SECONDS = st.floats(0, 1e6)


@given(st.integers(2, 500), st.integers(1, 8), SECONDS, SECONDS)
def test_a_share_is_whole_slots_and_leaves_some_to_play(nodes, slot_nodes, training, playing):
    if nodes <= slot_nodes:
        return
    share = roles.shared_out(nodes, slot_nodes, {"training": training, "inference": playing})
    assert share % slot_nodes == 0 and slot_nodes <= share < nodes


@given(st.integers(3, 100), st.floats(1, 1e5), st.floats(1, 1e5))
def test_training_and_playing_take_equally_long_within_a_node(nodes, training, playing):
    """At the same time, t nodes train for T/t and n - t play for P/(n - t): equal where t = nT/(T + P)."""
    share = roles.shared_out(nodes, 1, {"training": training, "inference": playing})
    exact = nodes * training / (training + playing)
    assert abs(share - min(max(exact, 1), nodes - 1)) <= 0.5


@pytest.mark.parametrize(
    ("wanted", "nodes", "slot_nodes", "found"),
    [(None, 1, 1, 0), (None, 2, 1, 1), (None, 4, 4, 0), (None, 9, 4, 4), (0, 9, 1, 0), (7, 9, 2, 6), (3, 9, 1, 3)],
)
def test_a_fixed_number(wanted, nodes, slot_nodes, found):
    assert roles.training_nodes(wanted, nodes, slot_nodes, None, 12) == found


@pytest.mark.parametrize(
    ("wanted", "nodes", "slot_nodes", "message"),
    [
        (4, 4, 1, "from slot_nodes=1 to 3 of this job's 4"),
        (1, 4, 2, "from slot_nodes=2"),
        (None, 2, 3, "slot_nodes=3: the job has 2 nodes"),
    ],
)
def test_a_number_that_cannot_be(wanted, nodes, slot_nodes, message):
    with pytest.raises(MeritError, match=message):
        roles.training_nodes(wanted, nodes, slot_nodes, None, 12)


def made(store, stage: str, key: str, seconds: float, when: float) -> None:
    """An artifact, as far as its manifest's time and seconds go."""
    folder = store / stage / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"seconds": seconds}))
    os.utime(folder / "manifest.json", (when, when))


def test_the_demand_is_that_of_the_last_round(tmp_path):
    """By hand: 12 workers a node play for 240 s (20 node-seconds), two nodes train for 30 s (60): three of four nodes train."""
    assert roles.demand(tmp_path, 12, 2) == {"inference": 0, "training": 0}
    made(tmp_path, "rollout", "aa" * 16, 9000, 10)
    made(tmp_path, "promote", "ab" * 16, 1, 20)
    made(tmp_path, "rollout", "ac" * 16, 200, 30)
    made(tmp_path, "replay", "ad" * 16, 40, 31)
    made(tmp_path, "grade", "ae" * 16, 500, 32)  # on cores, or with a model: it says nothing of tiles
    made(tmp_path, "train", "af" * 16, 30, 40)
    made(tmp_path, "promote", "ba" * 16, 1, 50)
    assert roles.demand(tmp_path, 12, 2) == pytest.approx({"inference": 20, "training": 60})
    assert roles.training_nodes("measured", 8, 2, tmp_path, 12) == 6
    assert roles.training_nodes("measured", 8, 2, None, 12) == 2  # nothing is known yet: one slot
    assert roles.training_nodes("measured", 2, 2, tmp_path, 12) == 0


def test_hosts_are_named_once_in_their_order(tmp_path):
    (tmp_path / "nodefile").write_text("x2\nx1\nx2\n\nx3\n")
    assert roles.hosts(tmp_path / "nodefile") == ["x2", "x1", "x3"]
    (tmp_path / "nodefile").write_text("\n")
    with pytest.raises(MeritError, match="names no host"):
        roles.hosts(tmp_path / "nodefile")


@given(st.integers(1, 30), st.integers(1, 12))
def test_groups_are_neighbours_and_share_nothing(count, size):
    names = tiles.names("FLAT", count)
    found = [word for group in tiles.groups(names, size) for word in group.split(",")]
    assert found == names[: count // size * size]
    assert len(set(tiles.names("COMPOSITE", count))) == count
