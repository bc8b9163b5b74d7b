"""What a manifest makes: laws of its runs, and the fault of every bad one with its line."""

from __future__ import annotations

import itertools
import re
from math import log
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.records import MeritError
from workflows import config, post_train
from workflows.study import expand, manifest
from workflows.study.axes import drawn
from workflows.study.dotted import flat, nested
from workflows.study.manifest import Draw

BASE = config.defaults(post_train.Config)
SETTINGS = ("rollout.samples", "training.epochs", "training.step_rows", "credit.repeats")
columns = st.dictionaries(
    st.sampled_from(SETTINGS), st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True), max_size=3
)


def runs(text: str) -> list[expand.Run]:
    return expand.runs(manifest.parse(text, "study.yaml"), BASE)


def written(**sections) -> list[expand.Run]:
    return runs(yaml.safe_dump(sections))


@given(columns, st.integers(1, 4))
@settings(deadline=None)
def test_a_grid_has_every_combination_once_with_every_seed(grid, repeat):
    found = written(**({"grid": grid} if grid else {}), repeat=repeat)
    expected = set(itertools.product(*grid.values(), range(repeat)))
    assert {(*(run.settings[key] for key in grid), run.seed) for run in found} == expected
    assert len(found) == len(expected) == len({run.name for run in found})
    assert len({run.configuration for run in found}) == len(expected) // repeat


@given(columns, st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True), st.integers(0, 9))
@settings(deadline=None)
def test_the_same_manifest_makes_the_same_runs_in_the_same_order(grid, repeat, seed):
    drawing = {"draws": 3, "seed": seed, "settings": {"training.lr": {"log_uniform": [1e-5, 1e-2]}}}
    text = yaml.safe_dump({**({"grid": grid} if grid else {}), "repeat": repeat, "random": drawing})
    assert runs(text) == runs(text)


@given(st.integers(0, 2**31), st.integers(0, 500), st.integers(-5, 5), st.integers(1, 9))
def test_what_is_drawn_lies_within_its_bounds_and_depends_on_nothing_else(seed, number, low, width):
    high = low + width
    whole, share = Draw(integers=(low, high)), Draw(uniform=(low, high))
    assert low <= drawn(whole, seed, number, "a") <= high and low <= drawn(share, seed, number, "a") <= high
    assert 1e-5 <= drawn(Draw(log_uniform=(1e-5, 1e-2)), seed, number, "a") <= 1e-2
    assert drawn(Draw(choice=["x", "y"]), seed, number, "a") in ("x", "y")
    assert drawn(share, seed, number, "a") == drawn(share, seed, number, "a")


def test_draws_are_uniform_on_their_scale():
    """Kolmogorov's distance of 2,000 draws from the distribution that was asked for; chance alone exceeds it once in 1,000."""
    for draw, place in (
        (Draw(uniform=(2, 6)), lambda x: (x - 2) / 4),
        (Draw(log_uniform=(1e-5, 1e-1)), lambda x: (log(x) - log(1e-5)) / (log(1e-1) - log(1e-5))),
    ):
        places = sorted(place(drawn(draw, 0, number, "a")) for number in range(2000))
        assert max(abs(at - i / 2000) for i, at in enumerate(places)) < 1.95 / 2000**0.5


def test_more_draws_and_other_settings_change_none_of_those_there_are():
    lr, epochs = {"training.lr": {"uniform": [0, 1]}}, {"training.epochs": {"integers": [1, 4]}}
    few = written(random={"draws": 2, "settings": lr})
    many = written(random={"draws": 5, "settings": {**epochs, **lr}})
    assert [run.settings["training.lr"] for run in many[:2]] == [run.settings["training.lr"] for run in few]


@given(columns)
def test_dotted_and_nested_say_the_same(grid):
    settings_ = {key: values[0] for key, values in grid.items()}
    assert flat(nested(settings_)) == settings_
    if grid:
        assert written(grid=grid) == written(grid=nested(grid))


def test_sections_multiply_and_zip_goes_side_by_side():
    found = runs("""
        grid: {rounds: [1, 2]}
        zip: {training.lr: [0.1, 0.2], training.epochs: [3, 4]}
        list: {plain: {credit.name: uniform}, ours: {credit: {name: shapley, repeats: 4}}}
        repeat: [7]
    """)
    assert len(found) == 2 * 2 * 2
    assert {(r.settings["training.lr"], r.settings["training.epochs"]) for r in found} == {(0.1, 3), (0.2, 4)}
    assert found[0].name == "1-0.1-3-plain-seed7" and found[0].configuration == "1-0.1-3-plain"
    assert found[1].changes == {
        "rounds": 1, "training": {"lr": 0.1, "epochs": 3}, "credit": {"name": "shapley", "repeats": 4}, "seed": 7,
    }  # fmt: skip


def test_seeds_in_a_grid_are_seeds():
    found = runs("grid: {seed: [3, 5], rounds: [1, 2]}")
    assert [(r.seed, r.configuration) for r in found] == [(3, "1"), (3, "2"), (5, "1"), (5, "2")]
    assert "seed" not in found[0].settings


def test_exclude_looks_at_the_whole_configuration_and_takes_lists():
    grid = "grid: {credit.name: [uniform, shapley, local], rounds: [1, 2]}\n"
    left = runs(grid + "exclude: [{credit.name: [uniform, local], rounds: 2}]")
    assert [r.name for r in left] == ["uniform-1", "shapley-1", "shapley-2", "local-1"]
    assert [r.name for r in runs(grid + "exclude: [{rounds: 2, rollout.plan: tree}]")] == [
        "uniform-1",
        "shapley-1",
        "local-1",
    ]


def test_names_take_any_setting_with_a_format():
    found = runs(
        "grid: {training.lr: [1.0e-3, 2.5e-4]}\nrepeat: 2\nnames: 'lr{training.lr:.1e}_{credit.name}_{credit}_{seed}'"
    )
    assert found[0].name == "lr1.0e-03_shapley_shapley_0" and found[3].name == "lr2.5e-04_shapley_shapley_1"


def test_the_examples_of_the_documentation_are_manifests():
    root = Path(__file__).parents[3]
    blocks = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "sweeps.md").read_text(encoding="utf-8"), re.DOTALL)
    assert [len(runs(block)) for block in blocks] == [12, 45, 32]
    assert len(runs((root / "workflows" / "configs" / "sweep_credit.yaml").read_text(encoding="utf-8"))) == 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", r"^study.yaml, line 1: a: manifest: there is no 'a'"),
        ("\ngird: {rounds: [1]}", r"line 2: .*did you mean 'grid'\?"),
        ("grid: {}", r"line 1: grid: an empty grid makes no run"),
        ("list: []", r"line 1: list: an empty list makes no run"),
        ("grid:\n  rounds: []", r"line 2: grid.rounds: an empty list makes no run"),
        ("grid:\n  rounds: 3", r"line 2: grid.rounds: a list of values is expected, given 3; write \[3\]"),
        ("grid:\n  rounds: [1, 1]", r"line 2: grid.rounds: the value 1 stands there twice"),
        ("grid:\n  rounds: [1]\n  rounds: [2]", r"'rounds' stands there twice, in line 2 and in line 3"),
        ("grid: {rounds: [1]}\nlist: [{rounds: 2}]", r"line 2: list: rounds is set by grid already"),
        ("grid: {credit: [uniform], credit.repeats: [1]}", r"credit.repeats is set by grid already"),
        ("zip:\n  rounds: [1, 2]\n  seed: [1]", r"line 1: zip: .*rounds has 2, seed has 1"),
        ("grid: {name: [a, b]}", r"name cannot vary"),
        ("repeat: 0", r"one seed at least"),
        ("repeat: []", r"line 1: repeat: an empty list makes no run"),
        ("repeat: [1, 1]", r"a seed stands there twice"),
        ("random: {settings: {rounds: {integers: [1, 2]}}}", r"line 1: random.draws: Field required"),
        ("repeat: many", r"line 1: repeat: .*valid integer"),
        (
            "grid: {rounds: [1, 2]}\nrepeat: 600",
            r"line 2: repeat: the manifest makes 1,200 runs, 2 \(grid.rounds\) × 600",
        ),
        ("repeat: 100000000000", r"makes 100,000,000,000 runs"),
        ("random: {draws: 1000000, settings: {rounds: {integers: [1, 2]}}}", r"makes 1,000,000 runs.*`limit: 1000000`"),
        ("random: {draws: 2, settings: {rounds: {between: [1, 2]}}}", r"rounds.between: .*known: uniform, log_uniform"),
        ("random: {draws: 2, settings: {rounds: {integers: [2, 1]}}}", r"low < high; given \[2, 1\]"),
        ("random: {draws: 2, settings: {training.lr: {log_uniform: [0, 1]}}}", r"numbers above 0"),
        ("random: {draws: 2, settings: {rounds: {}}}", r"one of uniform, log_uniform, integers or choice"),
        ("grid: {rounds: [1, 2]}\nexclude:\n - {rounds: 3}", r"line 3: exclude\[0\]: no run has rounds=3"),
        ("grid: {rounds: [1, 2]}\nexclude: [{round: 1}]", r"did you mean 'rounds'\?"),
        ("grid: {rounds: [1, 2]}\nexclude: [{rounds: [1, 2]}]", r"line 2: exclude\[0\]: .*none of 2 runs is left"),
        ("grid: {rounds: [1, 2]}\nnames: same", r"line 2: names: two runs would be called 'same'.* differ in rounds=2"),
        ("repeat: 2\nnames: '{rounds}'", r"line 2: names: .*differ in seed=1"),
        ("grid: {rounds: [1, 2]}\nnames: '{rouds}'", r"\{rouds\} has no value in a run.*did you mean 'rounds'\?"),
        ("grid: {rounds: [1]}\nnames: '{rounds'", r"is no name of a folder"),
        ("grid: {rounds: [1, 2]}\nhalving: {rungs: [1, 2]}", r"rounds cannot vary with `halving`"),
        ("halving: {rungs: [2, 1]}", r"line 1: halving: rungs are rounds in all, so they rise"),
        ("halving: {rungs: [1, 2], etha: 3}", r"halving.etha: .*did you mean 'eta'\?"),
        ("- rounds", r"a mapping of keys to values is expected, this is seq"),
        ("grid: [", r"no valid YAML"),
        ("", r"this is nothing"),
    ],
)
def test_a_bad_manifest_is_told_with_its_place(text, message):
    with pytest.raises(MeritError, match=message):
        runs(text)
