"""The tokenizer that is made from a corpus: lossless on it, digits singly, special tokens whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.data import arithmetic_corpus as corpus
from apps.data import tokenizer
from apps.topologies.solve_critique_revise import PROMPTS


@pytest.fixture(scope="module")
def texts():
    found = []
    for kind in ("plain", "careful", "habits"):
        for example in corpus.generate(corpus.Options(kind=kind, examples=300, seed=1)):
            found += [example.completion, *([PROMPTS[example.role].format(**example.fields)] if example.role else [])]
    return found


@pytest.fixture(scope="module")
def made(texts):
    return tokenizer.make(texts)


def encode(made, text):
    return made(text, add_special_tokens=False)["input_ids"]


def test_every_text_of_the_corpus_comes_back(made, texts):
    for text in texts:
        ids = encode(made, text)
        assert made.decode(ids) == text and made.unk_token_id not in ids


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**12))
def test_digits_are_split_singly(made, number):
    for text in (str(number), f" {number}"):
        ids = encode(made, text)
        assert len(ids) == len(str(number)) and made.decode(ids) == text


def test_special_tokens_are_one_id_each_and_left_out_of_decoded_text(made):
    specials = [tokenizer.PAD, tokenizer.USER, tokenizer.ASSISTANT, tokenizer.END, tokenizer.UNKNOWN]
    assert all(len(encode(made, token)) == 1 for token in specials)
    assert made.decode(encode(made, f"ANSWER: 4{tokenizer.END}"), skip_special_tokens=True) == "ANSWER: 4"
    assert encode(made, "Xylophones")[0] == made.unk_token_id


def test_the_chat_template_is_what_the_corpus_is_written_in(made):
    messages = [{"role": "user", "content": "Solve: 1"}]
    prompt = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == f"{tokenizer.USER}Solve: 1{tokenizer.END}{tokenizer.ASSISTANT}"
    said = made.apply_chat_template([*messages, {"role": "assistant", "content": "ANSWER: 1"}], tokenize=False)
    assert said == f"{prompt}ANSWER: 1{tokenizer.END}"


def test_it_survives_the_disk(made, texts, tmp_path):
    from transformers import AutoTokenizer

    made.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert all(encode(read, text) == encode(made, text) for text in texts[:50])
    assert read.chat_template == made.chat_template and read.eos_token_id == made.eos_token_id


def test_the_vocabulary_does_not_depend_on_the_order_of_texts(made, texts):
    assert tokenizer.make(reversed(texts)).get_vocab() == made.get_vocab()
