"""The digest of a stage's code changes with what the stage runs, and with nothing else."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from apps.records import MeritError
from workflows import closure

ROOT = Path(__file__).parents[2]
PACKAGE = {
    "__init__.py": "",
    "app.py": "def run():\n    from . import deep\n    return deep.f(1)\n",
    "deep.py": "import json\nfrom mine_too import g\n\ndef f(x):\n    return g(x)\n",
    "aside.py": "y = 1\n",
}
BESIDE = "def g(x):\n    return x + 1\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's package `mylab` and a module `mine_too` beside it; gives a function that edits and digests."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mylab").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "mylab" / name).write_text(text)
    (tmp_path / "mine_too.py").write_text(BESIDE)

    def digest(root: str = "mylab.app", **edits: str) -> str:
        for name, text in edits.items():
            (tmp_path / f"{name}.py").write_text(text)
        forget()
        return closure.code_digest([root])

    yield digest
    forget()


def forget() -> None:
    importlib.invalidate_caches()
    for kept in (closure.source, closure._digest, closure._read, closure._outside):
        kept.cache_clear()


def test_imports_are_followed_also_inside_functions_and_out_of_a_package(lab):
    lab()
    assert set(closure.closure(["mylab.app"]).values()) == {"mylab", "mylab.app", "mylab.deep", "mine_too"}


@pytest.mark.parametrize(
    "edit",
    [
        {"mylab/deep": PACKAGE["deep.py"].replace("g(x)", "g(x, 1)")},
        {"mine_too": BESIDE.replace("+ 1", "+ 2")},
        {"mine_too": BESIDE.replace("+ 1", "+ 1.0")},
        {"mylab/__init__": "import torch\n"},
        {"mine_too": BESIDE + "assert g"},
    ],
)
def test_a_change_of_what_runs_changes_the_digest(lab, edit):
    assert lab() != lab(**edit)


USER = {
    "top": 'USES = (("topologies", "{folder}/inner.py"), ("tools", "calculator"))\n',
    "inner": 'USES: tuple = (("reward", "mylab.aside"),)\n',
}


def test_what_a_topology_uses_counts_as_if_it_were_imported(lab, tmp_path):
    """By name, by file and by dotted name; also what those use in their turn. Nothing in it is imported."""
    files = {name: text.format(folder=tmp_path) for name, text in USER.items()}
    top = str(tmp_path / "top.py")
    first = lab(top, **files)
    names = set(closure.closure([top]).values())
    assert names >= {"top", "inner", "apps.tools.calculator", "apps.records", "mylab.aside"}
    assert lab(top, **{"mylab/aside": "y = 2\n"}) != first
    assert lab(top, **{"mylab/aside": "y = 1  # as before\n"}) == first
    assert lab(top, inner=files["inner"] + "x = 1\n") != first
    assert "apps.tools.calculator" not in closure.closure(["apps.topologies.single"]).values()


def test_topologies_that_use_each_other_are_read_once(lab, tmp_path):
    one, other = str(tmp_path / "one.py"), str(tmp_path / "other.py")
    lab(one, one=f'USES = (("topologies", {other!r}),)\n', other=f'USES = (("topologies", {one!r}),)\n')
    assert {"one", "other"} <= set(closure.closure([one]).values())


@pytest.mark.parametrize("written", ["SOME", "('tools', 'calculator')", "(('tools', 3),)", "3", "[('tools',)]"])
def test_uses_that_are_not_written_out_are_refused(lab, tmp_path, written):
    with pytest.raises(MeritError, match=r"top.py, line 2: USES has to be written out as pairs"):
        lab(str(tmp_path / "top.py"), top=f"SOME = ()\nUSES = {written}\n")


def test_a_used_leaf_that_is_not_there_is_named(lab, tmp_path):
    with pytest.raises(MeritError, match=r"no module or file 'apps.tools.calculatr'"):
        lab(str(tmp_path / "top.py"), top="USES = (('tools', 'calculatr'),)\n")


@pytest.mark.parametrize(
    "edit",
    [
        {"mylab/aside": "y = 2\n"},
        {"mine_too": '"""A remark."""\n\n# and another\ndef g(x):\n    """And one."""\n    return (x  +  1)\n'},
    ],
)
def test_remarks_layout_and_other_modules_do_not_count(lab, edit):
    assert lab() == lab(**edit)


def test_a_string_that_is_no_docstring_counts(lab):
    assert lab(mine_too="x = 'a'\n") != lab(mine_too="x = 'b'\n")


def test_the_version_of_a_library_counts_where_it_is_imported(lab, monkeypatch):
    with_numpy, without = lab(mine_too="import numpy as np\ng = np.abs\n"), lab("mylab.aside")
    monkeypatch.setitem(closure.DECIDING, "numpy", ("numpy", "h5py"))  # as if another version decided
    assert lab() != with_numpy
    assert lab("mylab.aside") == without


def test_a_leaf_given_by_its_file_does_not_depend_on_where_the_file_lies(tmp_path):
    digests = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "mine.py"
        file.write_text("from apps import records\nx = 1\n")
        digests.add(closure.code_digest([str(file)]))
        assert "apps.records" in closure.closure([str(file)]).values()
    assert len(digests) == 1


def test_two_files_of_one_name_both_count(tmp_path):
    files = [tmp_path / folder / "mine.py" for folder in "ab"]
    for n, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"x = {n}\n")
    both = closure.code_digest(list(map(str, files)))
    assert both == closure.code_digest([str(files[1]), str(files[0])])
    assert both != closure.code_digest([str(files[0])])


def test_libraries_and_pythons_own_modules_are_not_followed():
    names = set(closure.closure(["apps.records"]).values())
    assert names == {"apps", "apps.records"}
    assert closure.source("numpy") is None and closure.source("json") is None


def test_a_root_that_is_not_there_is_named():
    with pytest.raises(MeritError, match="no module or file 'apps.nowhere'"):
        closure.code_digest(["apps.nowhere"])


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("shapley", "apps.credit.shapley"),
        ("mylab.credit.mine", "mylab.credit.mine"),
        ("here/mine.py", "here/mine.py"),
    ],
)
def test_the_root_of_a_leaf(name, root):
    assert closure.root("credit", name) == root
    assert closure.root("inference/engines", "scripted") == "apps.inference.engines.scripted"


def test_digests_are_the_same_in_another_process_and_import_nothing_heavy():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted([*ROOT.glob("apps/**/*.py"), *ROOT.glob("workflows/*.py")])
        if file.name != "__init__.py"
    ]
    script = (
        "import sys; from workflows import closure; print(closure.code_digest(sys.argv[1:])); "
        "print([m for m in ('torch', 'transformers', 'parsl') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split("\n")[:2] == [closure.code_digest(modules), "[]"]
