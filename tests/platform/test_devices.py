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


@pytest.mark.parametrize(
    ("can", "found"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_an_automatic_dtype_is_what_the_processor_multiplies_fast(monkeypatch, can, found):
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert devices.dtype("auto", "cpu") == found
    assert devices.dtype("float32", "cpu") == "float32" and devices.dtype("bfloat16", "cpu") == "bfloat16"


def test_options_are_settled_where_they_say_auto_and_left_alone_elsewhere():
    from apps.inference.engines import scripted, transformers

    automatic = transformers.Options(dtype="auto", rows=7)
    assert devices.settled(automatic, "cpu") == transformers.Options(dtype=devices.dtype("auto", "cpu"), rows=7)
    for options in (transformers.Options(), scripted.Options()):
        assert devices.settled(options, "cpu") is options
