"""What preference objectives are given: whole states, completions under other prompts, and clear refusals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.records import MeritError, Valued
from apps.training import policy
from apps.training.build import candidates, rows_of
from apps.training.mismatch import mismatched
from apps.training.objectives import kto, orpo, rrhf
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer, micro_batches, plan_steps
from tests.models import make_adapter, random_ids
from tests.training.test_build import by_value, said, trace, turn, values


def some_rows(states=(2, 3, 1, 4), seed=0, ranked=True, temperature=1.0):
    rng = np.random.default_rng(seed)
    count = sum(states)
    prompts = [random_ids(rng, int(n)) for n in rng.integers(2, 9, len(states))]
    given = [prompt for prompt, size in zip(prompts, states, strict=True) for _ in range(size)]
    completions = [random_ids(rng, int(n)) for n in rng.integers(1, 9, count)]
    numbers = np.repeat(np.arange(len(states)), states) if ranked else None
    nothing = [np.zeros(0, np.float32)] * count
    return Rows(given, completions, nothing, rng.normal(size=count), temperature, states=numbers)


def test_rows_of_a_state_are_what_was_said_in_it_with_its_values():
    found = values(
        [
            trace(i, turn("solver", state, what))
            for i, (state, what) in enumerate([(1, 1), (2, 2), (1, 3), (1, 4), (3, 5)])
        ],
        [[0.5], [1.0], [-1.0], [0.5], [0.0]],
    )
    rows = rows_of("solver", found, by_value, rrhf.NEEDS)
    assert said(rows) == [1, 3, 4] and rows.advantages.tolist() == [0.5, -1.0, 0.5]
    assert rows.states.tolist() == [0, 0, 0] and not rows.paired


def test_a_state_whose_values_are_equal_up_to_dust_ranks_nothing():
    def row(value, state="s"):
        return turn("solver"), Valued("t", "t#0", "solver", 0, state, value, 0.0)

    assert candidates([row(0.1 + 0.2), row(0.3), row(0.3)]) == []
    (kept,) = candidates([row(0.1 + 0.2), row(0.3), row(0.0), row(1.0, "other")])
    assert [value for _, value in kept] == [0.3, 0.3, 0.0]
    assert len(rows_of("solver", [row(1.0)], by_value, rrhf.NEEDS)) == 0


def test_kto_is_given_unpaired_rows_of_both_signs():
    found = values([trace(i, turn("solver", said=i)) for i in range(4)], [[0.5], [-0.5], [0.0], [2.0]])
    rows = rows_of("solver", found, by_value, kto.NEEDS)
    assert said(rows) == [0, 1, 3] and np.sign(rows.advantages).tolist() == [1, -1, 1] and not rows.paired


def test_states_survive_the_disk_and_are_cut_with_their_rows(tmp_path: Path):
    rows = some_rows()
    rows.save(tmp_path / "a.npz")
    found = Rows.load(tmp_path / "a.npz")
    assert found.states.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3]
    assert found.first(3).states.tolist() == [0, 0, 1]
    some_rows(ranked=False).save(tmp_path / "b.npz")
    assert Rows.load(tmp_path / "b.npz").states is None


@pytest.mark.parametrize("step_rows", [1, 4, 6, 100])
@pytest.mark.parametrize("tokens", [1, 40, 4096])
def test_a_state_is_never_parted(step_rows, tokens):
    rows = some_rows()
    plan = plan_steps(rows, Options(step_rows=step_rows, epochs=2), 0)
    seen = np.concatenate(plan)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    for step in plan:
        parts = list(micro_batches(rows, step, tokens))
        assert sorted(np.concatenate(parts)) == sorted(step) and len(step) <= max(4, step_rows)
        for part in [step, *parts]:
            assert all((rows.states == s).sum() == (rows.states[part] == s).sum() for s in set(rows.states[part]))


def test_a_mismatched_row_has_the_next_completion_of_another_prompt():
    rows = some_rows((2, 1, 1), ranked=False)
    members = np.array([3, 0, 1, 2])
    found = mismatched(rows, members, math.inf)
    for row, (prompt, completion) in enumerate([(3, 0), (0, 2), (1, 2), (2, 3)]):
        assert np.array_equal(found.prompts[row], rows.prompts[prompt])
        assert np.array_equal(found.completions[row], rows.completions[completion])
    assert len(found) == 4 and found.temperature == rows.temperature


def test_prompts_that_are_all_the_same_have_no_mismatch():
    assert len(mismatched(some_rows((4,), ranked=False), np.arange(4), math.inf)) == 0
    assert len(mismatched(some_rows(ranked=False), np.arange(0), math.inf)) == 0


def test_a_mismatched_row_stays_within_the_context():
    rows = some_rows(ranked=False)
    found = mismatched(rows, np.arange(10), 10)
    assert found.lengths.max() == 10 and (mismatched(rows, np.arange(10), 99).lengths > 10).any()
    assert min(map(len, found.completions)) > 0


@pytest.mark.parametrize(
    ("rows", "needs", "message"),
    [
        (some_rows(ranked=False), orpo.NEEDS, "compares pairs; given 10 single rows"),
        (Rows([np.ones(1)] * 3, [np.ones(1)] * 3, [], np.ones(3), 1.0, True), orpo.NEEDS, "one has no partner"),
        (some_rows(ranked=False), rrhf.NEEDS, "ranks the candidates of a state; given 10 rows"),
    ],
)
def test_rows_of_another_shape_are_refused(rows, needs, message):
    with pytest.raises(MeritError, match=message):
        rows.check(needs)


def test_no_rows_are_rows_of_any_shape():
    Rows([], [], [], np.zeros(0)).check(orpo.NEEDS | rrhf.NEEDS)


# Through a real model.


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """With a B that is not 0, so that the policy differs from its reference."""
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(tiny_model, folder)
    return folder


def trainer(model, adapter, **options):
    chosen = Options(lora=Lora(r=4, alpha=8), clip=1e9, **options)
    return Trainer(policy.open_policy(model, adapter, chosen, 5), chosen)


def logp_by_hand(model, prompt, completion, temperature):
    """Σ log π of a completion, nats, from full logits."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))[None]
    with torch.no_grad():
        table = (model(input_ids=ids).logits[0].float() / temperature).log_softmax(-1)
    return sum(float(table[len(prompt) + t - 1, token]) for t, token in enumerate(completion.tolist()))


def test_the_mismatch_is_that_of_full_logits(tiny_model, adapter):
    made = trainer(tiny_model, adapter, micro_tokens=30)
    rows = some_rows((1, 1, 1), ranked=False, temperature=0.7)
    differences = []
    for i, j in ((0, 1), (1, 2), (2, 0)):
        policy_logp = logp_by_hand(made.model, rows.prompts[i], rows.completions[j], 0.7)
        with made.model.disable_adapter():
            differences.append(policy_logp - logp_by_hand(made.model, rows.prompts[i], rows.completions[j], 0.7))
    assert made.mismatch(rows, np.arange(3)) == pytest.approx(np.mean(differences), abs=1e-4)
    assert abs(np.mean(differences)) > 0.01
    assert made.mismatch(some_rows((3,), ranked=False), np.arange(3)) == 0.0


@pytest.mark.parametrize("module", [kto, rrhf], ids=["kto", "rrhf"])
def test_neither_split_nor_order_changes_a_step(tiny_model, adapter, module):
    rows = some_rows(ranked=module is rrhf)

    def step(tokens):
        made = trainer(tiny_model, adapter, micro_tokens=tokens, step_rows=100)
        (metrics,) = made.fit(rows, lambda b: module.loss(b, module.Options()), module.NEEDS, 0)
        return metrics, torch.cat([p.grad.ravel() for p in made.parameters.values()])

    whole, expected = step(4096)
    metrics, found = step(1)
    assert float(expected.abs().max()) > 1e-4
    assert torch.allclose(found, expected, atol=2e-5 * max(1.0, float(expected.abs().max())), rtol=1e-3)
    assert metrics == pytest.approx(whole, rel=1e-3, abs=1e-5)


def test_kto_raises_what_is_desirable_above_the_rest(tiny_model):
    rows = some_rows((1,) * 6, ranked=False)
    rows = Rows(rows.prompts, rows.completions, rows.logprobs, np.array([1.0, -1] * 3))
    made = trainer(tiny_model, None, lr=1e-2, epochs=8, step_rows=6)
    history = list(made.fit(rows, lambda b: kto.loss(b, kto.Options()), kto.NEEDS, 0))
    assert history[0]["loss"] == pytest.approx(0.5, abs=1e-5)  # the policy is the reference
    assert history[-1]["loss"] < 0.45 and history[-1]["gain"] > 0.2
