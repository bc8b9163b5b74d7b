"""Teams on disk: policies of their own, shared ones, whole models, base models that differ, guests."""

from __future__ import annotations

import json
from pathlib import Path

from apps import policies
from apps.records import Policy

AGENTS = ["solver", "critic", "reviser"]


def made(folder: Path, agent: str, digest: str, whole: bool = False) -> Path:
    """What the stage `train` leaves of an agent."""
    folder.mkdir()
    (folder / ("config.json" if whole else "adapter_config.json")).write_text("{}")
    (folder / "weights").write_text(digest)
    (folder / "facts.json").write_text(json.dumps({"agent": agent, "digest": digest}))
    return folder


def team(at: Path, **options) -> Path:
    at.mkdir()
    policies.base(at, {}, {"agents": AGENTS, **options})
    return at


def gathered(at: Path, before: Path, *trained: Path) -> Path:
    at.mkdir()
    policies.gather(at, {"policies": [before], "train": list(trained)}, {})
    return at


def said(folder: Path, agent: str) -> str:
    return (Path(policies.read(folder)[agent].folder) / "weights").read_text()


def test_who_shares_speaks_with_what_was_trained_under_the_other_s_name(tmp_path):
    start = team(tmp_path / "base", share={"critic": "reviser"})
    assert policies.read(start)["critic"] == Policy("critic")
    trained = gathered(tmp_path / "one", start, made(tmp_path / "a", "reviser", "r1"))
    found = policies.read(trained)
    assert {agent: p.digest for agent, p in found.items()} == {"solver": "base", "critic": "r1", "reviser": "r1"}
    assert found["critic"].adapter == found["reviser"].adapter == str(trained / "reviser")
    assert sorted(f.name for f in trained.iterdir()) == ["policies.json", "reviser"], "shared weights lie there once"
    adopted = tmp_path / "adopted"
    adopted.mkdir()
    policies.adopt(adopted, trained)
    assert said(adopted, "critic") == "r1" and policies.rows(adopted) == policies.rows(trained)


def test_a_whole_model_speaks_for_itself_and_its_base_stands_in(tmp_path):
    start = team(tmp_path / "base", models={"critic": "d1"})
    places = {"d1": "/models/other"}
    assert policies.read(start, places)["critic"] == Policy("critic", model="/models/other", base="/models/other")
    whole = made(tmp_path / "w", "critic", "c1", whole=True)
    one = gathered(tmp_path / "one", start, whole, made(tmp_path / "s", "solver", "s1"))
    found = policies.read(one, places)
    assert found["critic"] == Policy("critic", "c1", model=str(one / "critic"), base="/models/other")
    assert found["critic"].folder == str(one / "critic") and found["solver"].folder == str(one / "solver")
    assert found["solver"] == Policy("solver", "s1", str(one / "solver")) and found["reviser"].folder == ""
    adapter = made(tmp_path / "a", "critic", "c2")
    two = policies.read(gathered(tmp_path / "two", start, adapter), places)
    assert two["critic"] == Policy("critic", "c2", str(tmp_path / "two" / "critic"), "/models/other", "/models/other")


def test_guests_have_the_policies_of_the_past_and_everyone_else_todays(tmp_path):
    start = team(tmp_path / "base", share={"critic": "reviser"})
    old = gathered(tmp_path / "old", start, made(tmp_path / "a", "reviser", "r1"), made(tmp_path / "b", "solver", "s1"))
    new = gathered(tmp_path / "new", old, made(tmp_path / "c", "reviser", "r2"), made(tmp_path / "d", "solver", "s2"))
    for past, guests, expected in (
        (old, ["critic", "reviser"], {"solver": "s2", "critic": "r1", "reviser": "r1"}),
        (old, ["solver"], {"solver": "s1", "critic": "r2", "reviser": "r2"}),
        (start, ["solver"], {"solver": "base", "critic": "r2", "reviser": "r2"}),
    ):
        out = tmp_path / f"cast{past.name}{guests[0]}"
        out.mkdir()
        policies.cast(out, {"policies": [new], "past": [past]}, {"guests": guests})
        assert {agent: p.digest for agent, p in policies.read(out).items()} == expected
        for agent, digest in expected.items():
            assert digest == "base" or said(out, agent) == digest


def test_weights_are_read_from_this_node_and_copied_there_once_whichever_team_holds_them(tmp_path):
    start, staging = team(tmp_path / "base", share={"critic": "reviser"}), tmp_path / "node"
    trained = made(tmp_path / "a", "reviser", "r1")
    (trained / "optimiser.safetensors").write_text("large, and the trainer's alone")
    one = gathered(tmp_path / "one", start, trained, made(tmp_path / "w", "solver", "s1", whole=True))
    found = policies.read(one, {}, str(staging))
    assert Path(found["critic"].adapter).name == "reviser" and staging in Path(found["critic"].adapter).parents
    assert {file.name for file in Path(found["critic"].adapter).iterdir()} == {"adapter_config.json", "weights"}
    assert Path(found["solver"].model).is_relative_to(staging) and found["solver"].adapter == ""
    adopted = tmp_path / "adopted"
    adopted.mkdir()
    policies.adopt(adopted, one)
    assert policies.read(adopted, {}, str(staging)) == found
    assert {agent: p.digest for agent, p in found.items()} == {a: p.digest for a, p in policies.read(one).items()}
