"""The engine on a real model: what it stores of what it sampled, shared prompts, ends, refusals."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import transformers
from apps.records import MeritError, Policy, Sampling
from apps.training.canary import TOLERANCE
from tests import models

TASKS = models.tasks(8)


@pytest.fixture(scope="module")
def engine(tiny_model):
    return transformers.load(str(tiny_model), transformers.Options(rows=32), "cpu")


@pytest.fixture(scope="module")
def spoken(tiny_model, tmp_path_factory):
    """Policies: base, and two with adapters of different rank."""
    folder = tmp_path_factory.mktemp("policies")
    return [
        Policy("verifier"),
        models.make_adapter(tiny_model, folder / "a", "solver", 1),
        models.make_adapter(tiny_model, folder / "b", "critic", 2, r=2),
    ]


def request(engine, policy, text, sampling, seed):
    prompt, ids = engine.render("", text)
    return Request(policy, prompt, ids, sampling, seed, TASKS[0], Ask(policy.agent, {}))


def requests(engine, spoken, sampling, copies=3):
    """Equal prompts several times, for every policy, in no order of length."""
    texts = [task.question for task in TASKS] + ["Solve: 1"]
    return [
        request(engine, policy, text, sampling, 1000 * i + 10 * p + c)
        for c in range(copies)
        for i, text in enumerate(texts)
        for p, policy in enumerate(spoken)
    ]


def rescored(engine, asked, said):
    return [
        engine.score(r.policy, [(r.prompt_ids, completion.ids)])[0] for r, completion in zip(asked, said, strict=True)
    ]


def test_stored_logprobs_are_those_of_a_teacher_forced_rescoring(engine, spoken):
    asked = requests(engine, spoken, Sampling(max_new_tokens=8))
    said = engine.generate(asked)
    assert len({len(completion.ids) for completion in said}) > 1
    for completion, scores in zip(said, rescored(engine, asked, said), strict=True):
        assert np.allclose(completion.logprobs, scores, atol=1e-4)


def test_score_is_that_of_plain_transformers(engine, tiny_model):
    """Left padding and positions: a batch of three lengths against the model alone."""
    from transformers import AutoModelForCausalLM

    rng = np.random.default_rng(0)
    pairs = [(models.random_ids(rng, p), models.random_ids(rng, c)) for p, c in ((2, 5), (9, 1), (4, 4))]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    for (prompt, completion), scores in zip(pairs, engine.score(Policy("x"), pairs), strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))[None]
        with torch.inference_mode():
            logprobs = model(ids).logits[0].log_softmax(-1)
        wanted = [logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(completion)]
        assert np.allclose(scores, wanted, atol=1e-4)


def test_equal_prompts_read_once_give_the_same_as_read_apart(engine, spoken):
    asked = requests(engine, spoken, Sampling(max_new_tokens=6))
    together = engine.generate(asked)
    apart = [engine.generate([one])[0] for one in asked]
    equal = [np.array_equal(a.ids, b.ids) for a, b in zip(together, apart, strict=True)]
    assert np.mean(equal) >= 0.98
    for a, b in zip(together, apart, strict=True):
        if np.array_equal(a.ids, b.ids):
            assert np.allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_an_adapter_in_the_weights_speaks_as_beside_them(tiny_model, engine, spoken):
    """Policy by policy each is added to the weights; all together, or without leave, they act beside them."""
    asked = requests(engine, spoken, Sampling(max_new_tokens=6), copies=4)
    beside = transformers.load(str(tiny_model), transformers.Options(rows=32, merge_gib=0.0), "cpu")
    wanted = beside.generate(asked)
    alone: dict[int, object] = {}
    for policy in spoken:
        mine = [i for i, request in enumerate(asked) if request.policy is policy]
        alone |= dict(zip(mine, engine.generate([asked[i] for i in mine]), strict=True))
        assert engine.adapters.merged.digest == (policy.digest if policy.adapter else None)
    for said in (engine.generate(asked), [alone[i] for i in range(len(asked))]):
        assert np.mean([np.array_equal(a.ids, b.ids) for a, b in zip(said, wanted, strict=True)]) >= 0.99
    assert beside.adapters.merged.digest is None


def test_in_bfloat16_it_stores_what_it_would_score(tiny_model, spoken):
    """To within what the canary allows, on the mean."""
    engine = transformers.load(str(tiny_model), transformers.Options(rows=32, dtype="bfloat16"), "cpu")
    asked = requests(engine, spoken, Sampling(max_new_tokens=8))
    said = engine.generate(asked)
    scores = rescored(engine, asked, said)
    apart = [np.abs(completion.logprobs - row) for completion, row in zip(said, scores, strict=True)]
    assert np.concatenate(apart).mean() < TOLERANCE["bfloat16"]


def test_a_completion_ends_with_the_end_token_or_at_the_limit(engine, spoken):
    said = engine.generate(requests(engine, spoken, Sampling(max_new_tokens=12), copies=12))
    assert {completion.finish for completion in said} == {"stop", "length"}
    for completion in said:
        ends = [token in engine.ends for token in completion.ids.tolist()]
        assert not any(ends[:-1])
        assert (completion.finish == "stop") == ends[-1]
        assert completion.finish == "stop" or len(completion.ids) == 12
        assert completion.text == engine.tokenizer.decode(completion.ids, skip_special_tokens=True).strip()


def test_requests_of_different_samplings_keep_their_order(engine, spoken):
    mixed = [
        request(engine, spoken[i % 3], TASKS[i % 5].question, Sampling(0.0, 3) if i % 2 else Sampling(1.0, 5), i)
        for i in range(12)
    ]
    alone = [engine.generate([one])[0] for one in mixed]
    for one, other in zip(engine.generate(mixed), alone, strict=True):
        assert np.array_equal(one.ids, other.ids)


def test_greedy_takes_the_likeliest_token_at_every_place(engine, spoken):
    for asked in requests(engine, spoken, Sampling(0.0, 4), copies=1)[:6]:
        (said,) = engine.generate([asked])
        for place, token in enumerate(said.ids):
            tries = [(asked.prompt_ids, np.append(said.ids[:place], v).astype(np.int32)) for v in range(60)]
            scores = [s[-1] for s in engine.score(asked.policy, tries)]
            mine = engine.score(asked.policy, [(asked.prompt_ids, said.ids[: place + 1])])[0][-1]
            assert mine >= max(scores) - 1e-5, (place, token)


def test_the_chat_template_renders_the_prompt(engine):
    text, ids = engine.render("", "Solve: 1")
    assert text == "<|user|>Solve: 1<|end|><|assistant|>"
    assert engine.tokenizer.decode(ids) == text and ids.dtype == np.int32


def test_a_prompt_that_leaves_no_room_is_refused_and_a_completion_ends_at_the_context(tmp_path, spoken):
    model = models.make_model(tmp_path / "short", context=16)
    engine = transformers.load(str(model), transformers.Options(), "cpu")
    fits = [
        request(engine, Policy("solver"), " 1" * n, Sampling(max_new_tokens=40), s) for n in (2, 12) for s in range(20)
    ]
    assert {len(r.prompt_ids) for r in fits} == {5, 15}
    for asked, said in zip(fits, engine.generate(fits), strict=True):
        room = 16 - len(asked.prompt_ids)
        assert len(said.ids) <= room and (said.finish == "stop" or len(said.ids) == room)
    with pytest.raises(MeritError, match=r"16 tokens leaves no room in the model's context of 16 \(solver, task"):
        engine.generate([request(engine, Policy("solver"), " 1" * 13, Sampling(), 0)])
    with pytest.raises(MeritError, match="longer than the model's context of 16"):
        engine.score(Policy("solver"), [(np.ones(10, np.int32), np.ones(7, np.int32))])


def copy(model, target):
    shutil.copytree(model, target)
    return target


def without_template(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    facts = json.loads(config.read_text())
    facts.pop("chat_template", None)
    config.write_text(json.dumps(facts))


def with_pickled_weights(folder):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_half_of_its_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def without_config(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_template, "no chat template"),
        (with_pickled_weights, "weights are in pytorch_model.bin, a format that can hold code"),
        (without_weights, "no weights in it"),
        (with_half_of_its_weights, "cannot be read as a model"),
        (without_config, "no Hugging Face model folder"),
    ],
)
def test_a_spoilt_model_folder_is_told_so(tiny_model, tmp_path, spoil, words):
    folder = copy(tiny_model, tmp_path / "model")
    spoil(folder)
    with pytest.raises(MeritError, match=f"model={folder}: .*{words}"):
        transformers.load(str(folder), transformers.Options(), "cpu")


def test_a_template_that_refuses_the_system_message_is_told_so(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path / "model")
    without_template(folder)
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0]['content'] }}{{ '>' if add_generation_prompt }}"
    )
    engine = transformers.load(str(folder), transformers.Options(), "cpu")
    assert engine.render("", "hello")[0] == "hello>"
    with pytest.raises(MeritError, match="no system role"):
        engine.render("Be brief.", "hello")


@pytest.mark.parametrize(
    ("template", "fits"),
    [
        ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}", False),
        ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{{ '<assistant>' if add_generation_prompt }}", True),
        ("{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else ' ' + m['content'] }}{% endfor %}", True),
    ],
)  # fmt: skip
def test_a_template_that_does_not_lead_up_to_the_agents_words_is_refused(tiny_model, tmp_path, template, fits):
    """The last one needs no generation prompt: the user's turn itself ends where the answer begins."""
    folder = copy(tiny_model, tmp_path / "model")
    without_template(folder)
    (folder / "chat_template.jinja").write_text(template)
    if fits:
        assert transformers.load(str(folder), transformers.Options(), "cpu").render("", "hello")[0].count("hello") == 1
    else:
        with pytest.raises(MeritError, match="no generation prompt"):
            transformers.load(str(folder), transformers.Options(), "cpu")
