"""New words in a tokenizer's own vocabulary, so that a term becomes one token.

Not as "added tokens": those are looked for before a text is cut into words, so a term would be found inside longer words,
and the space before it would be a token of its own. Instead the tokenizer's model grows, as `tokenizer.json` writes it: a
word list gains the word; BPE gains the merges that join the term's present pieces from the left, and the tokens that arise
on the way, ranked below all merges that there are. So a text is cut as before, unless it holds such pieces side by side.

A term that is parted before the model sees it ("ion channel"), or whose characters the vocabulary lacks, stays as it is.
Pure, but for the library that reads a tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apps.records import MeritError

Spec = dict[str, Any]  # a tokenizer.json
Grown = dict[str, list[int]]  # a new token -> ids of the old tokens that it stands for
ANCHOR = "a"  # what a term is put behind to see it as it stands in a sentence


def extended(spec: Spec, terms: Sequence[str]) -> tuple[Spec, Grown]:
    """The tokenizer with as many of `terms` as one token as can be, and the new tokens in the order of their ids.

    A term is taken in after a space and at a text's start. New ids follow the highest that there was.
    """
    kind = spec["model"].get("type") or "BPE"
    if kind not in KINDS:
        raise MeritError(f"terms: a tokenizer of kind {kind} cannot be extended (those that can: {', '.join(KINDS)})")
    reader = _reader(spec)
    forms = {form: cut(reader, form) for term in terms for form in (f" {term}", term)}
    words = {form: pieces for form, pieces in forms.items() if len(pieces) > 1 or _lost(spec, pieces)}
    while True:
        made, grown = KINDS[kind](spec, reader, words)
        after = _reader(made)
        whole = {form: pieces for form, pieces in words.items() if is_whole(after, form, grown)}
        if whole == words:
            return made, grown
        words = whole  # what cannot be one token leaves nothing behind


def cut(reader: Any, form: str) -> list[str]:
    """The tokens of a form: after a space as it stands in a sentence, else at the start of a text."""
    if not form.startswith(" "):
        return reader.encode(form, add_special_tokens=False).tokens
    alone = reader.encode(ANCHOR, add_special_tokens=False).tokens
    return reader.encode(ANCHOR + form, add_special_tokens=False).tokens[len(alone) :]


def is_whole(reader: Any, form: str, grown: Grown) -> bool:
    """Whether a form is one of the new tokens."""
    pieces = cut(reader, form)
    return len(pieces) == 1 and pieces[0] in grown


def next_id(spec: Spec) -> int:
    """One more than the highest id."""
    return 1 + max([*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])])


def _reader(spec: Spec) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(spec))


def _lost(spec: Spec, pieces: Sequence[str]) -> bool:
    return spec["model"].get("unk_token") in pieces


def _with_words(spec: Spec, reader: Any, words: Mapping[str, Sequence[str]]) -> tuple[Spec, Grown]:
    """A word list: the words themselves, as the text is cut before the list is asked."""
    first, vocabulary = next_id(spec), dict(spec["model"]["vocab"])
    cutter, unknown = reader.pre_tokenizer, vocabulary[spec["model"]["unk_token"]]
    parts = [[piece for piece, _ in cutter.pre_tokenize_str(form)] if cutter else [form] for form in words]
    new = list(dict.fromkeys(found[0] for found in parts if len(found) == 1 and found[0] not in vocabulary))
    vocabulary |= {word: first + i for i, word in enumerate(new)}
    return {**spec, "model": {**spec["model"], "vocab": vocabulary}}, {word: [unknown] for word in new}


def _with_merges(spec: Spec, reader: Any, words: Mapping[str, Sequence[str]]) -> tuple[Spec, Grown]:
    """BPE: merges from the left, and every token that arises on the way."""
    model, at = spec["model"], next_id(spec)
    vocabulary, grown = dict(model["vocab"]), {}
    merges = dict.fromkeys(tuple(_pair(merge)) for merge in model["merges"])  # in order of rank
    for pieces in words.values():
        if not all(piece in model["vocab"] for piece in pieces):
            continue
        for i in range(1, len(pieces)):
            left, right = "".join(pieces[:i]), pieces[i]
            if left + right not in vocabulary:
                vocabulary[left + right] = at + len(grown)
                grown[left + right] = [model["vocab"][piece] for piece in pieces[: i + 1]]
            merges.setdefault((left, right))
    return {**spec, "model": {**model, "vocab": vocabulary, "merges": [list(pair) for pair in merges]}}, grown


def _pair(merge: Any) -> Sequence[str]:
    """A merge as its two tokens: older files write them as one string."""
    return merge.split(" ") if isinstance(merge, str) else merge


KINDS: dict[str, Callable[[Spec, Any, Mapping[str, Sequence[str]]], tuple[Spec, Grown]]] = {
    "WordLevel": _with_words,
    "BPE": _with_merges,
}
