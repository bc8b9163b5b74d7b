"""The file of planted faults: the one that comes with Merit, and what is said of one that is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from apps.fidelity import faults
from apps.inference.engines import scripted
from apps.records import MeritError

FILE = Path(__file__).parents[2] / "workflows" / "faults.yaml"
GIVEN = {"seeds": [3], "cases": [{"name": "a", "faults": [{"role": "critic", "kind": "cry_wolf"}]}, {"name": "b"}]}


def test_the_file_plants_every_kind_singly_in_pairs_and_not_at_all():
    file = faults.read(FILE)
    kinds = {fault.kind for case in file.cases for fault in case.faults}
    assert kinds == set(scripted.KINDS)
    assert {len(case.faults) for case in file.cases} == {0, 1, 2}
    assert {case.topology["name"] for case in file.cases} == {"solve_critique_revise", "malt", "two_critics"}
    assert {case.topology.get("rounds", 1) for case in file.cases} == {1, 2, 3}


def test_the_top_of_a_file_holds_for_cases_that_say_nothing_else():
    given = copy.deepcopy(GIVEN)
    given["cases"][1]["seeds"] = [1, 2]
    file = faults.checked(given, "x")
    assert [case.seeds for case in file.cases] == [(3,), (1, 2)]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda g: g["cases"][0]["faults"][0].update(kind="crywolf"), "case 'a'.*did you mean 'cry_wolf'"),
        (lambda g: g["cases"][0]["faults"][0].update(role="critc"), "case 'a'.*did you mean 'critic'"),
        (lambda g: g["cases"][0]["faults"][0].update(role="solver"), "case 'a'.*cannot strike the solver"),
        (lambda g: g["cases"][0]["faults"][0].update(rate=2), "case 'a'.*rate = 2"),
        (lambda g: g["cases"][0]["faults"][0].update(turns=1), "case 'a'.*did you mean 'turn'"),
        (lambda g: g["cases"][0].update(falts=[]), "case 'a'.*did you mean 'faults'"),
        (lambda g: g["cases"][0].update(normal={"critc": {}}), "case 'a'.*did you mean 'critic'"),
        (lambda g: g["cases"][0].update(normal={"critic": {"solv": 1}}), "case 'a'.*did you mean 'solve'"),
        (lambda g: g["cases"][0].update(topology={"name": "mlt"}), "did you mean 'malt'"),
        (lambda g: g["cases"][0].update(topology={"name": "malt", "rounds": 2}), "malt.*rounds"),
        (lambda g: g["cases"][0].update(topology={"name": "malt"}), "case 'a'.*'critic'.*generator"),
        (lambda g: g.update(usual={"sovle": 0.1}), "did you mean 'solve'"),
        (lambda g: g["cases"][1].update(name="a"), "two cases are named 'a'"),
        (lambda g: g.update(cases=[]), "cases"),
        (lambda g: g.update(seeds=[]), "seeds"),
    ],
)
def test_a_slip_in_a_file_is_told_with_its_place(edit, said, tmp_path):
    given = copy.deepcopy(GIVEN)
    edit(given)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(MeritError, match=said) as told:
        faults.read(file)
    assert "cases = " not in str(told.value) or not given["cases"]  # a fault of a case is no fault of the list


@pytest.mark.parametrize("text", ["- 1", "cases: 3", "cases: [", "42"])
def test_what_is_no_file_of_cases_is_told(text, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(MeritError, match=f"faults={file}"):
        faults.read(file)


def test_a_missing_file_is_told():
    with pytest.raises(MeritError, match="no such file"):
        faults.read("nowhere.yaml")
