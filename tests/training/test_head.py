"""Figures of the next token over chunks of the logits: the same as from all at once, and as worked out in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from apps.records import MeritError
from apps.training import head, policy
from apps.training.batch import Batch
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests.models import make_model, random_ids


def softmax(logits, temperature):
    weights = [math.exp(x / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_figures_against_plain_python(temperature):
    mine, theirs = [[0.3, -1.0, 2.0], [0.0, 0.5, -0.5]], [[1.0, 1.0, -2.0], [0.1, 0.0, 0.0]]
    tokens = torch.tensor([2, 0])
    both = head.logprobs_and_entropy(torch.tensor(mine), tokens, temperature)
    alone = head.logprobs(torch.tensor(mine), tokens, temperature)
    for row, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        p, q = softmax(a, temperature), softmax(b, temperature)  # student, teacher
        assert math.isclose(both[row, 0], math.log(p[int(tokens[row])]), rel_tol=1e-5)
        assert math.isclose(alone[row], both[row, 0], rel_tol=1e-5)
        assert math.isclose(both[row, 1], -sum(x * math.log(x) for x in p), rel_tol=1e-5)
        middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
        wanted = {"forward": kl(q, p), "reverse": kl(p, q), "jensen_shannon": (kl(q, middle) + kl(p, middle)) / 2}
        for kind, value in wanted.items():
            found = head.divergence(kind, torch.tensor(mine), torch.tensor(theirs), temperature)
            assert math.isclose(found[row], value, rel_tol=1e-4, abs_tol=1e-6), kind


def test_chunks_change_neither_figures_nor_gradient(monkeypatch):
    torch.manual_seed(0)
    hidden, tokens = torch.randn(23, 8, dtype=torch.float64), torch.randint(0, 50, (23,))
    weight = torch.randn(50, 8, dtype=torch.float64)

    def figures(limit):
        monkeypatch.setattr(head, "LOGITS", limit)
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        found = head.over_chunks(lambda part, t: head.logprobs_and_entropy(part @ w.T, t, 0.7), 50, h, tokens)
        (found[:, 0].sum() - 0.3 * found[:, 1].square().sum()).backward()
        return found.detach(), h.grad, w.grad

    whole = figures(1 << 20)
    for limit in (1, 50, 400):
        for one, other in zip(whole, figures(limit), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_all_logits_are_never_held(monkeypatch):
    """No tensor as large as (tokens x vocabulary) is made, forward or backward."""
    monkeypatch.setattr(head, "LOGITS", 1000)
    largest = 0

    def watched(part, tokens):
        nonlocal largest
        logits = part @ torch.ones(100, 4).T
        largest = max(largest, logits.numel())
        return head.logprobs(logits, tokens, 1.0)

    hidden = torch.randn(64, 4, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        head.over_chunks(watched, 100, hidden, torch.zeros(64, dtype=torch.long)).sum().backward()
    assert largest == 1000 and max(saved) < 64 * 100


LORA = Lora(r=4, alpha=8)


def some_rows(columns=None, count=4):
    rng = np.random.default_rng(0)
    completions = [random_ids(rng, n) for n in (3, 6, 1, 4)][:count]
    prompts = [random_ids(rng, n) for n in (5, 2, 7, 3)][:count]
    old = [-rng.random(len(c)).astype(np.float32) for c in completions]
    return Rows(prompts, completions, old, np.ones(count), columns=columns or {})


def trainer(model, scalar=False, teacher=None, **options):
    chosen = Options(**{"lora": LORA, "step_rows": 4, **options})
    opened = policy.open_policy(model, None, chosen, 5)
    if scalar:
        policy.add_scalar_head(opened, model)
        torch.nn.init.normal_(opened.scalar_head.weight)
    return Trainer(opened, chosen, teacher=teacher)


COUNTS = {"tokens": 14.0, "sequences": 4.0, "pairs": 2.0}


def batch(made, rows, *needs) -> Batch:
    return made.batch(rows, np.arange(len(rows)), frozenset(needs), COUNTS)


def full_logits(made, rows, i):
    row = torch.from_numpy(np.concatenate([rows.prompts[i], rows.completions[i]]).astype(np.int64))[None]
    out = made.model(input_ids=row, output_hidden_states=True)
    return out.logits[0], made.model.base_model.model.model(input_ids=row).last_hidden_state[0]


def test_entropy_scores_and_values_are_read_at_their_places(tiny_model):
    rows, made = some_rows(), trainer(tiny_model, scalar=True)
    read = batch(made, rows, "entropy", "scores", "values", "logprobs")
    only = batch(made, rows, "scores")
    assert only.logprobs_BT is None and torch.allclose(only.scores_BT, read.scores_BT)
    for i in range(4):
        logits, states = full_logits(made, rows, i)
        start, length = len(rows.prompts[i]), len(rows.completions[i])
        scalars = made.model.scalar_head(states)[:, 0]
        p = logits.softmax(-1)
        entropy = -(p * p.log()).sum(-1)
        assert torch.allclose(read.scores_BT[i, :length], scalars[start : start + length], atol=1e-4)
        assert torch.allclose(read.values_BT[i, :length], scalars[start - 1 : start + length - 1], atol=1e-4)
        assert torch.allclose(read.entropy_BT[i, :length], entropy[start - 1 : start + length - 1], atol=1e-4)
        assert not read.scores_BT[i, length:].any()


def test_the_anchor_stays_while_the_policy_moves(tiny_model):
    rows, made, seen = some_rows(), trainer(tiny_model, epochs=3, lr=1e-2), []

    def loss(b):
        seen.append((b.anchor_BT.clone(), b.logprobs_BT.detach()))
        return -b.logprobs_BT.sum() / b.tokens, {}

    list(made.fit(rows, loss, frozenset({"anchor"}), 0))
    total = [float(a.sum()) for a, _ in seen]
    assert len(seen) == 3 and np.allclose(total, total[0], rtol=1e-5)
    assert torch.allclose(*seen[0], atol=1e-5) and not torch.allclose(*seen[2], atol=1e-2)


def test_columns_are_masks_targets_and_advantages_of_tokens(tiny_model, tmp_path):
    completions = some_rows().completions
    columns = {
        "mask": [np.arange(len(c), dtype=np.float32) % 2 for c in completions],
        "advantages": [np.full(len(c), -0.5, np.float32) for c in completions],
        "targets": [np.where(np.arange(len(c)) == 0, np.nan, 2.0).astype(np.float32) for c in completions],
        "values": [np.full(len(c), 0.25, np.float32) for c in completions],
    }
    rows = some_rows(columns)
    rows.save(tmp_path / "rows.npz")
    rows = Rows.load(tmp_path / "rows.npz")
    assert all(
        np.array_equal(a, b, equal_nan=True) for n in columns for a, b in zip(rows.columns[n], columns[n], strict=True)
    )
    made = trainer(tiny_model, scalar=True)
    read = batch(made, rows.first(3), "advantages", "targets", "old_values", "scores")
    assert read.mask_BT[1].tolist() == [0, 1, 0, 1, 0, 1] and read.mask_BT[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert read.advantages_BT[0, 0] == -0.5 and read.old_values_BT[2, 0] == 0.25
    assert torch.isnan(read.targets_BT[1, 0]) and read.targets_BT[1, 1] == 2
    (metrics,) = trainer(tiny_model).fit(
        rows, lambda b: (-(b.logprobs_BT * b.mask_BT).sum() / b.tokens, {}), frozenset(), 0
    )
    assert metrics["tokens"] == sum(float(m.sum()) for m in columns["mask"])


def test_what_is_missing_is_named(tiny_model):
    for need, message in (
        ("targets", "targets for every token"),
        ("scores", "without one"),
        ("teacher", "none is given"),
    ):
        with pytest.raises(MeritError, match=message):
            list(trainer(tiny_model).fit(some_rows(), lambda b: (b.logprobs_BT.sum(), {}), frozenset({need}), 0))
    short = some_rows({"mask": [np.ones(2, np.float32)] * 4})
    with pytest.raises(MeritError, match="row 0 has 3 completion tokens, but 2"):
        list(trainer(tiny_model).fit(short, lambda b: (b.logprobs_BT.sum(), {}), frozenset(), 0))


def test_a_scalar_head_is_saved_and_found_again(tiny_model, tmp_path):
    rows, made = some_rows(), trainer(tiny_model, scalar=True)
    wanted = batch(made, rows, "scores").scores_BT
    assert "scalar_head.weight" in made.parameters
    for name, lora in (("adapter", LORA), ("whole", None)):
        made = trainer(tiny_model, scalar=True, lora=lora)
        made.model.scalar_head.load_state_dict({"weight": torch.ones(1, 32), "bias": torch.ones(1)})
        wanted = batch(made, rows, "scores").scores_BT
        folder = tmp_path / name
        policy.save(made.model, tiny_model, folder)
        chosen = Options(lora=lora)
        opened = policy.open_policy(folder if lora is None else tiny_model, folder if lora else None, chosen, 0)
        policy.add_scalar_head(opened, folder)
        assert torch.allclose(batch(Trainer(opened, chosen), rows, "scores").scores_BT, wanted, atol=1e-5)


def test_the_teachers_divergence_is_over_the_whole_vocabulary(tiny_model, tmp_path):
    other = make_model(tmp_path / "other", seed=3)
    rows, chosen = some_rows(), Options(lora=None)
    made = trainer(tiny_model, teacher=policy.open_base(other, chosen).eval())
    apart = batch(made, rows, "teacher").divergence("forward", 2.0)
    assert apart.requires_grad
    for i in range(4):
        mine, _ = full_logits(made, rows, i)
        row = torch.from_numpy(np.concatenate([rows.prompts[i], rows.completions[i]]).astype(np.int64))[None]
        theirs = policy.open_base(other, chosen)(input_ids=row).logits[0]
        start, length = len(rows.prompts[i]), len(rows.completions[i])
        q, p = (x[start - 1 : start + length - 1].div(2).log_softmax(-1) for x in (theirs, mine))
        assert torch.allclose(apart[i, :length], (q.exp() * (q - p)).sum(-1), atol=1e-4)
    itself = trainer(tiny_model, teacher=policy.open_base(tiny_model, chosen).eval())
    assert float(batch(itself, rows, "teacher").divergence("reverse", 1.0).abs().max()) < 1e-5
