"""Several ranks train what one process trains: the law of shares in one process, and the same adapter from real MPI ranks.

The slow ones start ranks as the stage does: `mpiexec`, gloo, and DeepSpeed where it is ZeRO.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from apps import policies
from apps.platform import processes
from apps.records import MeritError
from apps.training import app, canary, fit, policy
from apps.training.objectives import grpo
from apps.training.options import Lora, Options
from apps.training.ranks import Alone, buckets
from apps.training.rows import Rows
from apps.training.steps import counts_of, deal, micro_batches, share, wholes
from apps.training.trainer import Trainer
from apps.training.zero import settings as deepspeed_settings
from tests import models

ROOT = Path(__file__).parents[2]
LAUNCHER = ("mpiexec", "-n", "{ranks}")
ZERO = pytest.mark.skipif(
    not importlib.util.find_spec("deepspeed"), reason="needs the extra `deepspeed`, as .ci/run has it"
)


def made_rows(lengths, seed=0, paired=False, states=None):
    rng = np.random.default_rng(seed)
    completions = [models.random_ids(rng, n) for n in lengths]
    old = [-rng.random(n).astype(np.float32) * 4 for n in lengths]
    prompts = [models.random_ids(rng, 3) for _ in lengths]
    return Rows(prompts, completions, old, rng.normal(size=len(lengths)), 1.0, paired, states)


@st.composite
def steps(draw) -> tuple[Rows, np.ndarray]:
    """Rows of one of the three kinds, and the members of a step of theirs."""
    sizes = draw(st.sampled_from([[1] * 9, [2] * 5, [2, 3, 1, 4]]))
    lengths = [draw(st.integers(1, 20)) for _ in range(sum(sizes))]
    states = np.repeat(np.arange(4), sizes) if sizes == [2, 3, 1, 4] else None
    rows = made_rows(lengths, paired=sizes[0] == 2 and states is None, states=states)
    units = wholes(rows, np.arange(len(rows)))
    chosen = draw(st.lists(st.sampled_from(range(len(units))), min_size=1, unique=True))
    return rows, np.concatenate([units[i] for i in chosen])


@settings(max_examples=60)
@given(steps(), st.integers(1, 6))
def test_every_row_of_a_step_is_dealt_once_whole_and_evenly(step, size):
    rows, members = step
    hands = deal(rows, members, size)
    assert len(hands) == size and sorted(np.concatenate(hands)) == sorted(members)
    units = {tuple(unit) for unit in wholes(rows, members)}
    found = [[tuple(unit) for unit in wholes(rows, hand)] for hand in hands]
    assert {unit for hand in found for unit in hand} == units
    counts = [len(hand) for hand in found]
    assert max(counts) - min(counts) <= 1
    worst = [sum(rows.lengths[list(unit)].max() for unit in hand) for hand in found]
    assert max(worst) - min(worst) <= max(rows.lengths[list(unit)].max() for unit in units)


@settings(max_examples=60)
@given(steps(), st.integers(1, 6), st.sampled_from([1, 40, 4096]))
def test_ranks_have_equally_many_micro_batches_and_each_row_counts_once(step, size, tokens):
    rows, members = step
    shares = [share(rows, members, tokens, rank, size) for rank in range(size)]
    assert len({len(mine) for mine in shares}) == 1 and shares[0]
    counted = [micro for mine in shares for micro, weight in mine if weight == 1]
    company = [micro for mine in shares for micro, weight in mine if weight != 1]
    assert sorted(np.concatenate(counted)) == sorted(members)
    assert all(weight in (0, 1) for mine in shares for _, weight in mine)
    assert all(tuple(micro) in {tuple(unit) for unit in wholes(rows, members)} for micro in company)
    if size == 1:
        assert models.same([micro for micro, _ in shares[0]], list(micro_batches(rows, members, tokens)))


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    models.make_adapter(tiny_model, folder)
    return folder


def trainer(model, adapter):
    chosen = Options(lora=Lora(r=4, alpha=8), micro_tokens=20, parallel="ddp")
    return Trainer(policy.open_policy(model, adapter, chosen, 5), chosen)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_parts_of_ranks_add_up_to_the_step(tiny_model, adapter, size):
    """Loss and gradient, with more ranks than rows too; by hand, so that no message is needed."""
    rows = made_rows([1, 9, 4, 11, 6])
    members, needs = np.arange(5), frozenset({"old", "advantages"})
    found = []
    for count in (1, size):
        made = trainer(tiny_model, adapter)
        total = 0.0
        for rank in range(count):
            for micro, weight in share(rows, members, 20, rank, count):
                value, _ = grpo.loss(made.batch(rows, micro, needs, counts_of(rows, members)), grpo.Options(beta=0))
                made.ranks.backward(value * weight, False)
                total += weight * value.item()
        found.append((total, torch.cat([p.grad.ravel() for p in made.parameters.values()])))
    (loss, whole), (summed, parts) = found
    assert summed == pytest.approx(loss, abs=1e-6) and float(whole.abs().max()) > 1e-3
    assert torch.allclose(whole, parts, atol=1e-6)


@given(st.lists(st.integers(1, 9), max_size=12))
def test_messages_keep_the_order_and_their_bound(sizes):
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in sizes]
    parts = list(buckets(parameters, 10))
    assert [id(p) for part in parts for p in part] == [id(p) for p in parameters]
    assert all(part and (len(part) == 1 or sum(p.numel() for p in part) <= 10) for part in parts)
    for left, right in zip(parts[:-1], parts[1:], strict=True):
        assert sum(p.numel() for p in left) + right[0].numel() > 10


def test_one_process_steps_by_itself(tiny_model, adapter):
    assert type(trainer(tiny_model, adapter).ranks) is Alone


@pytest.mark.parametrize(
    "options, said",
    [
        ({"ranks": 2}, "several ranks need training.parallel=ddp, zero1, zero2 or zero3"),
        ({"parallel": "ddp", "offload": True}, "only training.parallel=zero1, zero2 or zero3 can off-load"),
        ({"ranks": 0}, "greater than or equal to 1"),
        ({"parallel": "zero4"}, "'single', 'ddp', 'zero1', 'zero2' or 'zero3'"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        Options(**options)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_deepspeed_is_told_the_stage_and_where_to_keep_things(stage, offload):
    made = deepspeed_settings(Options(parallel=f"zero{stage}", offload=offload, clip=0.5), 1000, 32)
    zero = made["zero_optimization"]
    assert zero["stage"] == stage and made["gradient_clipping"] == 0.5 and zero["reduce_bucket_size"] == 1000
    assert ("offload_optimizer" in zero) == offload and ("offload_param" in zero) == (offload and stage == 3)
    assert zero.get("stage3_param_persistence_threshold") == (320 if stage == 3 else None)
    odd = deepspeed_settings(Options(parallel=f"zero{stage}"), 1001, 32)["zero_optimization"]
    assert odd["allgather_bucket_size"] == 1002, "DeepSpeed refuses odd buckets, and a scalar head makes them odd"


# ---- real ranks


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Seven uneven rows, steps of at most three: of four ranks one is always without; the critic has none at all."""
    folder = tmp_path_factory.mktemp("batch")
    made_rows([1, 9, 4, 11, 6, 2, 8]).save(folder / "solver.npz")
    made_rows([]).save(folder / "critic.npz")
    return folder


def train(model, out, batch, agent="solver", team=None, **training):
    out.mkdir()
    settings = {"step_rows": 3, "micro_tokens": 30, "lora": {"r": 4, "alpha": 8}, **training}
    options = {"model": str(model), "agent": agent, "training": settings, "objective": {"name": "grpo"}, "seed": 3}
    inputs = {"batch": [batch], **({"policies": [team]} if team else {})}
    return app.train(out, inputs, {**options, "launcher": LAUNCHER, "threads": 1})


def team_of(folder, **adapters):
    folder.mkdir()
    policies.write(folder, {a: policy.digest_of(f / policy.ADAPTER) for a, f in adapters.items()}, adapters)
    return folder


@pytest.fixture(scope="module")
def rounds(tiny_model, batch, tmp_path_factory):
    """A first round by one process, and the second one that ranks have to reproduce: (team, folder, facts)."""
    folder = tmp_path_factory.mktemp("rounds")
    train(tiny_model, folder / "one", batch)
    team = team_of(folder / "team", solver=folder / "one")
    return team, folder / "two", train(tiny_model, folder / "two", batch, team=team)


def tensors(file):
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel, ranks",
    [
        ("ddp", 2),
        ("ddp", 4),
        *(pytest.param(f"zero{n}", 2, marks=ZERO) for n in (1, 2, 3)),
        pytest.param("zero1", 1, marks=ZERO),
    ],
)
def test_ranks_reach_the_adapter_of_one_process(tiny_model, batch, rounds, tmp_path, parallel, ranks):
    """From where a process alone has left adapter and optimiser; and one could go on from what they leave."""
    team, alone, wanted = rounds
    facts = train(tiny_model, tmp_path / "out", batch, team=team, parallel=parallel, ranks=ranks)
    names = {file.name for file in alone.iterdir()}
    assert names == {file.name for file in (tmp_path / "out").iterdir()} - {"facts.json"}
    start = tensors(team / "solver" / policy.ADAPTER)
    for file in (policy.ADAPTER, fit.STATE):
        one, other = tensors(alone / file), tensors(tmp_path / "out" / file)
        assert set(one) == set(other)
        assert all(torch.allclose(one[n].float(), other[n].float(), rtol=0, atol=1e-5) for n in one), file
    moved = [float((p - start[n]).abs().max()) for n, p in tensors(alone / policy.ADAPTER).items()]
    assert max(moved) > 1e-3
    assert facts["last"] == pytest.approx(wanted["last"], abs=1e-5) and facts["last"]["step"] == 6
    assert (facts["steps"], facts["rows"], facts["tokens"]) == (wanted["steps"], wanted["rows"], wanted["tokens"])
    assert facts["kl"] == pytest.approx(wanted["kl"], abs=1e-6)
    assert facts["digest"] == policy.digest_of(tmp_path / "out" / policy.ADAPTER)
    kept, expected = (Rows.load(folder / canary.FILE) for folder in (tmp_path / "out", alone))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(kept.logprobs, expected.logprobs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", pytest.param("zero3", marks=ZERO)])
def test_an_agent_without_rows_keeps_its_adapter_under_ranks_too(tiny_model, batch, tmp_path, parallel):
    models.make_adapter(tiny_model, tmp_path / "given")
    team = team_of(tmp_path / "team", critic=tmp_path / "given")
    facts = train(tiny_model, tmp_path / "out", batch, "critic", team, parallel=parallel, ranks=2)
    assert (facts["steps"], facts["loss"]) == (0, None)
    kept, given_ = tensors(tmp_path / "out" / policy.ADAPTER), tensors(tmp_path / "given" / policy.ADAPTER)
    assert set(kept) == set(given_) and all(torch.equal(kept[n], given_[n]) for n in kept)


def processes_of(spec: Path) -> list[int]:
    """The processes whose command names this file: launcher and ranks."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(spec) in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def until(done, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_a_rank_that_fails_ends_all_with_its_message(tiny_model, tmp_path):
    rows = made_rows([1, 9, 4, 11, 6, 2, 8])
    rows.advantages[3] = np.nan
    rows.save(tmp_path / "solver.npz")
    with pytest.raises(
        MeritError, match=r"^rank [01] of 2: the loss became nan at step \d, in rows \[.*3.* is kept in .*last_good$"
    ):
        train(tiny_model, tmp_path / "out", tmp_path, parallel="ddp", ranks=2)
    assert until(lambda: not processes_of(tmp_path / "out" / "ranks" / "spec.json"), 60)


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_ranks_behind(tiny_model, batch, tmp_path):
    """As the stage runs it: from a warm process, which the kernel or its watcher ends with the driver."""
    code = (
        "import sys; from pathlib import Path; from apps.platform import processes; from tests.training import test_ranks as t\n"
        "model, out, batch = map(Path, sys.argv[1:])\n"
        "processes.run('training', t.train, model, out, batch, parallel='ddp', ranks=2, epochs=100_000)"
    )
    env = processes.variables(1, {})
    command = [sys.executable, "-c", code, str(tiny_model), str(tmp_path / "out"), str(batch)]
    driver = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
    log, spec = tmp_path / "out" / "metrics.jsonl", tmp_path / "out" / "ranks" / "spec.json"
    try:
        assert until(lambda: log.is_file() and log.stat().st_size)
        assert len(processes_of(spec)) >= 3  # launcher and two ranks
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert until(lambda: not processes_of(spec), 30)
