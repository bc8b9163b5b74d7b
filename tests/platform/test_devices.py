"""Devices by name, and cores within a quota."""

from __future__ import annotations

import os

import pytest

from apps.platform import devices
from apps.records import MeritError


def test_the_device_picked_computes():
    import torch

    chosen = devices.pick()
    assert chosen == devices.available()[0]
    assert torch.ones(2, device=chosen).sum().item() == 2


def test_a_device_that_is_not_here_is_told_with_what_is():
    assert devices.pick("cpu") == devices.pick("cpu:0")[:3] == "cpu"
    with pytest.raises(MeritError, match="'gpu' is not here; there is: .*cpu"):
        devices.pick("gpu")
    with pytest.raises(MeritError, match="'cpu:7' is not here; of cpu there is: 0"):
        devices.pick("cpu:7")


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("max 100000", None), ("", None)]
)
def test_a_quota_is_rounded_up_to_whole_cores(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert devices._quota(tmp_path / "cpu.max") == cores
    assert devices._quota(tmp_path / "absent") is None


def test_there_are_no_more_cores_than_the_machine_has():
    assert 1 <= devices.cores() <= os.cpu_count()
