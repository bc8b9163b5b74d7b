"""On which node it began when ranks die: from what launchers say, and never from what those say that only went with others."""

from __future__ import annotations

import pytest

from apps.platform import launchers

HYDRA = """
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 13699 RUNNING AT x2
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
"""
X7, X8 = "x4006c0s6b0n0.hsn.cm.aurora.alcf.anl.gov", "x4001c5s4b0n0.hsn.cm.aurora.alcf.anl.gov"


@pytest.mark.parametrize(
    ("output", "host"),
    [
        (f"step 3\n{HYDRA}", "x2"),
        (HYDRA.replace("CODE: 9", "CODE: 139"), "x2"),
        (HYDRA.replace("CODE: 9", "CODE: 15"), ""),  # somebody has ended it
        (f"{X8}: rank 0 died from signal 15\n{X7}: rank 256 died from signal 6 and dumped core\n", X7),
        (f"{X8}: rank 3 died from signal 9\n{X7}: shepherd died from signal 9\n", X7),
        (f"{X8}: rank 3 died from signal 11\n{X8}: rank 4 died from signal 15\n", ""),
        (f"ping RPC timeout from {X7} after 120s\n{X8}: rank 0 died from signal 15\n", X7),
        (f"{X8}: rank 0 exited with code 1\n", ""),
        ("[mpiexec@vm] control_cb (pmiserv_cb.c:280): assert (!closed) failed\n", ""),
        (f"the data say: {X7}: rank 1 died from signal 9\n", ""),
        ("", ""),
    ],
)
def test_the_node_on_which_it_began(output, host):
    assert launchers.dead_node(output) == host


def test_a_node_has_the_name_that_its_slot_has_for_it():
    assert launchers.called("x4006c0s6b0n0", [X8, X7]) == X7
    assert launchers.called(X7, ["x4001c5s4b0n0", "x4006c0s6b0n0"]) == "x4006c0s6b0n0"
    assert launchers.called("x1", [X7]) == launchers.called("x1", []) == "x1"
    assert launchers.called("x1", ["x10", "x1"]) == "x1"


@pytest.mark.parametrize(
    ("rank", "ranks", "nodes", "host"),
    [
        (5, 6, ["x1", "x2"], "x2"),
        (2, 6, ["x1", "x2"], "x1"),
        (4, 5, ["x1", "x2"], "x2"),  # of an odd number the last node has fewer
        (3, 4, ["vm", "x2"], "vm"),  # its own name is believed
        (3, 4, [], "vm"),
    ],
)
def test_a_rank_is_on_the_node_that_it_names_else_on_that_of_its_number(rank, ranks, nodes, host):
    assert launchers.node_of(rank, ranks, "vm", nodes) == host
