"""docs/credit.md tells of every method there is, and of each option just what the file says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from apps import leaf
from apps.credit.coalitions import Replayed
from tests.command import run

PAGE = (Path(__file__).parents[2] / "docs" / "credit.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.M | re.S))
SHARED = set(Replayed.model_fields)
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.M)


def fields(name):
    return leaf.find("credit", name).Options.model_fields


def test_every_method_has_its_section_and_nothing_else_has():
    assert sorted(SECTIONS) == leaf.names("credit")


@pytest.mark.parametrize("name", leaf.names("credit"))
def test_every_method_is_in_the_tables(name):
    costs, fidelity = (
        PAGE.split(start)[1].split("\n## ")[0] for start in ("## Which method\n", "## Measured fidelity\n")
    )
    assert f"\n| `{name}`" in costs and f"\n| `{name}`" in fidelity


@pytest.mark.parametrize("name", leaf.names("credit"))
def test_the_options_of_a_section_are_those_of_the_file(name):
    told = {option for option, _ in ROW.findall(SECTIONS[name])}
    shared = SHARED if "the shared ones" in SECTIONS[name].replace("\n", " ") else set()
    assert told | shared == set(fields(name)) and not told & shared


def defaults():
    sections = [(name, text, fields(name)) for name, text in SECTIONS.items()]
    shared = PAGE.split("called *the shared ones* below:")[1].split("## The methods")[0]
    for name, text, known in [*sections, ("shared", shared, Replayed.model_fields)]:
        yield from ((name, option, told, known[option].default) for option, told in ROW.findall(text))


@pytest.mark.parametrize(("name", "option", "told", "default"), defaults())
def test_a_default_is_the_one_of_the_file(name, option, told, default):
    if told in ("none", "the team's", "measured"):
        assert default in ("", None)
    elif isinstance(default, bool):
        assert told == str(default).lower()
    elif isinstance(default, (int, float)):
        assert float(told.replace("−", "-")) == default
    else:
        assert told.strip("`") == (str(default) if default != {} else "{}")


def test_the_commands_of_the_page_are_understood(tmp_path):
    for command in re.findall(r"^python workflows/run.py (fidelity|claims) (.*)$", PAGE, re.M):
        quick = ["seeds=[0]"] if command[0] == "claims" else []
        ended = run(tmp_path, command[0], *shlex.split(command[1]), *quick, "--dry-run")
        assert ended.returncode == 0, ended.stderr


def test_its_links_lead_somewhere():
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^##+ (.*)$", PAGE, re.M)}
    assert {link for link in re.findall(r"\]\(#([\w-]+)\)", PAGE)} <= headings
    assert all((Path(__file__).parents[2] / "docs" / file).is_file() for file in re.findall(r"\]\((\w+\.md)\)", PAGE))
