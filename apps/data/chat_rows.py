"""Conversations as rows: the model's own chat template, loss on what the assistant said and on nothing else.

A template says where an answer begins: what it renders of the messages before it, with the generation prompt, is what the
model will be shown. So an answer is what the rendering gains by it, whether the template marks it (`{% generation %}`) or
not. Turns whose rendering is the beginning of the next one's are one row, in which each answer is learnt in its place;
where a template rewrites what came before (it drops an earlier turn's thinking, say), a new row begins.

No loss is on the system's, the user's or a tool's words, on an assistant's message with `"loss": false`, on the characters
that its `"masked": [[from, to], ...]` names (counted in its content), and on white space after its end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.records import MeritError

Span = tuple[int, int]  # characters from, to (excluded)
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A row as token ids. `mask` is 1 at the tokens that carry loss: the first and the last of them are such."""

    prompt: np.ndarray  # int32 (P,)
    completion: np.ndarray  # int32 (C,)
    mask: np.ndarray  # float32 (C,)
    starts: tuple[int, ...] = (0,)  # where in the completion each answer begins to carry loss


def rows(tokenizer, conversation: Mapping[str, Any]) -> list[Said]:
    """The rows of `{"messages": [{"role", "content", ...}, ...], "tools": [...]}`; none where nothing carries loss."""
    spoken = list(stretches(tokenizer, conversation["messages"], conversation.get("tools")))
    made = [encoded(tokenizer, text, answers) for text, answers in spoken]
    return [row for row in made if row is not None]


def stretches(
    tokenizer, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> Iterator[tuple[str, list[list[Span]]]]:
    """Each row's text, with the spans of characters that carry loss, answer by answer."""
    text, answers = "", []
    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = render(tokenizer, messages[:k], tools, True)
        whole = render(tokenizer, messages[: k + 1], tools, False)
        check_answer(tokenizer, messages[: k + 1], tools, asked, whole)
        if not asked.startswith(text):
            yield text, answers
            answers = []
        text = whole
        answers = [*answers, answered(message, len(asked), whole)]
    if answers:
        yield text, answers


def render(tokenizer, messages: Sequence[Message], tools: Sequence[Any] | None, ask: bool) -> str:
    """The text of `messages`; with `ask` up to where the assistant begins to speak."""
    import jinja2

    plain = [{key: value for key, value in m.items() if key not in ("masked", "loss")} for m in messages]
    try:
        return tokenizer.apply_chat_template(plain, tools=tools or None, tokenize=False, add_generation_prompt=ask)
    except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
        raise MeritError(f"the model's chat template refuses {plain!r}: {error}") from error


def check_answer(tokenizer, messages: Sequence[Message], tools: Sequence[Any] | None, asked: str, whole: str) -> None:
    """MeritError where the template does not tell where an answer begins."""
    content = str(messages[-1].get("content") or "").strip()
    if not whole.startswith(asked):
        raise MeritError(
            "the chat template renders an answer otherwise than after its own generation prompt, so where the answer "
            f"begins is unknown: asked {asked[-80:]!r}, answered {whole[-160:]!r}"
        )
    if messages[:-1] and asked == render(tokenizer, messages[:-1], tools, False):
        before = str(messages[-2].get("content") or "").strip()
        handed_over = not asked.rstrip().endswith(before) if before else True
        if not (handed_over and whole[len(asked) :].lstrip().startswith(content)):
            raise MeritError(
                "the model's chat template has no generation prompt: with and without add_generation_prompt it renders "
                f"{asked[-80:]!r}. Give the model a template that says where the assistant begins to speak"
            )


def answered(message: Message, start: int, whole: str) -> list[Span]:
    """The spans of an answer that carry loss. It begins at `start` of the text `whole` and goes on to its end."""
    if message.get("loss") is False:
        return []
    end = len(whole.rstrip()) if whole[start:].strip() else len(whole)
    content = str(message.get("content") or "")
    holes = [_hole(hole, content, start, whole) for hole in message.get("masked", ())]
    return without((start, end), holes)


def _hole(hole: Sequence[int], content: str, start: int, whole: str) -> Span:
    first, last = hole
    if not 0 <= first <= last <= len(content):
        raise MeritError(
            f"masked: [{first}, {last}] is no span of a text of {len(content)} characters: {content[:60]!r}"
        )
    place = whole.find(content, start)
    if place < 0:
        raise MeritError(f"masked: the chat template changes the text {content[:60]!r}, so its spans cannot be found")
    return place + first, place + last


def without(span: Span, holes: Sequence[Span]) -> list[Span]:
    """`span` without `holes`, in order, no piece empty."""
    pieces, at = [], span[0]
    for first, last in sorted(holes):
        pieces.append((at, min(first, span[1])))
        at = max(at, last)
    pieces.append((at, span[1]))
    return [(a, b) for a, b in pieces if a < b]


def encoded(tokenizer, text: str, answers: Sequence[Sequence[Span]]) -> Said | None:
    """A text as a row; a token carries loss if all its characters do. None where no token does."""
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.asarray(coded["input_ids"], np.int32)
    masks = [np.array([inside(offset, spans) for offset in coded["offset_mapping"]], bool) for spans in answers]
    own = np.flatnonzero(np.any(masks, axis=0)) if masks else []
    if not len(own):
        return None
    first, end = own[0], own[-1] + 1
    starts = tuple(int(mask.argmax() - first) for mask in masks if mask.any())
    return Said(ids[:first], ids[first:end], np.any(masks, axis=0)[first:end].astype(np.float32), starts)


def inside(offset: Span, spans: Sequence[Span]) -> bool:
    """Whether the characters of a token lie in one of `spans`. A token without characters carries no loss."""
    first, last = offset
    return first < last and any(a <= first and last <= b for a, b in spans)
