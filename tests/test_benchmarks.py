"""The benchmarks' own arithmetic, and that those which need a machine of their own run on a small one."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import baseline, figures, gpu, head_memory, main
from tests.benchmarks.figures import Figure


@pytest.mark.parametrize(("unit", "ratio"), [("s", 3.0), ("MiB", 3.0), ("tokens/s", 1 / 3)])
def test_a_ratio_above_one_is_better_whatever_the_unit(unit, ratio):
    assert Figure("x", 2.0, unit, 6.0).ratio == pytest.approx(ratio)


def test_what_was_not_measured_or_has_no_baseline_has_no_ratio():
    assert Figure("x", None, "s", 1.0).ratio is None and Figure("x", 1.0, "s").ratio is None


def test_turns_are_taken_one_after_another_and_their_medians_told():
    order: list[str] = []
    mine, other = figures.in_turns(lambda: order.append("a"), lambda: order.append("b"), runs=3)
    assert order == ["a", "b"] * 4 and 0 <= mine < 1 and 0 <= other < 1


def test_the_table_and_the_file_say_the_same(tmp_path, monkeypatch, capsys):
    found = {"one": [Figure("one", 1.5, "s", 4.5)], "two": [Figure("two", None, "", remark="not run")]}
    monkeypatch.setattr(main, "measured", found.__getitem__)
    monkeypatch.setattr(main, "OUT", tmp_path / "runs" / "benchmarks.json")
    main.main(("one", "two"))
    rows = json.loads((tmp_path / "runs" / "benchmarks.json").read_text())
    assert [row["ratio"] for row in rows] == [3.0, None] and rows[0]["baseline"] == 4.5
    assert {"name", "value", "unit", "baseline", "ratio"} <= set(rows[0])
    assert "| one | 1.5 | s | 4.5 | 3 |" in capsys.readouterr().out


def test_a_benchmark_that_fails_is_told_and_the_others_go_on(capsys):
    (found,) = main.measured("none_of_this_name")
    assert found.value is None and "failed" in found.remark and "none_of_this_name" in found.remark


def test_the_gpu_benchmark_measures_on_a_small_machine_too():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape = {**small, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 512}
    peak, decoding, training = gpu.measured("cpu", shape, prompts=2, completion=4, side=64)
    assert min(peak.value, decoding.value, training.value) > 0
    assert "of the peak" in decoding.remark and "of the peak" in training.remark


def test_the_head_never_holds_all_logits(monkeypatch):
    """In a process of its own, as the benchmark does it: far below the 293 MiB that the logits would be."""
    call = "import tests.benchmarks.head_memory as m; m.TOKENS = 512; m.measure(m.ours)"
    monkeypatch.setattr(head_memory, "CALL", call)
    assert float(head_memory.aside("ours")) < 512 * 150_000 * 4 / 2**20


def test_without_the_baseline_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr(baseline, "installed", lambda: False)
    monkeypatch.setattr(head_memory, "aside", lambda way: "12.5")
    (figure,) = head_memory.figures()
    assert figure.value == 12.5 and figure.baseline is None and "TRL is not installed" in figure.remark
