"""Models that do not play: who is asked, how, and that real engines answer as they should."""

from __future__ import annotations

import numpy as np
import pytest

from apps.credit import app, judge, results
from apps.inference import app as inference_app
from apps.inference import outside
from apps.records import Consult, MeritError, Policy, Rate, Reward, Sampling
from tests import models
from tests.credit import shard

JUDGE = {"name": "judge", "repeats": 2, "max_new_tokens": 8}
OPTIONS = shard.options(
    24, 4, {"solve": 0.5, "roles": {"judge": {"wave_through": 0.25, "cry_wolf": 0.1}}}, credit=JUDGE
)
LABELS = ("VERDICT: CORRECT", "VERDICT: INCORRECT")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    return models.make_adapter(model, tmp_path_factory.mktemp("adapter"), "judge")


@pytest.fixture(scope="module")
def engine(model):
    return inference_app.engine_of({"engine": {"name": "transformers"}, "model": str(model)})


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One shard of a scripted team: tasks, team, plays, verdicts, a judge's replies, its calibration."""
    return shard.played(tmp_path_factory.mktemp("outside"), OPTIONS, last="calibration")


def test_a_text_is_rated_as_the_whole_of_what_was_said(engine, adapter):
    """Against the model's own probabilities, worked out token by token with the adapter on."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = engine.home
    own = AutoTokenizer.from_pretrained(folder)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    speaks = PeftModel.from_pretrained(bare, adapter.adapter).eval()
    questions = [Rate("Check: ANSWER: 41", LABELS), Rate("Solve: 1 2 3 4 5 6 7", LABELS[:1])]
    rated = outside.ratings(questions, engine, adapter)
    for question, found in zip(questions, rated, strict=True):
        for text, nats in zip(question.texts, found.nats, strict=True):
            prompt = own(f"<|user|>{question.prompt}<|end|><|assistant|>")["input_ids"]
            ids = [*prompt, *own(text)["input_ids"], own.eos_token_id]
            with torch.no_grad():
                logprobs = speaks(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
            assert nats == pytest.approx(expected, abs=1e-3)
    assert rated[0].nats != outside.ratings(questions, engine, Policy("judge"))[0].nats
    assert outside.ratings([], engine, adapter) == []


def test_ratings_do_not_depend_on_their_company(engine, adapter):
    questions = [Rate(f"Check: {'1 ' * n}ANSWER: {n}", LABELS) for n in (1, 9, 4)]
    together = outside.ratings(questions, engine, adapter)
    for question, rated in zip(questions, together, strict=True):
        (alone,) = outside.ratings([question], engine, adapter)
        assert alone.nats == pytest.approx(rated.nats, abs=1e-4) and alone.read_tokens == rated.read_tokens


def test_a_judge_speaks_by_the_key_of_its_question(engine, adapter):
    task, other = models.tasks(2)
    ask = lambda *asked, seed="s", temperature=1.0: [  # noqa: E731
        said.text
        for said in outside.judgements(list(asked), engine, adapter, Sampling(temperature, max_new_tokens=8), seed)
    ]
    first, again = (task, Consult("Check: 1")), (task, Consult("Check: 1", repeat=1))
    assert ask(first, again) == [*ask(first), *ask(again)] and ask(first) != ask(again)
    assert ask(first) != ask((other, Consult("Check: 1"))) != ask(first, seed="t")
    assert ask(first, temperature=0.0) == ask(again, temperature=0.0)


def test_who_is_asked(model, adapter, tmp_path):
    places = {"places": {"digest": adapter.adapter}}
    (found,) = outside.speakers({"adapter": "digest"}, (), places)
    assert found.digest == adapter.digest
    assert outside.speakers({}, (), places) == [Policy("judge")]
    with pytest.raises(MeritError, match="no adapter in PEFT format"):
        outside.speakers({"adapter": "digest"}, [tmp_path], places)  # an artifact goes before the setting
    team = {"engine": {"name": "scripted"}, "model": "", "places": {"m": str(model)}}
    assert outside.home({"name": "judge"}, team) is team
    assert outside.home({"model": "m"}, team) == {**team, "engine": {"name": "transformers"}, "model": str(model)}


def test_answers_come_in_the_order_of_the_questions(engine, adapter):
    task = models.tasks(1)[0]
    asked = [(task, Rate("a", LABELS)), (task, Consult("Check: 1")), (task, Rate("ANSWER: 1", LABELS))]
    found = outside.answers(asked, engine, [adapter], judge.Options(repeats=2, max_new_tokens=8), "s")
    assert found[0::2] == outside.ratings([asked[0][1], asked[2][1]], engine, adapter)
    assert found[1].sampled_tokens <= 8  # the method's own length


@pytest.fixture(scope="module")
def ensemble(model, tmp_path_factory):
    """A folder with two reward models."""
    folder = tmp_path_factory.mktemp("ensemble")
    return folder, [models.make_reward_model(model, folder / str(seed), seed) for seed in (1, 2)]


def test_a_reward_is_what_the_head_says_of_the_last_state(engine, model, ensemble):
    """Against PEFT and the plain model, piece by piece."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = AutoTokenizer.from_pretrained(model)
    bare = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    who = ensemble[1][0]
    speaks, head = (
        PeftModel.from_pretrained(bare, who.adapter).eval(),
        load_file(f"{who.adapter}/scalar_head.safetensors"),
    )
    rendered = Reward("<|user|>Solve: 1<|end|><|assistant|>", ("ANSWER: 41", "CORRECT"), rendered=True)
    asked = [rendered, Reward("Solve: 1", ("ANSWER: 41", "CORRECT")), Reward("Check: 1 2 3", ("ANSWER: 4",))]
    found = outside.rewards(asked, engine, [who])
    assert found[0] == found[1]
    for question, came in zip(asked[1:], found[1:], strict=True):
        ids = own(f"<|user|>{question.prompt}<|end|><|assistant|>")["input_ids"]
        places = []
        for number, piece in enumerate(question.pieces, 1):
            ids = [*ids, *own(piece)["input_ids"], *([own.eos_token_id] if number == len(question.pieces) else [])]
            places.append(len(ids) - 1)
        with torch.no_grad():
            states = speaks(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        expected = [float(states[place] @ head["weight"][0] + head["bias"][0]) for place in places]
        assert came.rewards[0] == pytest.approx(expected, abs=1e-3) and came.read_tokens == len(ids)


def test_members_of_an_ensemble_are_asked_one_by_one(engine, ensemble):
    folder, members = ensemble
    found = outside.speakers({"adapter": str(folder)}, (), {})
    assert [who.digest for who in found] == [who.digest for who in members]
    asked = [Reward("Solve: 1", (f"ANSWER: {n}",)) for n in (1, 20, 3)]
    together = outside.rewards(asked, engine, members)
    for place, who in enumerate(members):
        alone = outside.rewards(asked, engine, [who])
        assert [r.rewards[place] for r in together] == [pytest.approx(r.rewards[0], abs=1e-4) for r in alone]
    assert together[0].rewards[0] != together[0].rewards[1]
    with pytest.raises(MeritError, match="an ensemble of 2 reward models is read by scalar heads"):
        outside.answers([(models.tasks(1)[0], Rate("a", LABELS))], engine, members, judge.Options(), "s")


def test_what_is_no_reward_model_is_told(engine, adapter, ensemble, model, tmp_path):
    import shutil

    import torch
    from safetensors.torch import save_file

    with pytest.raises(MeritError, match="there is no scalar_head.safetensors in it"):
        outside.rewards([Reward("a", ("b",))], engine, [adapter])
    shutil.copytree(ensemble[1][0].adapter, tmp_path / "wide")
    save_file({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, tmp_path / "wide" / "scalar_head.safetensors")
    with pytest.raises(MeritError, match="width 7 on a model of width 32"):
        outside.rewards([Reward("a", ("b",))], engine, outside.speakers({"adapter": str(tmp_path / "wide")}, (), {}))
    with pytest.raises(MeritError, match="first step is empty"):
        outside.rewards([Reward("a", ("", "b"))], engine, ensemble[1])


def test_a_judge_with_known_rates_is_found_out(played):
    """The calibration of a scripted judge is near what it was told to be, and makes its word worth more."""
    facts = played[1]["calibration"]
    assert facts["sensitivity"] == pytest.approx(0.9, abs=0.08)
    assert facts["specificity"] == pytest.approx(0.75, abs=0.12)
    assert facts["cases"] == facts["verified"] > 50 and facts["unread"] == 0
    assert facts["brier"] < facts["brier_of_its_word"]
    assert played[1]["replay"]["replays"] == 0 and played[1]["replay"]["questions"] == 2 * facts["cases"]


def test_values_are_calibrated_where_there_is_a_calibration(played, tmp_path):
    inputs, _ = played
    credit = {}
    for name, given in (("told", inputs), ("untold", {k: v for k, v in inputs.items() if k != "calibration"})):
        (tmp_path / name).mkdir()
        facts = app.assign(tmp_path / name, given, OPTIONS)
        credit[name] = results.read(tmp_path / name)
    assert facts["questions"] == played[1]["replay"]["questions"] and facts["replayed_tokens"] > 0
    assert {abs(v) for c in credit["untold"] for v in c.values} == {0.0, 1.0}  # two replies: taken at their word
    told = np.array([v for c in credit["told"] for v in c.values])
    assert np.abs(told).min() > 0 and np.abs(told).max() < 1
    groups = app.read_groups(inputs, OPTIONS)
    marks = [v for g in groups for m in g.graded for v in m.turn_verdicts]
    known = [i for i, v in enumerate(marks) if v is not None]
    assert np.corrcoef(told[known], [marks[i].score for i in known])[0, 1] > 0.6


def test_a_method_without_a_judge_does_without_a_calibration(played, tmp_path):
    inputs = {k: v for k, v in played[0].items() if k not in ("calibration", "replay")}
    app.assign(tmp_path, inputs, {**OPTIONS, "credit": {"name": "uniform"}})
    assert results.read(tmp_path)
