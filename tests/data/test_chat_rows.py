"""Conversations as rows: what carries loss, by hand and against the template's own marks; truncation; bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.data import chat_rows, conversations, truncation
from apps.data.chat_rows import Said
from apps.records import MeritError

PLAIN = (  # the embedded model's template without {% generation %}
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>\n"
    "{% else %}<|user|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (  # only the last answer keeps what is before the comma
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{{ m['content'] if loop.last else m['content'].split(',')[-1] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TALK = [
    {"role": "system", "content": "Check"},
    {"role": "user", "content": "Ana has 12 pens."},
    {"role": "assistant", "content": "12 + 3 makes 15. ANSWER: 15"},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "ANSWER: 4"},
]


@pytest.fixture()
def tokenizer():
    from transformers import AutoTokenizer

    from workflows.model import EMBEDDED

    return AutoTokenizer.from_pretrained(EMBEDDED)


def learnt(tokenizer, row: Said) -> str:
    return tokenizer.decode(row.completion[row.mask == 1])


def test_loss_is_on_what_the_assistant_said_and_agrees_with_the_templates_own_marks(tokenizer):
    (row,) = chat_rows.rows(tokenizer, {"messages": TALK})
    told = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    assert np.concatenate([row.prompt, row.completion]).tolist() == told["input_ids"]
    assert [0] * len(row.prompt) + row.mask.tolist() == told["assistant_masks"]
    assert learnt(tokenizer, row) == "12 + 3 makes 15. ANSWER: 15<|end|>ANSWER: 4<|end|>"


def test_a_template_without_marks_gives_the_same_and_no_loss_on_what_follows_the_end(tokenizer):
    tokenizer.chat_template = PLAIN
    (row,) = chat_rows.rows(tokenizer, {"messages": TALK})
    assert learnt(tokenizer, row) == "12 + 3 makes 15. ANSWER: 15<|end|>ANSWER: 4<|end|>"
    assert row.mask[0] == row.mask[-1] == 1


def test_masked_spans_and_messages_without_loss(tokenizer):
    content = TALK[2]["content"]
    masked = {**TALK[2], "masked": [[content.index("ANSWER"), len(content)]]}
    (row,) = chat_rows.rows(tokenizer, {"messages": [*TALK[:2], masked]})
    assert learnt(tokenizer, row) == "12 + 3 makes 15.<|end|>"
    (row,) = chat_rows.rows(tokenizer, {"messages": [*TALK[:2], {**TALK[2], "loss": False}, *TALK[3:]]})
    assert learnt(tokenizer, row) == "ANSWER: 4<|end|>" and "15" in tokenizer.decode(row.prompt)
    assert not chat_rows.rows(tokenizer, {"messages": [*TALK[:2], {**TALK[2], "loss": False}]})
    with pytest.raises(MeritError, match=r"\[0, 99\] is no span of a text of 27 characters"):
        chat_rows.rows(tokenizer, {"messages": [*TALK[:2], {**TALK[2], "masked": [[0, 99]]}]})


def test_a_template_that_rewrites_the_past_makes_a_row_an_answer(tokenizer):
    tokenizer.chat_template = FORGETFUL
    said = [{"role": "user", "content": "7"}, {"role": "assistant", "content": "1 + 1, 2"}]
    rows = chat_rows.rows(tokenizer, {"messages": [*said, *said]})
    assert [learnt(tokenizer, row) for row in rows] == [tokenizer.decode(tokenizer("1 + 1, 2<|end|>")["input_ids"])] * 2
    assert tokenizer.decode(rows[1].prompt) == "<|user|>7<|end|><|assistant|> 2<|end|><|user|>7<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (PLAIN.replace("{% if add_generation_prompt %}<|assistant|>{% endif %}", ""), "has no generation prompt"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "has no generation prompt"),
        (PLAIN.replace("%}<|assistant|>{% endif", "%}<|user|>{% endif"), "otherwise than after its own generation"),
        ("{{ raise_exception('no system message') }}", "no system message"),
    ],
)
def test_templates_that_do_not_tell_where_an_answer_begins_are_refused(tokenizer, template, message):
    tokenizer.chat_template = template
    with pytest.raises(MeritError, match=message):
        chat_rows.rows(tokenizer, {"messages": TALK})


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_the_common_template_of_chatml_with_a_byte_level_tokenizer():
    """As Qwen's: the line break after the end token is not learnt, and an end token in a user's words is no answer's."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from tests.data.test_vocabulary import bpe

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(bpe())),
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    talk = [
        {"role": "system", "content": "be the cat"},
        {"role": "user", "content": "ü?"},
        {"role": "assistant", "content": " thermal mat\n"},
        {"role": "user", "content": "and the cat"},
        {"role": "assistant", "content": "sat"},
    ]
    (row,) = chat_rows.rows(made, {"messages": talk})
    assert made.decode(row.completion[row.mask == 1]) == " thermal mat\n<|im_end|>sat<|im_end|>"
    assert made.decode(row.prompt).endswith("<|im_start|>assistant\n") and len(row.starts) == 2
    whole = made.apply_chat_template(talk, tokenize=False).rstrip("\n")
    assert made.decode(np.concatenate([row.prompt, row.completion])) == whole


def test_a_template_whose_user_turn_hands_over_needs_no_generation_prompt(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<|user|> {{ m['content'] }}<|assistant|>"
        "{% else %} {{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    )
    (row,) = chat_rows.rows(tokenizer, {"messages": [*TALK[1:3]]})
    assert learnt(tokenizer, row) == " 12 + 3 makes 15. ANSWER: 15<|end|>"


def test_pieces_of_a_span_by_hand():
    assert chat_rows.without((2, 10), [(4, 6), (0, 3), (9, 12)]) == [(3, 4), (6, 9)]
    assert chat_rows.without((2, 4), [(2, 4)]) == []


def said(prompt: int, *answers: int) -> Said:
    """Answers of so many tokens, two tokens of context between; ids count up."""
    masks = [np.concatenate([np.zeros(2 * (i > 0)), np.ones(n)]) for i, n in enumerate(answers)]
    starts = tuple(int(sum(map(len, masks[:i])) + 2 * (i > 0)) for i in range(len(masks)))
    mask = np.concatenate(masks).astype(np.float32)
    return Said(np.arange(prompt), np.arange(prompt, prompt + len(mask)), mask, starts)


def test_a_prompt_is_cut_in_its_middle_or_left_by_hand():
    (row,), cut = truncation.fitted([said(8, 3)], 7, "middle")
    assert row.prompt.tolist() == [0, 1, 6, 7] and row.completion.tolist() == [8, 9, 10] and cut.shortened == 1
    (row,), _ = truncation.fitted([said(8, 3)], 7, "left")
    assert row.prompt.tolist() == [4, 5, 6, 7]
    rows, cut = truncation.fitted([said(1, 7), said(1, 6)], 7, "left")
    assert [len(r.completion) for r in rows] == [6] and (cut.shortened, cut.left_out) == (0, 1)


@given(st.integers(1, 20), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(10, 40))
def test_truncation_keeps_every_answer_and_the_context(prompt, lengths, context):
    row = said(prompt, *lengths)
    kept, cut = truncation.fitted([row], context, "middle")
    whole = row.completion[row.mask == 1]
    assert np.concatenate([k.completion[k.mask == 1] for k in kept]).tolist() == whole.tolist() and not cut.left_out
    assert all(truncation.size(k) <= context and len(k.prompt) for k in kept)


def test_an_answer_with_a_hole_is_not_parted():
    row = Said(np.arange(9), np.arange(9, 14), np.array([1, 0, 1, 0, 1], np.float32), (0, 4))
    (first, second), _ = truncation.fitted([row], 8, "left")
    assert first.completion.tolist() == [9, 10, 11] and first.mask.tolist() == [1, 0, 1]
    assert second.completion.tolist() == [13] and second.prompt.tolist() == list(range(6, 13))


def test_a_file_is_read_once_each_and_bad_lines_are_named(tmp_path):
    file = tmp_path / "chat.jsonl"
    short = {"prompt": "1 + 1", "completion": "2"}
    file.write_text("\n".join(map(json.dumps, [{"messages": TALK}, short, short])) + "\n\n")
    read = conversations.read(file)
    assert [len(one["messages"]) for one in read] == [5, 2] and conversations.asked(read[1]) == [["user", "1 + 1"]]
    for bad, message in (
        ("{", "line 1: no valid JSON"),
        ('{"text": "x"}', "a list of `messages`"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "one of system"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing is said by the assistant"),
        ('{"messages": [{"role": "assistant", "content": null}]}', "wants a text"),
    ):
        file.write_text(bad)
        with pytest.raises(MeritError, match=message):
            conversations.read(file)


def test_what_is_held_out_shares_no_question_with_what_is_learnt():
    def talk(question: int, answer: int):
        return {"messages": [{"role": "user", "content": str(question)}, {"role": "assistant", "content": str(answer)}]}

    talks = [talk(i // 2, i) for i in range(40)]
    taught, held = conversations.divided(talks, 0.1, 0)
    assert len(taught) + len(held) == 40 and 4 <= len(held) <= 5
    assert not {str(conversations.asked(t)) for t in taught} & {str(conversations.asked(h)) for h in held}
    assert conversations.divided(talks[::-1], 0.1, 0)[1][0] in held
    assert conversations.divided(talks, 0.1, 1)[1] != held
    assert conversations.divided(talks[:2], 0.5, 0) == (talks[:2], [])  # one question: nothing can be held out
