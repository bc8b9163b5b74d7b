"""Scripted agents: their error rates, their formats, their keys."""

from __future__ import annotations

import numpy as np
import pytest

from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import scripted
from apps.records import MeritError, Policy, Sampling, Task
from apps.topologies import formats

TASK = Task("t", "What is 40 + 2?", "42", "arithmetic", "train")
RIGHT, WRONG = "ANSWER: 42", "ANSWER: 41"


def speak(role, fields, n=2000, **options):
    engine = scripted.Scripted(scripted.Options(**options))
    prompt, ids = engine.render("", "?")
    asked = [Request(Policy(role), prompt, ids, Sampling(), seed, TASK, Ask(role, fields)) for seed in range(n)]
    return [completion.text for completion in engine.generate(asked)]


@pytest.mark.parametrize(
    ("role", "fields", "option", "err"),
    [
        ("solver", {}, "solve", lambda text: text != RIGHT),
        ("reviser", {}, "revise", lambda text: text != RIGHT),
        ("verifier", {"draft": WRONG}, "report", lambda text: text != WRONG),
        ("critic", {"draft": WRONG}, "wave_through", formats.verdict),
        ("critic", {"draft": RIGHT}, "cry_wolf", lambda text: not formats.verdict(text)),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_role_errs_as_often_as_it_is_told(role, fields, option, err, rate):
    share = np.mean([bool(err(text)) for text in speak(role, fields, **{option: rate})])
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / 2000)


def test_ids_are_the_bytes_of_the_text_closed_by_an_end_token():
    engine = scripted.load("", scripted.Options(), "cpu")
    prompt, ids = engine.render("Be brief.", "2 + 2 = ?")
    (said,) = engine.generate([Request(Policy("solver"), prompt, ids, Sampling(), 3, TASK, Ask("solver", {}))])
    assert prompt == "Be brief.\n2 + 2 = ?" and bytes(ids.tolist()).decode() == prompt
    assert bytes(said.ids.tolist()).decode() == said.text + "\0" and len(said.logprobs) == len(said.ids)


def test_a_role_without_a_duty_is_named():
    with pytest.raises(MeritError, match="scripted duty of stranger"):
        speak("stranger", {}, 1)
