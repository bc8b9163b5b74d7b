"""Pairs: who is put beside whom, orders that tell nothing, files with faults, prompts that stay on one side of a cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apps.preference import pairs
from apps.preference.pairs import Options, Pair
from apps.records import Graded, MeritError, Sampling, Trace, Turn, Verdict


def turn(text, agent="solver", prompt="Solve: 1 + 1?"):
    ids = np.frombuffer(prompt.encode(), np.uint8).astype(np.int32)
    nothing = np.zeros(0, np.int32)
    return Turn(agent, f"{agent}.0", prompt, text, ids, nothing, nothing, "base", Sampling(), 0)


def play(*said, task="t"):
    """`said`: (turn, right or None) in order."""
    verdicts = tuple(None if right is None else Verdict(float(right), "", "") for _, right in said)
    trace = Trace(task, "0", tuple(t for t, _ in said), said[-1][0].text, True)
    return Graded(trace, Verdict(1.0, "", ""), verdicts)


QUESTIONS = {"t": "1 + 1?", "u": "2 + 2?"}


def of(*plays, labelled=True, **options):
    return pairs.of_plays(plays, QUESTIONS, Options(**options), labelled)


def test_a_right_and_a_wrong_answer_to_one_prompt_make_a_pair():
    (pair,) = of(play((turn("2"), True)), play((turn("3"), False)))
    assert (pair.chosen, pair.rejected) == ("2", "3") and {pair.first, pair.second} == {"2", "3"}
    assert pair.rendered and pair.prompt == "Solve: 1 + 1?" and (pair.question, pair.unit) == ("1 + 1?", "t")


def test_what_is_equally_good_or_was_asked_otherwise_makes_none():
    assert not of(play((turn("2"), True)), play((turn("two"), True)))
    assert not of(play((turn("2"), True)), play((turn("3", prompt="Solve: 2 + 2?"), False)))
    assert not of(play((turn("2"), True)), play((turn("3", "reviser"), False)))
    assert not of(play((turn("2"), True)), play((turn("3"), False), task="u"))
    assert not of(play((turn("so"), None)), play((turn("no"), None)))


def test_a_text_that_is_said_often_counts_once():
    plays = [play((turn("2"), True))] * 3 + [play((turn("3"), False))] * 5
    assert len(of(*plays)) == 1


def test_pairs_of_like_length_come_first():
    plays = [play((turn("a" * 10), True)), play((turn("b" * 11), False)), play((turn("c" * 40), False))]
    (pair,) = of(*plays, per_prompt=1)
    assert pair.rejected == "b" * 11
    assert len(of(*plays)) == 2


def test_a_judge_is_given_any_two_that_differ():
    plays = [play((turn("2"), True)), play((turn("two"), True)), play((turn("3"), False))]
    found = of(*plays, labelled=False)
    assert len(found) == 3 and {p.preferred for p in found} == {None}
    critics = [play((turn("yes", "critic"), None)), play((turn("no", "critic"), None))]
    assert len(of(*critics, labelled=False, agents=("critic",))) == 1 and not of(*critics, labelled=False)


def test_an_order_tells_nothing():
    """The same two texts stand in the same order whoever is right, and the better is first about as often as second."""
    ahead = []
    for number in range(200):
        right, wrong = f"right {number}", f"wrong {number}"
        (one,) = of(play((turn(right), True)), play((turn(wrong), False)))
        (other,) = of(play((turn(wrong), True)), play((turn(right), False)))
        assert (one.first, one.preferred) == (other.first, 1 - other.preferred)
        ahead.append(one.preferred)
    assert 0.35 < np.mean(ahead) < 0.65


def write(folder, *rows):
    (folder / "pairs.jsonl").write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n\n")
    return folder / "pairs.jsonl"


def test_a_file_of_texts_or_conversations(tmp_path):
    talk = [{"role": "user", "content": "hi"}]
    said = {"chosen": [*talk, {"role": "assistant", "content": "hello"}], "rejected": [{"content": "go"}], "margin": 2}
    plain, spoken = pairs.of_file(
        write(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": talk, **said})
    )
    assert (plain.chosen, plain.rejected, plain.margin, plain.rendered) == ("a", "b", None, False)
    assert (spoken.prompt, spoken.chosen, spoken.rejected, spoken.margin) == ("hi", "hello", "go", 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "line 1: no rejected; a pair is .* without a loser is none"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "the same text"),
        ({"prompt": "p", "chosen": "a", "rejected": ["b"]}, "line 1: rejected: a text is expected"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"}, "margin = 'big'"),
        ("{", "line 1: no JSON"),
        ("[1]", "no object"),
        ("", "no pairs in it"),
    ],
)
def test_faults_of_a_file_are_told_with_their_line(tmp_path, row, message):
    with pytest.raises(MeritError, match=message):
        pairs.of_file(write(tmp_path, row))


def test_a_prompt_is_on_one_side_alone():
    several = [Pair(f"p{i % 60}", "a", str(i), unit=f"p{i % 60}") for i in range(240)]
    train, held = pairs.held_out(several)
    assert len(train) + len(held) == 240 and 20 < len(held) < 90
    assert not {p.unit for p in train} & {p.unit for p in held}
    assert pairs.held_out(several[::-1])[1] == held[::-1]


def test_shuffled_labels_are_a_coins():
    several = [Pair("p", "a", str(i), preferred=1.0, margin=3.0) for i in range(300)]
    found = pairs.shuffled(several, "s")
    assert 0.4 < np.mean([p.preferred for p in found]) < 0.6 and {p.margin for p in found} == {None}
    assert found == pairs.shuffled(several, "s") != pairs.shuffled(several, "t")


def test_pairs_survive_the_disk(tmp_path):
    several = [Pair("süß", "a", "b", True, "q", 0.25, 1.5, "u"), Pair("p", "a", "b")]
    pairs.write(tmp_path, several)
    assert pairs.read(tmp_path) == several
