"""Which tasks a round, or an evaluation, takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apps.records import Task
from apps.tasks import app

sizes = st.integers(1, 40)


def split(count: int) -> list[Task]:
    return [Task(f"t{i}", "?", "1", "hand", "train") for i in range(count)]


@given(sizes, sizes, st.integers(0, 12))
def test_no_round_holds_a_task_twice(size, window, number):
    taken = app.take(split(size), "seed", number * window, window, window)
    assert len({task.id for task in taken}) == len(taken) == min(size, window)


@given(sizes, sizes)
def test_every_task_of_a_shuffle_comes_once_before_any_comes_again(size, window):
    rounds = max(1, size // window)
    taken = [t.id for n in range(rounds) for t in app.take(split(size), "seed", n * window, window, window)]
    assert len(set(taken)) == len(taken) == min(size, rounds * window)


@given(sizes, sizes, st.integers(1, 5))
def test_shards_together_are_the_window(size, window, shards):
    edges = [window * i // shards for i in range(shards + 1)]
    parts = [
        app.take(split(size), "s", low, high - low, window) for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    assert [t.id for part in parts for t in part] == [t.id for t in app.take(split(size), "s", 0, window, window)]
