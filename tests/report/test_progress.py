"""Counting, rates and the two displays."""

from __future__ import annotations

import io
import re
import threading

import pytest

from apps.report import progress
from apps.report.progress import Progress, clock
from apps.report.tally import Tally


def run_two_rounds(shown: Progress) -> None:
    for number in (1, 2):
        for k in range(3):
            shown.expect(f"{number}r{k}", "rollout", number)
        shown.expect(f"{number}g", "grade", number)
    for number in (1, 2):
        for k in range(3):
            shown.event("rollout", f"{number}r{k}", "begun")
            shown.event("rollout", f"{number}r{k}", "made", {"tokens": 500, "seconds": 2.0})
        shown.event("grade", f"{number}g", "begun")
        shown.event("grade", f"{number}g", "made", {"reward": 0.25 * number})


def test_time_left_is_the_remaining_work_at_the_measured_pace():
    tally = Tally({"rollout": 4, "train": 2})
    for k in range(2):
        tally.expect(f"r{k}", "rollout", 1)
        tally.event("rollout", f"r{k}", "begun", None, now=100.0)
        tally.event("rollout", f"r{k}", "made", {"seconds": 10.0, "tokens": 50}, now=110.0)
    # two workers: 20 s of work in 10 s. Left: 2 rollouts of 10 s, 2 trainings as long as a usual task, 10 s
    assert tally.seconds_left(110.0) == pytest.approx(20.0)
    assert tally.tokens_per_second == pytest.approx(5.0)
    assert tally.counts() == {"rollout": (2, 4), "train": (0, 2)}


def test_what_was_found_counts_as_done_and_not_as_work():
    tally = Tally()
    tally.expect("a", "rollout", 3)
    tally.event("rollout", "a", "found", {"seconds": 99.0, "tokens": 10}, now=1.0)
    assert tally.counts() == {"rollout": (1, 1)} and tally.finished("rollout", 3) == (1, 1)
    assert tally.seconds_left(2.0) is None and tally.tokens_per_second is None


def test_a_joined_task_is_done_once():
    tally = Tally()
    for event in ("begun", "joined", "made"):
        tally.event("rollout", "a", event, {}, now=1.0)
    assert tally.counts() == {"rollout": (1, 1)}


def test_plain_lines_one_a_stage_and_round_and_no_escapes():
    stream = io.StringIO()
    with Progress(None, stream, "demo", rounds=2) as shown:
        run_two_rounds(shown)
        shown.say("hello")
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines) and "\033" not in stream.getvalue()
    said = [line[9:] for line in lines]
    assert said[:4] == [
        "round 1/2: rollout 3/3",
        "round 1/2: grade 1/1, reward 0.250",
        "round 2/2: rollout 3/3",
        "round 2/2: grade 1/1, reward 0.500",
    ]
    assert (
        said[4] == "hello"
        and said[5].startswith("round 2/2, 8/8 tasks, 250 tokens/s, reward 0.500, ")
        and len(said) == 6
    )


def test_a_silence_is_broken(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    spoken = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            spoken.set()
            return super().write(text)

    with Progress({"rollout": 5}, Stream()) as shown:
        assert spoken.wait(20)
        assert "before round 1, 0/5 tasks" in shown.stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["120", "30"])
def test_a_terminal_shows_one_block(monkeypatch, columns):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    with Progress({"train": 8}, stream, "demo", rounds=2) as shown:
        run_two_rounds(shown)
        shown.say("[kept] as it is")
    text = re.sub(r"\033\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    last = text[text.rindex("demo") :]
    assert re.search(r"rollout +6/6", last) and re.search(r"train +0/8", last) and "round 2/2" in last
    assert "[kept] as it is" in text
    assert ("━" in last) == (columns == "120")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(None, stream) as shown:
        run_two_rounds(shown)
    assert "\033" not in stream.getvalue() and "round 1: rollout 3/3" in stream.getvalue()


def test_threads_do_not_lose_events():
    with Progress(None, io.StringIO()) as shown:
        threads = [
            threading.Thread(target=lambda n=n: [shown.event("rollout", f"{n}/{k}", "made", {}) for k in range(200)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shown.tally.counts() == {"rollout": (1600, 1600)}


def test_a_failure_is_said_at_once():
    stream = io.StringIO()
    with Progress(None, stream) as shown:
        shown.expect("a", "train", 1)
        shown.event("train", "a", "failed")
        assert "train failed (round 1)" in stream.getvalue()


def test_clock():
    assert [clock(s) for s in (0.4, 42, 725, 10807)] == ["0:00", "0:42", "12:05", "3:00:07"]


def test_the_block_and_what_is_said_do_not_wait_for_each_other(monkeypatch):
    """rich draws under its own lock and the block takes ours; a line said under ours would wait for ever."""
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress(None, Terminal()) as shown:
        talk = [threading.Thread(target=lambda: [shown.say("x") for _ in range(100)], daemon=True) for _ in range(2)]
        fail = threading.Thread(
            target=lambda: [shown.event("train", str(k), "failed") for k in range(100)], daemon=True
        )
        for thread in (*talk, fail):
            thread.start()
        for _ in range(50):
            shown._live.refresh()
        for thread in (*talk, fail):
            thread.join(20)
            assert not thread.is_alive()
