"""Batches are halved, and nothing that decides a result is touched."""

from __future__ import annotations

import pytest

from apps.platform import smaller

TRAINING = {"training": {"micro_tokens": 4096, "step_rows": 64, "lr": 1e-3}, "seed": 1}
PLAYING = {"engine": {"name": "transformers"}, "reading": {"micro_tokens": 8}}


def test_nothing_changes_without_need():
    assert smaller.halved(TRAINING, 0) == (TRAINING, {})


@pytest.mark.parametrize(
    ("options", "times", "sizes"),
    [
        (TRAINING, 1, {"training.micro_tokens": 2048}),
        (TRAINING, 3, {"training.micro_tokens": 512}),
        (PLAYING, 2, {"engine.rows": 64, "reading.micro_tokens": 2}),  # 256 rows are the engine's default
        (PLAYING, 6, {"engine.rows": 4, "reading.micro_tokens": 1}),
        ({"engine": {"name": "scripted"}}, 1, {}),
        ({"engine": {"name": "no_such_engine"}, "training": {"micro_tokens": 1}}, 1, {}),
    ],
)
def test_each_size_is_halved_so_often_and_told(options, times, sizes):
    found, told = smaller.halved(options, times)
    assert told == sizes
    rest = {name: {k: v for k, v in part.items() if k != smaller.SIZES.get(name)} for name, part in found.items() if isinstance(part, dict)}  # fmt: skip
    assert rest == {name: {k: v for k, v in part.items() if k != smaller.SIZES.get(name)} for name, part in options.items() if isinstance(part, dict)}  # fmt: skip


def test_it_ends():
    assert smaller.can_be(TRAINING, 1) and smaller.can_be(TRAINING, smaller.HALVINGS)
    assert not smaller.can_be(TRAINING, smaller.HALVINGS + 1)
    assert not smaller.can_be({"training": {"micro_tokens": 1}}, 1)
    assert smaller.can_be({"training": {"micro_tokens": 4}}, 2) and not smaller.can_be(
        {"training": {"micro_tokens": 4}}, 3
    )
    assert not smaller.can_be({}, 1)
