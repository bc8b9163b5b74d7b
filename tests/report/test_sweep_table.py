"""The tables of a study, from hand-made runs: what each cell is, in every format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from apps.report import sweep, sweep_page

RUNS = {  # name -> (configuration, seed, state, validation, sampled)
    "a-0": ("a", 0, "finished", 0.4, 0.5),
    "a-1": ("a", 1, "finished", 0.6, 0.9),
    "b-0": ("b", 0, "finished", 0.9, 0.1),
    "b-1": ("b", 1, "failed", None, None),
    "c-0": ("c", 0, "finished", 0.5, 0.2),
    "d-0": ("d", 0, "left out", 0.3, None),
}


@pytest.fixture
def made(tmp_path) -> tuple[Path, dict]:
    inputs, runs = {}, []
    for name, (configuration, seed, state, validation, sampled) in RUNS.items():
        settings = {"credit.name": configuration, "tasks.levels": [seed, 4]}
        reason = "it, went\nwrong" if state == "failed" else ""
        runs.append({"name": name, "configuration": configuration, "seed": seed, "settings": settings, "changes": {},
                     "state": state, "reason": reason})  # fmt: skip
        for what, file, value in (
            ("scores", "scores.json", {"accuracy": {"value": validation}}),
            ("report", "summary.json", {"accuracy": {"sampled": {"after": {"value": sampled}}}}),
        ):
            if validation is not None and (what == "scores" or sampled is not None):
                folder = tmp_path / name / what
                folder.mkdir(parents=True)
                (folder / file).write_text(json.dumps(value))
                inputs[f"{name}/{what}"] = [folder]
    out = tmp_path / "out"
    out.mkdir()
    options = {"runs": runs, "name": "mine", "workflow": "post_train", "figures": {}}
    sweep.sweep(out, inputs, options)
    return out, json.loads((out / "sweep.json").read_text())


def test_means_and_intervals_by_hand(made):
    """Two seeds .5 and .9: mean .7, s = .2828, t(1) = 12.706, so ± 2.541."""
    _, found = made
    a = found["configurations"][0]
    figure = a["figures"]["team sampled after"]
    assert figure["mean"] == pytest.approx(0.7) and figure["high"] == pytest.approx(0.7 + 12.7062 * 0.2, abs=1e-4)
    assert [c["configuration"] for c in found["configurations"]] == ["a", "b", "c", "d"]
    assert found["figures"] == ["validation", "team sampled after"]


def test_the_best_is_chosen_by_validation_among_those_that_are_whole(made):
    """b stands higher on validation, but one of its runs failed; a is far better on test tasks, and equal to c."""
    assert made[1]["best"] == "a"
    whole = [
        {"configuration": n, "seeds": [0], "finished": f, "figures": {"validation": {"mean": v}}}
        for n, f, v in (("x", 1, 0.2), ("y", 1, 0.8), ("z", 0, 0.9), ("w", 1, 0.8))
    ]
    assert sweep.best(whole) == "y" and sweep.best(whole[2:3]) == ""


def test_csv_and_parquet_say_the_same(made):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    out, _ = made
    for name, count in (("sweep", 4), ("runs", 6)):
        rows = list(csv.DictReader((out / f"{name}.csv").open()))
        columns = pyarrow.read_table(out / f"{name}.parquet").to_pydict()
        assert len(rows) == count and list(columns) == list(rows[0])
        for column, values in columns.items():
            assert [row[column] for row in rows] == ["" if v is None else str(v) for v in values], column
    assert rows[3]["reason"] == "it, went\nwrong" and rows[0]["tasks.levels"] == "[0, 4]"
    assert rows[3]["team sampled after"] == ""  # a run that failed has no figure, which is not 0


def test_the_page_and_the_terminal_name_what_failed(made):
    out, found = made
    page, text = (out / "sweep.html").read_text(), sweep_page.text(found)
    assert page.count("<svg") == 2 and "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert "b-1: it, went" in text and "it, went" in page
    assert "a *" in text and "0.700 [-1.841, 3.241]" in text
    assert 'href="a-0/report.html"' in page and 'href="b-1/report.html"' not in page
