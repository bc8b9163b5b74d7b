"""Which nodes of a job train and which play."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError
from workflows.cluster import roles


def hosts(count: int) -> list[str]:
    return [f"x{number}" for number in range(1, count + 1)]


@given(st.integers(1, 600), st.integers(1, 64), st.sampled_from(["measured", 0]))
def test_every_node_has_something_to_do_and_a_training_task_fits(nodes, slot_nodes, wanted):
    if nodes < slot_nodes:
        with pytest.raises(MeritError, match="cannot have more than all"):
            roles.shared_out(hosts(nodes), wanted, slot_nodes, 12)
        return
    shares = roles.shared_out(hosts(nodes), wanted, slot_nodes, 12)
    assert [*shares.kept, *shares.playing] == hosts(nodes)
    assert shares.slots >= 1
    assert (len(shares.kept) == 1) == (wanted == "measured" and nodes > slot_nodes) or nodes == 1


@pytest.mark.parametrize(
    ("wanted", "nodes", "slot_nodes", "kept", "playing", "lends", "slots"),
    [
        ("measured", 1, 1, 1, 0, False, 1),
        ("measured", 2, 1, 1, 1, False, 1),  # the one that plays goes on with it
        ("measured", 3, 1, 1, 2, True, 2),
        ("measured", 2, 2, 2, 0, False, 1),
        ("measured", 3, 2, 1, 2, True, 1),
        ("measured", 512, 64, 1, 511, True, 7),
        ("measured", 512, 12, 1, 511, True, 12),  # a worker each
        (0, 6, 2, 6, 0, False, 3),
        (4, 6, 2, 4, 2, False, 2),
        (5, 6, 2, 4, 2, False, 2),  # whole slots
    ],
)
def test_shares(wanted, nodes, slot_nodes, kept, playing, lends, slots):
    found = roles.shared_out(hosts(nodes), wanted, slot_nodes, 12)
    assert (len(found.kept), len(found.playing), found.lends, found.slots) == (kept, playing, lends, slots)


@pytest.mark.parametrize(("wanted", "slot_nodes"), [(6, 1), (1, 2)])
def test_what_cannot_be_set_aside_is_refused(wanted, slot_nodes):
    with pytest.raises(MeritError, match=f"training_nodes={wanted}: from slot_nodes={slot_nodes} to 5"):
        roles.shared_out(hosts(6), wanted, slot_nodes, 12)


def test_hosts_are_told_once_each_in_their_order(tmp_path):
    (tmp_path / "nodefile").write_text("x2\nx2\nx1\nx3\nx1\n")
    assert roles.hosts(tmp_path / "nodefile") == ["x2", "x1", "x3"]
    (tmp_path / "nodefile").write_text("\n")
    with pytest.raises(MeritError, match="names no host"):
        roles.hosts(tmp_path / "nodefile")
