"""When a task is overdue, and which of two attempts counts. With real workers: tests/survival/test_overdue.py."""

from __future__ import annotations

import math
import socket
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import stages
from apps.platform import bell
from tests.checkout import wait_for
from workflows.driver import overdue


def test_nothing_is_overdue_until_enough_of_its_kind_have_ended():
    limits = overdue.Limits()
    for _ in range(overdue.ENOUGH - 1):
        limits.note("rollout", 100.0)
    assert limits.of("rollout") == math.inf
    limits.note("rollout", 100.0)
    assert limits.of("rollout") == pytest.approx(100 * math.exp(0.3)) and limits.of("replay") == math.inf


def test_the_limit_is_three_sigmas_of_the_logarithm_beyond_the_median():
    limits = overdue.Limits()
    for number in range(20):
        limits.note("rollout", 200.0 if number % 2 else 50.0)  # logarithms log 100 ± log 2
    sigma = math.log(2) * math.sqrt(20 / 19)
    assert limits.of("rollout") == pytest.approx(100 * math.exp(3 * sigma))
    for _ in range(20):
        limits.note("short", 1.0)
    assert limits.of("short") == pytest.approx(1.0 + overdue.LEAST_S)


def call(key: str, **options) -> dict:
    arguments = {"options": options, "machine": {}}
    return {"stage": "rollout", "key": key, "given": {}, "rest": stages.Sealed(arguments)}


def test_shards_of_one_round_are_of_a_kind():
    first = overdue._kind(call("a", take={"start": 0}, seed="0/train/1"))
    assert first == overdue._kind(call("b", take={"start": 8}, seed="0/train/1"))
    assert first != overdue._kind(call("c", take={"start": 0}, seed="0/train/2"))


class Executor:
    """Hands out futures that the test ends."""

    label, launch_cmd, all_addresses = "inference", "pool", ("127.0.0.1",)

    def __init__(self) -> None:
        self.given: list[Future] = []
        self.alone, self.takes = threading.Lock(), 0.0

    def submit(self, function, wishes, *given, **call) -> Future:
        assert self.alone.acquire(blocking=False), "an executor numbers tasks without a lock"
        time.sleep(self.takes)
        self.alone.release()
        future = Future()
        future.parsl_executor_task_id = len(self.given)
        self.given.append(future)
        return future


@pytest.fixture
def executor():
    watch, executor = overdue.Overdue(lambda label, host: None, lambda text: None), Executor()
    watch.govern([executor])
    submit = lambda key: executor.submit(None, {}, **call(key))  # noqa: E731
    yield SimpleNamespace(watch=watch, given=executor.given, submit=submit, pool=executor)
    watch.close()


def twice(executor) -> Future:
    ours = executor.submit("a")
    executor.watch._hand_over(executor.watch._at["a"])
    assert len(executor.given) == 2
    return ours


@given(
    st.permutations([(0, True), (1, True)])
    | st.permutations([(0, False), (1, True)])
    | st.permutations([(0, False), (1, False)])
)
def test_the_first_result_counts_and_a_failure_only_if_it_is_the_last(order):
    watch, executor = overdue.Overdue(lambda label, host: None, lambda text: None), Executor()
    executor.submit = watch._taking(executor.submit)
    ours = executor.submit(None, {}, **call("a"))
    watch._hand_over(watch._at["a"])
    for number, well in order:
        if well:
            executor.given[number].set_result(number)
        else:
            executor.given[number].set_exception(OSError(str(number)))
    first = next((number for number, well in order if well), None)
    if first is None:
        assert str(ours.exception(0)) == str(order[-1][0])
    else:
        assert ours.result(0) == first
    assert not watch._at


def test_where_most_of_what_is_at_work_is_overdue_no_host_is_to_blame(executor):
    for _ in range(overdue.ENOUGH):
        executor.watch.limits.note(overdue._kind(call("")), 1.0)
    for number in range(20):
        executor.submit(str(number))
    at = list(executor.watch._at.values())
    for number, attempt in enumerate(at):
        attempt.began, attempt.host = time.monotonic() - (100 if number < 8 else 0), f"x{number % 4}"
    late, gone = executor.watch._late()
    assert len(late) == 8 and not gone
    for attempt in at:
        attempt.began = time.monotonic() - 100
    assert executor.watch._late() == ([], [])


def test_one_that_was_never_heard_to_begin_has_begun_when_one_behind_it_has(executor):
    """Its datagram was lost, or its worker before it could say a word."""
    for _ in range(overdue.ENOUGH):
        executor.watch.limits.note(overdue._kind(call("")), 1.0)
    for key in "abcd":
        executor.submit(key)
    silent, heard, *waiting = executor.watch._at.values()
    for attempt in (silent, *waiting):
        attempt.handed -= 100
    assert executor.watch._late() == ([], []), "none has begun"
    heard.began = time.monotonic()
    executor.watch._front.append((heard.order, heard.began - 50))
    assert executor.watch._late() == ([silent], [])
    silent.handed = time.monotonic()  # tried again just now
    assert executor.watch._late() == ([], [])


def test_what_is_cancelled_is_cancelled_wherever_it_waits(executor):
    ours = twice(executor)
    assert ours.cancel() and all(future.cancelled() for future in executor.given)


def test_the_same_task_may_be_tried_again_while_an_old_attempt_still_ends(executor):
    first = executor.submit("a")
    second = executor.submit("a")
    executor.given[0].set_exception(OSError("lost"))
    assert isinstance(first.exception(0), OSError) and not second.done() and "a" in executor.watch._at
    executor.given[1].set_result(1)
    assert second.result(0) == 1 and not executor.watch._at


def test_a_task_is_handed_over_once_more_while_parsl_hands_over_others(executor):
    executor.submit("a")
    executor.pool.takes = 0.05
    again = threading.Thread(target=executor.watch._hand_over, args=[executor.watch._at["a"]])
    again.start()
    executor.submit("b")
    again.join()
    assert len(executor.given) == 3 and len(executor.watch._at["a"].ours.theirs) == 2


def test_strangers_may_send_what_they_like(executor, monkeypatch):
    executor.submit("a")
    told = executor.pool.launch_cmd.split()[1].partition("=")[2]
    _, port, token = told.split("/")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for news in (
            b"",
            b"null",
            b"[" * 4000,
            b"\xff\xfe",
            b"no a x1 0",
            f"{token} a".encode(),
            f"{token} z x1 0".encode(),
        ):
            line.sendto(news, ("127.0.0.1", int(port)))
    time.sleep(0.1)
    attempt = executor.watch._at["a"]
    assert not attempt.began
    monkeypatch.setenv(bell.BELL, told)
    bell.ring("a")
    assert wait_for(lambda: attempt.began, 10) and attempt.host and not attempt.fresh


def test_who_has_a_model_to_load_is_given_time_for_that_and_tells_nothing_of_others(executor):
    executor.submit("a")
    attempt = executor.watch._at["a"]
    for _ in range(overdue.ENOUGH):
        executor.watch.limits.note(attempt.kind, 1.0)
    attempt.began, attempt.fresh, before = time.monotonic() - 100, True, executor.watch.limits.of(attempt.kind)
    assert executor.watch._late() == ([], [])
    attempt.began -= overdue.LOADING_S
    assert executor.watch._late() == ([attempt], [])
    executor.given[0].set_result(0)
    assert executor.watch.limits.of(attempt.kind) == before
