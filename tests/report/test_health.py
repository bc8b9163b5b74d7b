"""Figures of health by hand, and when they alarm."""

from __future__ import annotations

import json
from math import isnan, nan

import pytest

from apps.report import health

CALM = {"round": 1, "kl": 0.1, "entropy": 0.8, "length": 20.0, "unparsed": 0.0, "clip_fraction": 0.05}


def test_a_round_is_shown_by_its_last_steps():
    steps = [{"kl": float(k), "loss": 1.0, "ratio_mean": 1.02 + k} for k in range(20)]
    row = health.of_training(steps)
    assert row["kl"] == pytest.approx(14.5) and row["mismatch"] == pytest.approx(0.02)
    assert isnan(row["clip_fraction"])
    assert all(isnan(value) for value in health.of_training([]).values())


def test_a_large_kl_alone_is_no_alarm():
    far = {**CALM, "round": 2, "kl": 0.9}
    assert health.alarms({"critic": [CALM, far]}, [0.5, 0.6], [0.5, 0.6]) == []
    [said] = health.alarms({"critic": [CALM, {**far, "entropy": 0.3}]}, [0.5, 0.6], [0.5, 0.6])
    assert said == "critic, round 2: KL 0.90 nats a token, and its entropy fell by half"
    assert health.alarms({"critic": [CALM, {**CALM, "round": 2, "entropy": 0.3}]}, [0.5], [0.5]) == []


def test_what_is_unknown_does_not_alarm():
    unknown = {**dict.fromkeys(CALM, nan), "round": 1}
    assert health.alarms({"critic": [unknown, unknown]}, [nan, nan], [nan, nan]) == []


@pytest.mark.parametrize(("held_out", "count"), [([0.5, 0.5], 1), ([0.5, 0.4], 1), ([0.5, 0.6], 0)])
def test_reward_up_and_held_out_flat_is_the_alignment_tax(held_out, count):
    assert len(health.alarms({}, [0.4, 0.6], held_out)) == count


def test_what_a_value_model_had_foreseen_is_told_of_its_own_agent_or_of_all(tmp_path):
    for number, facts in enumerate(
        ({"critic.value": {"explained": 0.25}}, {"team.value": {"explained": None}}, {"critic": {}})
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "facts.json").write_text(json.dumps(facts))
    own, team, none = ([tmp_path / str(number)] for number in range(3))
    assert health.explained(own, "critic") == 0.25 and isnan(health.explained(own, "solver"))
    assert isnan(health.explained(team, "solver")) and isnan(health.explained(none, "critic"))
