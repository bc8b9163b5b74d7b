"""From text to token ids through a model's own tokenizer and chat template: for engines, and for rows made of text.

What was sampled never comes this way: it is kept as ids. `tokenizer` is one of Hugging Face's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apps.records import MeritError


def rendered(tokenizer, system: str, user: str) -> str:
    """A prompt through the tokenizer's own chat template, up to where the agent begins to speak."""
    import jinja2

    messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        raise MeritError(f"the model's chat template refuses {messages!r}: {error}") from error


def check(tokenizer, whose: str) -> None:
    """MeritError where the template does not lead up to the agent's words, so that a prompt would end before its turn.

    Some templates need no generation prompt, as a user's turn itself ends where the answer begins. So what counts is
    whether an answer, rendered, follows the prompt at once.
    """
    import jinja2

    messages = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": "Answer."}]

    def text(upto: int, ask: bool) -> str:
        return tokenizer.apply_chat_template(messages[:upto], tokenize=False, add_generation_prompt=ask)

    try:
        asked, bare, whole = text(1, True), text(1, False), text(2, False)
    except jinja2.TemplateError:
        return  # it wants other messages; what it makes of a task's is told when it is rendered
    follows = whole.startswith(asked) and whole[len(asked) :].lstrip().startswith("Answer.")
    if asked == bare and not follows:
        raise MeritError(
            f"{whose}: its chat template has no generation prompt: with and without add_generation_prompt it ends in "
            f"{asked[-60:]!r}, and does not say where the assistant begins to speak. Give the model a template that does"
        )


def encoded(tokenizer, text: str) -> np.ndarray:
    """Token ids int32 of a text that holds its special tokens already."""
    return np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)


def closed(tokenizer, text: str) -> np.ndarray:
    """Token ids int32 of a text as a whole completion, the end token included."""
    if tokenizer.eos_token_id is None:
        raise MeritError("the model's tokenizer names no end token, so no text is a whole completion to it")
    return np.append(encoded(tokenizer, text), np.int32(tokenizer.eos_token_id))


def joined(tokenizer, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of text as one whole completion: its ids, and the place of each piece's last token (that of an empty one is
    the place before it). Each piece is encoded by itself, so that a beginning has the same ids whatever follows."""
    ids = [encoded(tokenizer, piece) for piece in pieces[:-1]] + [closed(tokenizer, pieces[-1])]
    return np.concatenate(ids), np.cumsum([len(part) for part in ids]) - 1
