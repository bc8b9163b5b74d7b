"""Every policy-gradient objective on a real model: what earned credit becomes likelier, what was blamed less likely."""

from __future__ import annotations

import numpy as np
import pytest

from apps import leaf
from apps.training import policy
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests.models import ids, random_ids

NAMES = ["reinforce", "ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"]


def sampled(trainer):
    """Two completions of one prompt with the model's own log-probabilities, as if it had sampled them."""
    rng = np.random.default_rng(0)
    prompts, completions = [ids(5, 6, 7)] * 2, [random_ids(rng, 3), random_ids(rng, 6)]
    rows = Rows(prompts, completions, [np.zeros(0, np.float32)] * 2, np.array([1.0, -1.0]))
    return Rows(prompts, completions, trainer.score(rows), rows.advantages)


@pytest.mark.parametrize("name", NAMES)
def test_credit_moves_the_model(tiny_model, name):
    options = Options(lora=Lora(r=4, alpha=8), lr=1e-2, epochs=3)
    trainer = Trainer(policy.open_policy(tiny_model, None, options, 5), options)
    module = leaf.find("training/objectives", name)
    tuned = module.Options(beta=0.01)
    rows = sampled(trainer)
    before = [float(s.sum()) for s in rows.logprobs]
    history = list(trainer.fit(rows, lambda batch: module.loss(batch, tuned), module.needs(tuned), 0))
    after = [float(s.sum()) for s in trainer.score(rows)]
    assert after[0] > before[0] and after[1] < before[1]
    first, last = history[0], history[-1]
    assert first["kl"] == pytest.approx(0, abs=1e-6) and last["kl"] > 1e-6
    if name != "reinforce":
        assert first["ratio_mean"] == pytest.approx(1, abs=1e-4) and first["clip_fraction"] == 0


def history_of(tiny_model, name, rows, epochs=1, **given):
    """The steps of a training, and the trainer after it."""
    options = Options(lora=Lora(r=4, alpha=8), lr=1e-2, epochs=epochs)
    trainer = Trainer(policy.open_policy(tiny_model, None, options, 5), options)
    module = leaf.find("training/objectives", name)
    tuned = module.Options(beta=0.0, **given)
    return list(trainer.fit(rows, lambda batch: module.loss(batch, tuned), module.needs(tuned), 0)), trainer


@pytest.mark.parametrize("name", [name for name in NAMES if name != "reinforce"])
def test_an_engine_that_says_other_probabilities_is_corrected_for(tiny_model, name):
    """Its log-probabilities are off by up to .4 nats a token: in the ratio, or in weights beside a ratio of 1."""
    options = Options(lora=Lora(r=4, alpha=8))
    rows = sampled(Trainer(policy.open_policy(tiny_model, None, options, 5), options))
    noise = np.random.default_rng(1)
    said = [(row + noise.uniform(-0.4, 0.4, len(row))).astype(np.float32) for row in rows.logprobs]
    rows = Rows(rows.prompts, rows.completions, said, rows.advantages)
    (plain,), _ = history_of(tiny_model, name, rows)
    (held, *rest), _ = history_of(tiny_model, name, rows, epochs=3, truncation=1.1)
    assert abs(plain["ratio_mean"] - 1) > 1e-3 and held["ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert held["clip_fraction"] == 0 and held["truncated"] > 0 and held["mismatch_kl"] > 1e-3
    assert rest[-1]["mismatch_kl"] == pytest.approx(held["mismatch_kl"], abs=1e-5), (
        "a fact of the samples, not of the steps"
    )
    assert rest[-1]["ratio_mean"] != pytest.approx(1, abs=1e-5), "π_θ moves, the anchor stays"


def test_the_entropy_bonus_keeps_a_model_unsure(tiny_model):
    options = Options(lora=Lora(r=4, alpha=8))
    rows = sampled(Trainer(policy.open_policy(tiny_model, None, options, 5), options))
    found = {c: history_of(tiny_model, "ppo", rows, epochs=6, entropy=c)[0] for c in (1e-6, 1.0)}
    assert found[1.0][0]["entropy"] == pytest.approx(found[1e-6][0]["entropy"], abs=1e-5)
    assert (
        found[1.0][-1]["entropy"] > found[1.0][0]["entropy"]
        and found[1.0][-1]["entropy"] > found[1e-6][-1]["entropy"] + 0.01
    )
