"""Who teaches: a whole model, or whoever speaks for the agent in a team; and a pupil that comes nearer to its teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from apps import policies
from apps.platform.mpi import World
from apps.records import MeritError
from apps.training import fit
from apps.training.options import Options
from apps.training.rows import Rows
from tests import models

PLAIN = Options(epochs=24, lr=5e-3, step_rows=16)  # a step an epoch


def rows(count: int = 16) -> Rows:
    rng = np.random.default_rng(3)
    prompts = [models.random_ids(rng, 6) for _ in range(count)]
    completions = [models.random_ids(rng, 5) for _ in range(count)]
    return Rows(prompts, completions, [np.zeros(0, np.float32)] * count, np.ones(count))


@pytest.fixture
def team(tiny_model, tmp_path):
    """The solver has an adapter, the critic is the base model."""
    made = models.make_adapter(tiny_model, tmp_path / "made")
    (tmp_path / "team").mkdir()
    policies.write(tmp_path / "team", {"solver": made.digest, "critic": "base"}, {"solver": tmp_path / "made"})
    return tmp_path / "team"


def logits(opened) -> torch.Tensor:
    with torch.no_grad():
        return opened(torch.arange(5, 25)[None]).logits


def test_a_team_teaches_by_whoever_speaks_for_the_agent(tiny_model, team, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, team / "solver"))
    given = {"teacher": [team]}
    solver, critic = (fit.teacher(tiny_model, given, agent, PLAIN, {}) for agent in ("solver", "critic"))
    assert torch.allclose(logits(solver), adapted, atol=1e-5) and torch.allclose(logits(critic), plain, atol=1e-5)
    assert not any(p.requires_grad for opened in (solver, critic) for p in opened.parameters())
    assert fit.teacher(tiny_model, {}, "solver", PLAIN, {}) is None


def test_a_teacher_with_a_model_of_its_own_is_found_by_its_digest(tiny_model, tmp_path):
    other = models.make_model(tmp_path / "other", seed=5)
    (tmp_path / "team").mkdir()
    policies.write(tmp_path / "team", {"solver": "base"}, {}, {"solver": "digest"})
    opened = fit.teacher(tiny_model, {"teacher": [tmp_path / "team"]}, "solver", PLAIN, {"digest": str(other)})
    whole = fit.teacher(tiny_model, {"teacher": [other]}, "solver", PLAIN, {})
    assert torch.equal(logits(opened), logits(whole))


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
def test_a_pupil_comes_nearer_to_its_teacher(tiny_model, team, tmp_path, divergence):
    for folder in ("batch", "out"):
        (tmp_path / folder).mkdir()
    rows().save(tmp_path / "batch" / "solver.npz")
    options = {
        "model": str(tiny_model), "agent": "solver", "seed": 1, "training": PLAIN.model_dump(mode="json"),
        "objective": {"name": "distill", "divergence": divergence},
    }  # fmt: skip
    fit.fit(tmp_path / "out", {"batch": [tmp_path / "batch"], "teacher": [team]}, options, World())
    told = [json.loads(line)["divergence"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(told) == 24 and told[-1] < 0.5 * told[0]


def test_a_teacher_of_another_vocabulary_is_refused(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    other.resize_token_embeddings(other.config.vocab_size + 3)
    other.save_pretrained(tmp_path / "wider")
    for folder in ("batch", "out"):
        (tmp_path / folder).mkdir()
    rows().save(tmp_path / "batch" / "solver.npz")
    options = {
        "model": str(tiny_model), "agent": "solver", "seed": 1, "training": PLAIN.model_dump(mode="json"),
        "objective": {"name": "distill"},
    }  # fmt: skip
    with pytest.raises(MeritError, match="vocabular"):
        fit.fit(tmp_path / "out", {"batch": [tmp_path / "batch"], "teacher": [tmp_path / "wider"]}, options, World())
