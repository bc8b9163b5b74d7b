"""Rows side by side in lines: each token sees what it saw alone, prompts are read once, and no loss or gradient changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.training import forward, policy
from apps.training.layout import families, fill, lay, tokens_of
from apps.training.objectives import dpo, grpo, sft
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests.models import ids, make_adapter, random_ids

LOSSES = {
    "sft": (lambda b: sft.loss(b, sft.Options()), sft.NEEDS),
    "grpo": (lambda b: grpo.loss(b, grpo.Options()), grpo.NEEDS),
    "dpo": (lambda b: dpo.loss(b, dpo.Options()), dpo.NEEDS),
}


def rows_of(pairs) -> Rows:
    prompts, completions = [np.array(p, np.int32) for p, _ in pairs], [np.array(c, np.int32) for _, c in pairs]
    old = [np.full(len(c), -1.0, np.float32) for c in completions]
    return Rows(prompts, completions, old, np.linspace(-1, 1, len(pairs)))


def seen_by(layout, place: int) -> list[tuple[int, int]]:
    """(token, position) of all that the token at a flat place attends to, in order."""
    width = layout.ids_LW.shape[1]
    line, column = divmod(place, width)
    open_ = (layout.mask(torch.float32)[line, 0, column] == 0).nonzero()[:, 0].tolist()
    return [(int(layout.ids_LW[line, k]), int(layout.positions_LW[line, k])) for k in open_]


prompts = st.sampled_from([(), (1,), (1, 2), (3, 4, 5), (6, 7, 8, 9)])
said = st.lists(st.integers(10, 99), min_size=1, max_size=6)


@settings(max_examples=80)
@given(st.lists(st.tuples(prompts, said), min_size=2, max_size=9))
def test_each_token_sees_its_own_row_up_to_itself_and_nothing_else(pairs):
    rows = rows_of(pairs)
    layout = lay(rows, range(len(pairs)), True)
    found = {
        (b, t): (h, before)
        for b, t, h, before in zip(
            *(x.tolist() for x in (layout.row_N, layout.column_N, layout.here_N, layout.before_N)), strict=True
        )
    }
    assert set(found) == {(b, t) for b, (p, c) in enumerate(pairs) for t in range(len(c)) if p or t}
    flat = layout.ids_LW.flatten().tolist()
    for (b, t), (here, before) in found.items():
        prompt, completion = pairs[b]
        whole = [*prompt, *completion]
        assert flat[here] == completion[t] and flat[before] == whole[len(prompt) + t - 1]
        if layout.packed:
            assert seen_by(layout, here) == [(token, n) for n, token in enumerate(whole[: len(prompt) + t + 1])]


@given(st.lists(st.tuples(prompts, said), min_size=1, max_size=12))
def test_lines_are_as_long_as_the_longest_family_and_hold_each_once(pairs):
    rows, micro = rows_of(pairs), range(len(pairs))
    given_ = families(rows, micro)
    assert sorted(b for _, members in given_ for b in members) == list(micro)
    sizes = [tokens_of(family, rows, micro) for family in given_]
    lines = fill(given_, rows, micro)
    assert sorted(b for line in lines for _, members in line for b in members) == list(micro)
    assert max(sum(tokens_of(f, rows, micro) for f in line) for line in lines) == max(sizes)
    assert len(lines) <= 2 * -(-sum(sizes) // max(sizes))  # best fit never needs twice the room


def test_a_prompt_of_several_rows_is_read_once():
    layout = lay(rows_of([((1, 2, 3), (10, 11)), ((1, 2, 3), (12,)), ((4,), (13,))]), [0, 1, 2], True)
    assert layout.ids_LW.tolist() == [[1, 2, 3, 10, 11, 12], [4, 13, 0, 0, 0, 0]]
    assert layout.positions_LW.tolist()[0] == [0, 1, 2, 3, 4, 3]


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(tiny_model, folder)
    return folder


def step(model, adapter, rows, name, **options):
    chosen = Options(lora=Lora(r=4, alpha=8), clip=1e9, step_rows=len(rows), **options)
    made = Trainer(policy.open_policy(model, adapter, chosen, 5), chosen)
    (metrics,) = made.fit(rows, *LOSSES[name], 0)
    return made, metrics["loss"], torch.cat([p.grad.ravel() for p in made.parameters.values()])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", LOSSES)
def test_packing_changes_neither_loss_nor_gradient(tiny_model, adapter, name, attention):
    rng = np.random.default_rng(0)
    shared = [random_ids(rng, n) for n in (9, 4, 6)]
    completions = [random_ids(rng, int(n)) for n in rng.integers(1, 12, 12)]
    old = [-rng.random(len(c)).astype(np.float32) for c in completions]
    rows = Rows([shared[i // 4] for i in range(12)], completions, old, rng.normal(size=12), paired=name == "dpo")
    made, loss, gradient = step(tiny_model, adapter, rows, name, attention=attention)
    assert made.forward.packed and float(gradient.abs().max()) > 1e-3
    for options in ({"packing": False}, {"micro_tokens": 40}):
        _, other_loss, other = step(tiny_model, adapter, rows, name, attention=attention, **options)
        assert abs(loss - other_loss) < 1e-4 * max(1, abs(loss))
        assert torch.allclose(gradient, other, atol=2e-5 * max(1.0, float(gradient.abs().max())), rtol=1e-3)


def test_documents_without_a_prompt_do_not_see_each_other(tiny_model, adapter):
    rng = np.random.default_rng(1)
    texts = [random_ids(rng, n) for n in (20, 5, 9, 3, 2)]
    rows = Rows([ids()] * 5, texts, [np.zeros(0, np.float32)] * 5, np.ones(5))
    _, loss, gradient = step(tiny_model, adapter, rows, "sft")
    _, alone, other = step(tiny_model, adapter, rows, "sft", packing=False)
    assert abs(loss - alone) < 1e-4 and torch.allclose(gradient, other, atol=1e-4, rtol=1e-3)


def test_a_model_that_takes_no_mask_of_ours_is_not_packed(tiny_model):
    chosen = Options(lora=None)
    opened = policy.open_policy(tiny_model, None, chosen, 0)
    assert forward.Forward(opened, chosen).packed
    opened.config.sliding_window = 16
    assert not forward.Forward(opened, chosen).packed
    opened.config.sliding_window = None
    read = opened.model.forward
    opened.model.forward = lambda input_ids, attention_mask, use_cache: read(
        input_ids, attention_mask, use_cache=use_cache
    )
    assert not forward.Forward(opened, chosen).packed


def test_a_model_that_sees_across_rows_is_not_packed(tiny_model):
    """One whose attention heeds no mask would let completions see each other."""
    chosen = Options(lora=None)
    opened = policy.open_policy(tiny_model, None, chosen, 0)
    read = opened.model.forward
    opened.model.forward = lambda input_ids, attention_mask, use_cache, position_ids=None: read(
        input_ids, use_cache=use_cache
    )
    assert not forward.Forward(opened, chosen).packed
