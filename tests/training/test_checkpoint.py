"""A training task that is cut short ends with the very adapter of one that was left in peace.

Real processes are killed, also single ranks; and what is gone on with may have another number of ranks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.platform import processes, requests
from apps.records import MeritError
from apps.training import app, checkpoint, fit, keeper, policy
from apps.training.checkpoint import Position
from apps.training.rows import Rows
from tests.training.test_ranks import LAUNCHER, ZERO, made_rows, processes_of, tensors, until

ROOT = Path(__file__).parents[2]
EACH_STEP = 1e-9  # minutes
PLAIN = {"step_rows": 3, "micro_tokens": 30, "lora": {"r": 4, "alpha": 8}, "epochs": 2}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Seven uneven rows in steps of at most three: three steps an epoch, six in all."""
    folder = tmp_path_factory.mktemp("batch")
    made_rows([1, 9, 4, 11, 6, 2, 8]).save(folder / "solver.npz")
    return folder


def train(model, out, batch, partial=None, minutes=0.0, objective="grpo", **training):
    out.mkdir(parents=True)
    options = {"model": str(model), "agent": "solver", "training": {**PLAIN, **training}, "seed": 3, "threads": 1}
    options |= {"objective": {"name": objective}, "launcher": LAUNCHER}
    options |= {"partial": str(partial) if partial else "", "checkpoint_minutes": minutes}
    return app.train(out, {"batch": [batch]}, options)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, batch, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return out, train(tiny_model, out, batch)


def cut_after(monkeypatch, steps):
    """The process ends as by SIGKILL would be, as far as files tell: nothing runs after so many steps."""
    made = keeper.Keeper._after

    def after(self, trainer, position):
        made(self, trainer, position)
        if len(position.history) == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeper.Keeper, "_after", after)


def same_files(one: Path, other: Path) -> bool:
    names = (policy.ADAPTER, fit.STATE, fit.METRICS)
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_what_was_cut_short_ends_bit_for_bit_as_undisturbed(
    tiny_model, batch, undisturbed, tmp_path, monkeypatch, steps
):
    """Within an epoch, between two, and after the last step."""
    out, facts = undisturbed
    partial = tmp_path / "partial"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(patched, steps)
        train(tiny_model, tmp_path / "one", batch, partial, EACH_STEP)
    assert [p.name for p in partial.glob("step-*")] == [f"step-{steps:06}"]
    done = []
    monkeypatch.setattr(keeper.Keeper, "_after", lambda self, trainer, position: done.append(len(position.history)))
    again = train(tiny_model, tmp_path / "two", batch, partial)
    assert done == list(range(steps + 1, 7))  # the others were not done again
    assert same_files(out, tmp_path / "two")
    assert {n: again[n] for n in ("digest", "steps", "kl", "last")} == {
        n: facts[n] for n in ("digest", "steps", "kl", "last")
    }


def test_a_task_of_several_batches_goes_on_in_the_right_one(tiny_model, batch, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    made_rows([5, 3, 8], seed=1).save(other / "solver.npz")
    options = {"model": str(tiny_model), "agent": "solver", "training": PLAIN, "objective": {"name": "grpo"}, "seed": 3}

    def run(name, **more):
        (tmp_path / name).mkdir()
        app.train(tmp_path / name, {"batch": [batch, other]}, {**options, **more})

    run("whole")
    kept = {"partial": str(tmp_path / "partial"), "checkpoint_minutes": EACH_STEP}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(patched, 7)  # the first of the second batch's two
        run("cut", **kept)
    run("again", **kept)
    assert same_files(tmp_path / "whole", tmp_path / "again")


def test_dropout_and_anchor_are_those_of_the_undisturbed_task(tiny_model, batch, tmp_path, monkeypatch):
    """What a step draws depends on where it is; the anchor is the policy's from before the first step, also after a stop."""
    from apps.training.objectives import grpo

    monkeypatch.setattr(grpo, "NEEDS", grpo.NEEDS | {"anchor"})
    monkeypatch.setattr(grpo, "needs", lambda options: grpo.NEEDS)
    plain, opened = grpo.loss, policy.open_policy

    def loss(b, options):
        value, metrics = plain(b, options)
        return value + (b.logprobs_BT - b.anchor_BT).square().sum() / b.tokens, metrics

    def dropping(*given):
        made = opened(*given)
        for module in made.modules():
            if isinstance(module, torch.nn.Identity):  # LoRA's dropout, where it is 0
                module.forward = lambda x, m=module: torch.nn.functional.dropout(x, 0.3, m.training)
        return made

    monkeypatch.setattr(grpo, "loss", loss)
    monkeypatch.setattr(policy, "open_policy", dropping)
    train(tiny_model, tmp_path / "whole", batch)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(patched, 4)
        train(tiny_model, tmp_path / "cut", batch, tmp_path / "partial", EACH_STEP)
    torch.rand(99)
    train(tiny_model, tmp_path / "again", batch, tmp_path / "partial")
    assert same_files(tmp_path / "whole", tmp_path / "again")


def test_all_weights_go_on_too(tiny_model, batch, tmp_path, monkeypatch):
    given = {"lora": None, "lr": 1e-3, "objective": "reinforce"}
    train(tiny_model, tmp_path / "whole", batch, **given)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(patched, 2)
        train(tiny_model, tmp_path / "cut", batch, tmp_path / "partial", EACH_STEP, **given)
    train(tiny_model, tmp_path / "again", batch, tmp_path / "partial", **given)
    assert (tmp_path / "whole" / policy.MODEL).read_bytes() == (tmp_path / "again" / policy.MODEL).read_bytes()


# ---- the files


def put(folder, steps):
    history = [{"step": n + 1} for n in range(steps)]
    return checkpoint.write(folder, Position(0, steps, history, 1.5), {"weight/a": torch.full((2,), float(steps))})


def test_the_newest_whole_checkpoint_counts_and_older_ones_go(tmp_path):
    assert checkpoint.newest(tmp_path) == checkpoint.newest(None) == ""
    put(tmp_path, 3)
    place = put(tmp_path, 12)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000012"]
    found = checkpoint.read(place)
    assert (found.position.step, found.position.seconds) == (12, 1.5) and found.under("weight")["a"].tolist() == [
        12,
        12,
    ]


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.POSITION])
def test_a_torn_checkpoint_counts_as_absent(tmp_path, name):
    put(tmp_path / "a", 3)
    os.rename(tmp_path / "a" / "step-000003", tmp_path / "step-000003")
    put(tmp_path / "b", 4)
    os.rename(tmp_path / "b" / "step-000004", tmp_path / "step-000004")
    (tmp_path / "step-000005.part").mkdir()  # killed while it was written
    assert checkpoint.newest(tmp_path) == "step-000004"
    with open(tmp_path / "step-000004" / name, "r+b") as file:
        file.truncate(9)
    assert checkpoint.newest(tmp_path) == "step-000003"


def test_one_task_at_a_time_has_the_folder(tmp_path):
    with checkpoint.held(tmp_path / "x", True) as first, checkpoint.held(tmp_path / "x", True) as second:
        assert first == tmp_path / "x" and second is None
    with checkpoint.held(tmp_path / "x", True) as third:
        assert third == tmp_path / "x"
    with checkpoint.held(None, True) as none:
        assert none is None


def test_signals_are_noted_and_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with requests.heard() as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.save and not asked.end
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.end
    assert signal.getsignal(signal.SIGTERM) == before


def test_at_sigusr1_it_saves_and_at_sigterm_it_ends(tiny_model, batch, undisturbed, tmp_path, monkeypatch):
    partial, made = tmp_path / "partial", keeper.Keeper._after
    sent = {2: signal.SIGUSR1, 4: signal.SIGTERM}
    seen = []

    def after(self, trainer, position):
        if len(position.history) in sent:
            os.kill(os.getpid(), sent[len(position.history)])
        made(self, trainer, position)
        seen.append(checkpoint.newest(partial))

    with (
        monkeypatch.context() as patched,
        pytest.raises(MeritError, match=r"asked to end \(SIGTERM\).* after step 4; what is"),
    ):
        patched.setattr(keeper.Keeper, "_after", after)
        train(tiny_model, tmp_path / "cut", batch, partial)
    assert seen == ["", "step-000002", "step-000002"] and checkpoint.newest(partial) == "step-000004"
    train(tiny_model, tmp_path / "again", batch, partial)
    assert same_files(undisturbed[0], tmp_path / "again")


# ---- what is no number


def test_the_last_good_policy_is_kept_where_a_loss_is_no_number(tiny_model, batch, tmp_path):
    """Row 3 comes in the last step of the first epoch: the policy after the step before it is kept, and loads."""
    rows = Rows.load(batch / "solver.npz")
    rows.advantages[3] = np.nan
    names = [f"trace 't#{i}', turn 'solver.0'" for i in range(7)]
    Rows(rows.prompts, rows.completions, rows.logprobs, rows.advantages, names=names).save(tmp_path / "solver.npz")
    with pytest.raises(MeritError, match="the loss became nan") as raised:
        train(tiny_model, tmp_path / "out", tmp_path, tmp_path / "partial", EACH_STEP)
    steps = int(str(raised.value).split("at step ")[1].split(",")[0]) - 1
    kept = tmp_path / "partial" / checkpoint.LAST_GOOD
    assert "trace 't#3', turn 'solver.0'" in str(raised.value) and str(raised.value).endswith(str(kept))
    assert f"after step {steps}," in str(raised.value)
    assert len((kept / fit.METRICS).read_text().splitlines()) == steps
    if steps:
        weights = checkpoint.read(tmp_path / "partial" / f"step-{steps:06}").under("weight")
        saved = tensors(kept / policy.ADAPTER)
        assert all(torch.equal(saved[n.replace(".default.", ".")], w) for n, w in weights.items())
    opened = policy.open_policy(tiny_model, kept, fit.Options(**PLAIN), 0)
    assert all(torch.isfinite(p).all() for p in opened.parameters())


# ---- real processes, really killed


def start_training(tmp_path, tiny_model, batch, **training):
    """As the stage runs it, in a process of its own that leads its group."""
    code = (
        "import sys; from pathlib import Path; from tests.training import test_checkpoint as t\n"
        "model, out, batch, partial = map(Path, sys.argv[1:5])\n"
        f"t.train(model, out, batch, partial, t.EACH_STEP, **{training!r})"
    )
    command = [sys.executable, "-c", code, *map(str, (tiny_model, tmp_path / "cut", batch, tmp_path / "partial"))]
    env = processes.variables(1, {})
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, start_new_session=True)


def steps_done(tmp_path) -> int:
    name = checkpoint.newest(tmp_path / "partial") if (tmp_path / "partial").is_dir() else ""
    return int(name[5:] or 0)


LONG = {"epochs": 20}  # 60 steps


@pytest.fixture(scope="module")
def long_undisturbed(tiny_model, batch, tmp_path_factory):
    out = tmp_path_factory.mktemp("long") / "out"
    train(tiny_model, out, batch, **LONG)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_gone_on_from(tiny_model, batch, long_undisturbed, tmp_path, number):
    process = start_training(tmp_path, tiny_model, batch, **LONG)
    try:
        assert until(lambda: steps_done(tmp_path) >= 10 or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(60) != 0
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert 10 <= steps_done(tmp_path) < 60
    train(tiny_model, tmp_path / "again", batch, tmp_path / "partial", **LONG)
    assert same_files(long_undisturbed, tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after",
    [
        ({"parallel": "ddp", "ranks": 2}, {}),
        pytest.param({"parallel": "zero3", "ranks": 2}, {"parallel": "zero1", "ranks": 4}, marks=ZERO),
        pytest.param({"parallel": "zero2", "ranks": 4}, {"parallel": "zero3", "ranks": 2, "offload": True}, marks=ZERO),
    ],
)
def test_a_killed_rank_is_gone_on_from_with_other_ranks(tiny_model, batch, long_undisturbed, tmp_path, before, after):
    """SIGKILL of one rank ends them all; the rest is done by another number of ranks, divided in another way."""
    process = start_training(tmp_path, tiny_model, batch, **LONG, **before)
    spec = tmp_path / "cut" / "ranks" / "spec.json"
    try:
        assert until(lambda: steps_done(tmp_path) >= 10 or process.poll() is not None, 240)
        ranks = [
            p for p in processes_of(spec) if b"mpiexec" not in Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0")[0]
        ]
        os.kill(max(ranks), signal.SIGKILL)
        assert process.wait(60) != 0
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert 10 <= (done := steps_done(tmp_path)) < 60
    assert until(lambda: not processes_of(spec), 30)
    facts = train(tiny_model, tmp_path / "again", batch, tmp_path / "partial", **LONG, **after)
    assert facts["steps"] == 60 and done
    one, other = tensors(long_undisturbed / policy.ADAPTER), tensors(tmp_path / "again" / policy.ADAPTER)
    assert set(one) == set(other)
    assert all(torch.allclose(one[n], other[n], rtol=0, atol=2e-3) for n in one)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "again" / fit.METRICS).read_text().splitlines()]
    wanted = [json.loads(line)["loss"] for line in (long_undisturbed / fit.METRICS).read_text().splitlines()]
    assert np.allclose(losses, wanted, atol=1e-3)


@pytest.mark.slow
def test_ranks_that_are_asked_to_end_save_their_work_first(tiny_model, batch, tmp_path):
    """By the driver's SIGTERM: worker, launcher and ranks hand it on. A minute between checkpoints: only the signal saves."""
    out, partial = tmp_path / "out", tmp_path / "partial"
    code = (
        "import sys, threading; from pathlib import Path; from apps.platform import processes\n"
        "from tests.training import test_checkpoint as t\n"
        "given = [*map(Path, sys.argv[1:5])]\n"
        "call = threading.Thread(target=processes.run, args=('training', t.train, *given, 1.0),"
        " kwargs={'parallel': 'ddp', 'ranks': 2, 'epochs': 100_000})\n"
        "call.start(); sys.stdin.readline(); processes.close(60); call.join()"
    )
    command = [sys.executable, "-c", code, *map(str, (tiny_model, out, batch, partial))]
    process = subprocess.Popen(
        command, cwd=ROOT, env=processes.variables(1, {}), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    log = out / fit.METRICS
    try:
        assert until(lambda: log.is_file() and log.stat().st_size > 1000)
        began = time.monotonic()
        _, said = process.communicate(b"\n", timeout=90)
    finally:
        process.kill()
    assert time.monotonic() - began < 60 and b"was asked to end (SIGTERM)" in said
    assert checkpoint.newest(partial) and until(lambda: not processes_of(out / "ranks" / "spec.json"), 30)
