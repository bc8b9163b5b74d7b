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
