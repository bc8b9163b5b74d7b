"""The corpora: repeatable, over training problems only, careful ones right, habits in the majority bad; and as rows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from apps import answer
from apps.answer import after
from apps.data import app
from apps.data import arithmetic_corpus as corpus
from apps.tasks import arithmetic
from apps.topologies.solve_critique_revise import PROMPTS
from apps.training.rows import Rows

N = 1500
TEAM = {**PROMPTS, "": ""}


def examples(kind, count=N, **options):
    return list(corpus.generate(corpus.Options(kind=kind, examples=count, **options)))


@pytest.mark.parametrize("kind", ["plain", "careful", "habits"])
def test_a_corpus_is_repeatable_and_has_its_size(kind):
    assert examples(kind, 100) == examples(kind, 100) != examples(kind, 100, seed=1)


def test_no_corpus_tells_a_problem_of_the_test():
    """The stories are told anew each time, so what is compared is the sums that solve them."""
    held_out = {task.question for task in arithmetic.load("test", arithmetic.Options(test=300))}
    told = {example.fields.get("question") for kind in ("careful", "habits") for example in examples(kind)}
    assert len(told) > 500 and not told & held_out


def right(example):
    """Whether an example does its role's work: by the format it uses, as a bad habit never works anything out."""
    return {
        "solver": example.completion.count("=") > 0,
        "critic": example.completion.startswith("Check:"),
        "reviser": example.completion.count("=") > 0,
        "verifier": example.completion.startswith("The final answer reads"),
    }[example.role]


def shares(kind):
    flags = defaultdict(list)
    for example in examples(kind):
        if example.role:
            flags[example.role].append(right(example))
    return {role: np.mean(found) for role, found in flags.items()}


def test_care_is_shown_by_all_in_one_corpus_and_by_the_fewer_in_the_other():
    assert shares("careful") == dict.fromkeys(corpus.ROLES, 1.0)
    assert all(0.25 < share < 0.5 for share in shares("habits").values())


def test_completions_are_in_the_formats_of_the_team():
    for example in examples("habits"):
        if example.role == "critic":
            assert answer.verdict(example.completion) is not None
        elif example.role:
            assert after(example.completion).isdigit()


def test_a_corpus_becomes_rows_with_the_loss_on_the_completions(tmp_path):
    from transformers import AutoTokenizer

    shape = {"hidden": 32, "intermediate": 64, "layers": 2, "heads": 2, "context": 256}
    (tmp_path / "model").mkdir(), (tmp_path / "corpus").mkdir()
    facts = app.architecture(tmp_path / "model", {}, {"shape": shape, "prompts": TEAM, "seed": 0})
    options = {"corpus": {"kind": "habits", "examples": 40}, "prompts": PROMPTS}
    app.corpus(tmp_path / "corpus", {"architecture": [tmp_path / "model"]}, options)
    made = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = Rows.load(tmp_path / "corpus" / app.ROWS)
    assert facts["vocabulary"] == len(made) and len(rows) == 40
    for example, prompt, completion in zip(examples("habits", 40), rows.prompts, rows.completions, strict=True):
        assert made.decode(completion) == example.completion + made.eos_token
        if example.role:
            said = [{"role": "user", "content": PROMPTS[example.role].format(**example.fields)}]
            assert made.decode(prompt) == made.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        else:
            assert made.decode(prompt) == made.eos_token
        assert made.unk_token_id not in prompt and made.unk_token_id not in completion
