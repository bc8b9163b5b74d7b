"""Documents as rows: every token predicted once, no copy kept; in the trainer, packed rows equal separate documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.data import documents
from apps.records import MeritError
from tests.models import random_ids

END = 4


def test_rows_by_hand():
    rows = documents.rows_of([np.array([7, 8]), np.array([5, 6, 7, 8, 9, END])], 4, None, END)
    assert [p.tolist() for p in rows.prompts] == [[], [], [8]]
    assert [c.tolist() for c in rows.completions] == [[7, 8, END], [5, 6, 7, 8], [9, END]]
    rows = documents.rows_of([np.array([7, 8, 9])], 3, 1, END)
    assert [p.tolist() for p in rows.prompts] == [[1], [8]] and [c.tolist() for c in rows.completions] == [
        [7, 8],
        [9, END],
    ]


@given(st.lists(st.integers(5, 60), min_size=1, max_size=40), st.integers(2, 9), st.booleans())
def test_every_token_is_predicted_once_from_what_precedes_it(ids, context, begins):
    rows = documents.rows_of([np.array(ids)], context, 1 if begins else None, END)
    assert np.concatenate(list(rows.completions)).tolist() == [*ids, END] and max(rows.lengths) <= context
    for before, prompt in zip(rows.completions[:-1], rows.prompts[1:], strict=True):
        assert prompt.tolist() == [before[-1]]


def test_files_folders_and_their_faults(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n\n{"text": "three"}\n')
    (tmp_path / "a.txt").write_text("one")
    assert list(documents.read(tmp_path, "text", "data.x")) == ["one", "two", "three"]
    with pytest.raises(MeritError, match=r"b.jsonl, line 1: no text in the column 'body' \(there is: text\)"):
        list(documents.read(tmp_path / "b.jsonl", "body", "data.x"))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(MeritError, match="no text in UTF-8"):
        list(documents.read(tmp_path / "a.txt", "text", "data.x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MeritError, match="data.x=.*no document"):
        list(documents.read(tmp_path / "empty", "text", "data.x"))


def test_copies_go_within_and_across_domains_and_held_out_documents_were_not_learnt():
    seen: set[str] = set()
    assert documents.once(["a", " a\n", "", "b"], seen) == ["a", "b"] and documents.once(["b", "c"], seen) == ["c"]
    texts = [str(i) for i in range(50)]
    taught, held = documents.divided(texts, 0.1, 200, 0)
    assert len(held) == 5 and sorted(taught + held) == sorted(texts)
    assert documents.divided(texts[::-1], 0.1, 200, 0)[1] == held
    assert len(documents.divided(texts, 0.5, 3, 0)[1]) == 3 and documents.divided(["a"], 0.5, 3, 0) == (["a"], [])


def test_words_that_spell_a_special_token_are_words():
    from transformers import AutoTokenizer

    from workflows.model import EMBEDDED

    made = AutoTokenizer.from_pretrained(EMBEDDED)
    (plain,), (special,) = (list(documents.encoded(made, ["12<|end|>"], meant)) for meant in (False, True))
    assert END not in plain and special[-1] == END and len(special) == 3


def test_packed_documents_give_the_loss_and_the_gradient_of_separate_ones(tiny_model):
    from apps.training import policy
    from apps.training.objectives import sft
    from apps.training.options import Options
    from apps.training.trainer import Trainer

    rng = np.random.default_rng(0)
    rows = documents.rows_of([random_ids(rng, n) for n in (30, 3, 70, 11, 25)], 40, None, END)
    found = []
    for tokens in (1, 4096):
        options = Options(lora=None, micro_tokens=tokens, clip=1e9, step_rows=len(rows))
        trainer = Trainer(policy.open_policy(tiny_model, None, options, 0), options)
        (metrics,) = trainer.fit(rows, lambda b: sft.loss(b, sft.Options()), sft.NEEDS, 0)
        found.append((metrics["loss"], {n: p.grad.clone() for n, p in trainer.parameters.items()}))
    (alone, expected), (packed, got) = found
    assert packed == pytest.approx(alone, rel=1e-5)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 1e-3
    for name, gradient in expected.items():
        assert float((gradient - got[name]).abs().max()) < 2e-5 * max(1.0, scale), name
