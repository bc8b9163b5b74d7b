"""Extending a vocabulary: terms become one token, other texts stay as they were, rows are means; the report on terms."""

from __future__ import annotations

import json

import pytest
import torch

from apps.data import extend, fragmentation, vocabulary
from apps.records import MeritError

CORPUS = ["the cat sat on the mat and the terminal was thermal", "abcdefghijklmnopqrstuvwxyz '.,ABC"] * 4


def bpe(metaspace: bool = False):
    """As GPT-2's, or, with `metaspace`, as Llama 2's: no cutting into words, spaces are letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None))
    alphabet: list[str] = []
    if metaspace:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<eos>"]
    texts = [word for text in CORPUS for word in text.split(" ")] if metaspace else CORPUS
    trainer = trainers.BpeTrainer(
        vocab_size=310, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return json.loads(made.to_str())


def words():
    from apps.data import tokenizer

    return json.loads(tokenizer.make(CORPUS).backend_tokenizer.to_str())


SPECS = {"byte": bpe, "metaspace": lambda: bpe(True), "words": words}
TERMS = ["catalyst", "thermostat"]


def read(spec):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(spec))


@pytest.mark.parametrize("kind", SPECS)
def test_terms_become_one_token_and_come_back_as_they_were_written(kind):
    spec = SPECS[kind]()
    made, grown = vocabulary.extended(spec, TERMS)
    before, after = read(spec), read(made)
    for term in TERMS:
        assert len(vocabulary.cut(before, f" {term}")) > 1 or kind == "words"
        for form in (f" {term}", term):
            assert vocabulary.is_whole(after, form, grown)
    text = "the catalyst sat on a thermostat. catalyst"
    said = after.encode(text, add_special_tokens=False)
    assert len(said.ids) < len(before.encode(text, add_special_tokens=False).ids) or kind == "words"
    if kind != "words":  # its "a" is not in the vocabulary
        assert after.decode(said.ids) == text
    ids = {after.token_to_id(token) for token in grown}
    assert sorted(ids) == list(range(vocabulary.next_id(spec), vocabulary.next_id(spec) + len(grown)))


@pytest.mark.parametrize("kind", SPECS)
def test_other_texts_are_cut_as_before_also_words_that_hold_a_term(kind):
    spec = SPECS[kind]()
    made, _ = vocabulary.extended(spec, ["term", "mats"])
    for text in ("the cat sat on the mat", "and the terminal was thermal", "'cat', 'the'. ABC", "<eos> the"):
        assert read(made).encode(text).ids == read(spec).encode(text).ids


def test_a_new_token_stands_for_its_old_pieces():
    spec = bpe()
    _, grown = vocabulary.extended(spec, ["catalyst"])
    old = read(spec)
    for token, ids in grown.items():
        assert "".join(old.id_to_token(i) for i in ids) == token
    assert vocabulary.cut(old, " catalyst") == [old.id_to_token(i) for i in grown["Ġcatalyst"]]


def test_what_cannot_be_one_token_leaves_nothing_behind():
    spec = bpe()
    made, grown = vocabulary.extended(spec, ["ion channel"])  # cut apart before BPE sees it
    assert not grown and made == spec
    with pytest.raises(MeritError, match="of kind Unigram cannot be extended"):
        vocabulary.extended({**spec, "model": {"type": "Unigram"}}, TERMS)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 3])
def test_rows_are_means_of_the_old_pieces_and_the_others_stay(tied, spare):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=10 + spare, tie_word_embeddings=tied, **shape))
    read_by, said_by = model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()
    extend.grow(model, 10, [[1, 2, 2], [3]])
    assert model.config.vocab_size == max(12, 10 + spare)
    for new, old in ((model.get_input_embeddings(), read_by), (model.get_output_embeddings(), said_by)):
        assert torch.allclose(new.weight[10], (old[1] + 2 * old[2]) / 3) and torch.equal(new.weight[11], old[3])
        assert torch.equal(new.weight[:10], old[:10]) and len(new.weight) == max(12, 10 + spare)
    assert extend.is_tied(model) == tied
    assert torch.equal(read_by, said_by) == tied


def test_the_report_counts_pieces_and_says_what_is_lost():
    report = fragmentation.report(
        {"cat": ["Ġcat"], "catalyst": ["Ġcat", "a", "lyst"], "ωmega": ["<unk>", "mega"]},
        {"cat": ["Ġcat"], "catalyst": ["Ġcatalyst"], "ωmega": ["<unk>", "mega"]},
        "<unk>",
    )
    assert report["mean_before"] == 2 and report["mean_after"] == pytest.approx(4 / 3)
    assert report["whole_after"] == 2 and report["lost_before"] == 1
    assert [row["term"] for row in report["terms"]] == ["catalyst", "ωmega", "cat"]
    assert "Ġcat a lyst" in fragmentation.table(report) and "… and 2 more" in fragmentation.table(report, 1)


def test_terms_are_read_once_each(tmp_path):
    (tmp_path / "terms.txt").write_text("catalyst\n\n ion channel \ncatalyst\n")
    assert fragmentation.read(tmp_path / "terms.txt") == ["catalyst", "ion channel"]
    with pytest.raises(MeritError, match="no such file"):
        fragmentation.read(tmp_path / "none.txt")
