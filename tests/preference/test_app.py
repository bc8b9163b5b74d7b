"""The stages of preferences, files in and files out: a judge's labels in both orders, their agreement, an appraisal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from apps.preference import app, judge, pairs
from apps.records import MeritError
from tests import models

ROWS = [{"prompt": f"Solve: {n}?", "chosen": f"ANSWER: {n}", "rejected": f"ANSWER: {n + 1}"} for n in range(8)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """(folder of pairs, options of whoever is asked, a reward model)."""
    folder = tmp_path_factory.mktemp("preference")
    model = models.make_model(folder / "tiny", context=2048)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "pairs").mkdir()
    facts = app.pairs(folder / "pairs", {}, {"file": str(folder / "rows.jsonl"), "side": "all"})
    assert facts == {"pairs": 8, "prompts": 8}
    options = {"engine": {"name": "transformers"}, "model": str(model), "seed": "s"}
    return folder / "pairs", options, models.make_reward_model(model, folder / "adapter")


def test_labels_of_both_orders_and_what_they_agree_with(asked, tmp_path):
    folder, options, _ = asked
    principles = judge.read_principles("")
    for name in ("prefer", "agreement"):
        (tmp_path / name).mkdir()
    section = judge.Options().model_dump(mode="json")
    app.prefer(tmp_path / "prefer", {"pairs": [folder]}, {**options, "judge": section, "principles": principles})
    labelled = pairs.read(tmp_path / "prefer")
    orders = np.array(json.loads((tmp_path / "prefer" / "orders.json").read_text()))
    assert orders.shape == (8, 2) and np.allclose([p.preferred for p in labelled], orders.mean(axis=1))
    assert len({round(p.preferred, 6) for p in labelled}) > 1
    app.agreement(tmp_path / "agreement", {"prefer": [tmp_path / "prefer"], "pairs": [folder]}, {})
    told = json.loads((tmp_path / "agreement" / "summary.json").read_text())
    truth = [p.preferred for p in pairs.read(folder)]
    same = np.mean([(p.preferred > 0.5) == (t > 0.5) for p, t in zip(labelled, truth, strict=True)])
    assert told["agreement"]["value"] == pytest.approx(same) and told["same_in_both_orders"]["value"] is not None
    pairs.write(tmp_path / "prefer", labelled[:3])
    with pytest.raises(MeritError, match="the labels are of other pairs"):
        app.agreement(tmp_path / "agreement", {"prefer": [tmp_path / "prefer"], "pairs": [folder]}, {})


def test_an_appraisal_is_of_the_models_that_were_trained(asked, tmp_path):
    folder, options, made = asked
    inputs = {"pairs": [folder], "train": [Path(made.adapter)]}
    facts = app.appraise_pairs(tmp_path, inputs, {**options, "reading": {"by": "word"}})
    told = json.loads((tmp_path / "summary.json").read_text())
    assert list(told["scores"]) == ["reward model", "untrained, by word", "the longer text"]
    assert facts == {"pairs": 8, "accuracy": told["scores"]["reward model"]["accuracy"]["value"]}
    assert told["scores"]["reward model"]["spread"] > 0 and "8 held-out pairs" in told["table"]


def test_nothing_to_appraise_by_is_told(asked, tmp_path):
    undecided = [pairs.with_preference(pair, 0.5) for pair in pairs.read(asked[0])]
    (tmp_path / "even").mkdir()
    pairs.write(tmp_path / "even", undecided)
    with pytest.raises(MeritError, match="no held-out pair of which one is better"):
        app.appraise_pairs(tmp_path, {"pairs": [tmp_path / "even"], "train": []}, asked[1])
