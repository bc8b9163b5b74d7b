"""The use of a run's cores or devices, by hand; and its figure."""

from __future__ import annotations

import re

import pytest

from apps.report import timeline
from apps.report.timeline import Session, Span

CORES = Session("a", 2, "cores", {})


def span(began, ended, cpu=None, stage="rollout", label="inference", worker="host/1", session="a") -> Span:
    return Span(stage, label, worker, began, ended, ended - began if cpu is None else cpu, session)


def test_cores_count_by_the_processors_time_from_the_first_task_to_the_last():
    use = timeline.used([CORES], [span(100, 110, 8), span(105, 120, 12, "train", "training"), span(0, 50, session="b")])
    assert (use.wall_s, use.offered_s, use.busy_s, use.share) == (20, 40, 20, 0.5)
    assert timeline.used([CORES], []).share == timeline.used([], []).share == 0


def test_a_run_that_was_stopped_counts_its_sessions_without_the_time_between():
    again = Session("b", 4, "cores", {})
    use = timeline.used([CORES, again], [span(0, 10, 10), span(1000, 1010, 40, session="b")])
    assert (use.wall_s, use.offered_s, use.share) == (20, 60, 50 / 60)


def test_devices_count_by_the_tasks_that_hold_them_and_those_who_share_one_once():
    held = Session("a", 4, "devices", {"inference": 1, "training": 3})
    spans = [span(0, 10), span(0, 5, 99, "train", "training"), span(5, 20, 99, "grade", "cpu")]
    assert timeline.used([held], spans).busy_s == 5 * 4 + 5 * 1  # grading holds none
    crowded = Session("a", 1, "devices", {"inference": 1, "training": 1})
    assert timeline.used([crowded], spans[:2]).share == 1.0


def test_the_figure_has_a_row_a_worker_and_a_colour_a_stage():
    spans = [span(0, 4), span(4, 9, stage="replay"), span(0, 3, worker="host/2"), span(9, 12, 1, "train", "training")]
    drawn = timeline.drawn([CORES], spans)
    shown = re.findall(r">([^<>\n]+)</text>", drawn)
    assert {"inference 1", "inference 2", "training 1", "rollout", "replay", "train"} <= set(shown)
    assert drawn.startswith("<svg") and "http" not in drawn and "#" not in re.sub(r'(url\(|href=")#', "", drawn)


@pytest.mark.parametrize("spread", [timeline.ROWS + 1, 1])
def test_many_workers_or_tasks_are_drawn_together(spread):
    many = [span(i % 7, i % 7 + 5, worker=f"host/{i % spread}") for i in range(timeline.SPANS + 1)]
    drawn = timeline.drawn([CORES], many)
    assert "tasks at work" in drawn and "inference 1" not in drawn and len(drawn) < 100_000


def test_rarer_stages_share_a_colour():
    spans = [span(i, i + 10 - i, stage=f"stage{i}") for i in range(9)]
    drawn = timeline.drawn([CORES], spans)
    assert "others" in drawn and "stage0" in drawn and "stage8" not in drawn
