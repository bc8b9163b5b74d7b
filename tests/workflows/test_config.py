"""Settings are laid over one another, checked before anything starts, and their faults are told with the nearest choice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError
from workflows import config
from workflows.config import PostTrain
from workflows.pretrain import Config as Pretrain

VALUES = st.dictionaries(st.sampled_from("xy"), st.integers(0, 3))  # x and y are values, a and b sections
TREES = st.recursive(
    VALUES,
    lambda inner: st.builds(lambda v, s: v | s, VALUES, st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
)


def load(*words: str, kind=PostTrain, file=None, **fixed):
    return config.load(kind, file, words, **fixed)


def test_words_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("rounds: 4\nrollout: {tasks: 7, shards: 3}\nseed: 5\n")
    chosen = load("rollout.tasks=9", file=file, seed=6)
    defaults = PostTrain()
    assert (chosen.rounds, chosen.seed) == (4, 6)
    assert (chosen.rollout.tasks, chosen.rollout.shards, chosen.rollout.samples) == (9, 3, defaults.rollout.samples)


def test_the_last_word_wins():
    assert load("rounds=3", "rounds=4").rounds == 4


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=x", {"a": {"b": {"c": "x"}}}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a={b: 1}", {"a": {"b": 1}}),
        ("a=null", {"a": None}),
        ("a=", {"a": ""}),
        ("a=x=y", {"a": "x=y"}),
        ("a=@prompt.txt", {"a": "@prompt.txt"}),
        ("a=1e-3", {"a": "1e-3"}),  # YAML 1.1 reads no number without a point; pydantic does
    ],
)
def test_a_word_is_a_path_and_a_yaml_value(word, value):
    assert config.parse_word(word) == value


def test_a_rate_may_be_written_without_a_point():
    assert load("training.lr=1e-4").training.lr == 1e-4


@pytest.mark.parametrize("word", ["rounds", "=3", "a..b=1", ".a=1", "a.=1"])
def test_what_is_no_word_is_told_so(word):
    with pytest.raises(MeritError, match="neither a workflow nor an override of the form key=value"):
        config.parse_word(word)


@given(TREES, TREES, TREES)
def test_laying_over_is_associative_and_idempotent(a, b, c):
    assert config.overlay(config.overlay(a, b), c) == config.overlay(a, config.overlay(b, c))
    assert config.overlay(a, a) == a
    assert config.overlay({}, a) == config.overlay(a, {}) == a


def test_another_leaf_takes_nothing_over_from_the_old_one():
    """Its options mean nothing to the new one."""
    assert load("credit.name=uniform").credit == {"name": "uniform"}
    assert load("credit.repeats=5").credit == {**PostTrain().credit, "repeats": 5}
    assert load("credit.name=shapley").credit == PostTrain().credit


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("roundz=3", r"there is no 'roundz'; did you mean 'rounds'\?"),
        ("rollout.sample=3", r"rollout: there is no 'sample'; did you mean 'samples'\?"),
        ("training.lora.rank=3", r"training.lora: there is no 'rank'"),
        ("sampling.temperatur=1", r"sampling: there is no 'temperatur'; did you mean 'temperature'\?"),
        ("credit.name=shaply", r"credit: there is no 'shaply'; did you mean 'shapley'\?.*uniform"),
        ("objective.name=dpoo", r"training/objectives: there is no 'dpoo'; did you mean 'dpo'\?"),
        ("credit.repeat=3", r"credit.shapley: unknown key: there is no 'repeat'; did you mean 'repeats'\?"),
        ("tasks.levels=many", r"tasks.arithmetic: levels = 'many'"),
        ("credit.name=mine/none.py", r"credit: no file 'mine/none.py'"),
        ("credit.name=no.such.module", r"credit: no module 'no.such.module' can be imported"),
        ("rounds=-1", r"rounds = -1: .*greater than or equal to 0"),
        ("rounds=many", r"rounds = 'many': .*integer"),
        ("rollout.plan=forest", r"rollout.plan = 'forest': .*'independent', 'tree' or 'best'"),
        ("training.betas=[1.0, 0.9]", r"training.betas.0 = 1.0: .*less than 1"),
        ("training.betas=[0.9, -0.1]", r"training.betas.1 = -0.1: .*greater than or equal to 0"),
        ("promotion.unit=agent", r"promotion.unit = 'agent': .*'team' or 'adapter'"),
        ("name=../up", r"name = '../up'"),
        ("name=..", r"name = '..'"),
        ("evaluation=3", r"evaluation = 3"),
        ("credit=shapley", r"credit = 'shapley'"),
        ("credit.name=null", r"credit.name = None: the name of a leaf is expected \(known: .*shapley"),
        ("topology.name=", r"topology.name = '': the name of a leaf is expected"),
        ("tasks.name=3", r"tasks.name = 3: the name of a leaf is expected"),
    ],
)
def test_a_fault_is_told_with_its_place_and_the_nearest_choice(word, message):
    with pytest.raises(MeritError, match=message) as told:
        load(word)
    assert "\n" not in str(told.value)


def test_every_fault_is_told_at_once():
    with pytest.raises(MeritError) as told:
        load("roundz=3", "rollout.sample=3")
    assert len(str(told.value).split("\n")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("a: [1", "no valid YAML"),
        ("- 1\n- 2\n", "a mapping of keys to values is expected, this is a list"),
        ("just words", "a mapping of keys to values is expected, this is a str"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_so(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(MeritError, match=message):
        load(file=file)


@pytest.mark.parametrize("kind", [PostTrain, Pretrain])
def test_what_is_written_is_read_back_as_it_was(tmp_path, kind):
    file = tmp_path / "config.yaml"
    words = ["credit.name=uniform", "training.lora=null"] if kind is PostTrain else ["shape.layers=2"]
    chosen = load(*words, "seed=7", kind=kind)
    file.write_text(config.dump(chosen))
    assert load(kind=kind, file=file) == chosen


RECIPES = sorted((config.Path(__file__).parents[2] / "workflows" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", [file for file in RECIPES if "base" not in config.read_yaml(file)], ids=str)
def test_every_recipe_is_valid(recipe):
    assert load(file=recipe) != PostTrain()


def test_every_section_of_leaves_is_a_setting():
    assert set(config.LEAVES) <= set(PostTrain.model_fields)
