"""What is packaged: `apps` and `workflows` with their data, never `site`; and a fresh clone has all that `make` needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests import command

ROOT = command.ROOT
SETTINGS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def listed(name: str) -> list[str]:
    """The requirements of a list in pyproject.toml (read by pattern: tomllib is not in Python 3.10)."""
    return re.findall(r'"([^"]+)"', re.search(rf"^{name} = \[(.*?)\]", SETTINGS, re.M | re.S)[1])


def bare(requirement: str) -> str:
    return re.split(r"[<>=!~; \[]", requirement)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel that is built from what git knows, and from what it would."""
    clone = tmp_path_factory.mktemp("wheel") / "clone"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    made = subprocess.run([sys.executable, "-c", build], cwd=clone, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return zipfile.ZipFile(clone / made.stdout.split()[-1])


def test_only_apps_and_workflows_are_packaged(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"apps", "workflows"}
    assert not (ROOT / "site" / "__init__.py").exists() and not (ROOT / "site" / "site.py").exists()


def test_every_module_and_every_data_file_is_packaged(wheel):
    names = set(wheel.namelist())
    modules = {f.relative_to(ROOT).as_posix() for top in ("apps", "workflows") for f in (ROOT / top).rglob("*.py")}
    assert modules <= names
    data = [
        *ROOT.glob("apps/report/*.jinja"),
        *ROOT.glob("apps/data/embedded/*"),
        *ROOT.glob("workflows/configs/*.yaml"),
    ]
    assert len(data) > 1 and {f.relative_to(ROOT).as_posix() for f in data} <= names


def test_every_folder_of_modules_is_a_package():
    folders = {f.parent for top in ("apps", "workflows") for f in (ROOT / top).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_distribution_says_what_it_is(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    told = wheel.read(name).decode()
    for line in ("Name: merit", "Version: 0.1.0", "License-Expression: Apache-2.0", "Requires-Python: <3.14,>=3.10"):
        assert line in told
    assert "Requires-Dist: torch>=2.6\n" in told  # a lower bound alone: a platform brings its own build
    assert {"mpi", "deepspeed", "qlora", "vllm", "aurora", "tasks", "bench", "dev"} == set(
        re.findall(r"Provides-Extra: (\w+)", told)
    )


def test_mpi_is_no_core_dependency():
    assert not {"mpi4py", "deepspeed", "vllm"} & {bare(r) for r in listed("dependencies")}


def test_all_that_make_installs_is_pinned_and_installed_so():
    """Each requirement of the core and of the extras that tests need, and nothing but exact pins."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.match(r"[a-z0-9-]+==[\w.]+(; python_version (<|>=) \"3.11\")?$", line) for line in lines), lines
    pinned = {line.split("==")[0] for line in lines}
    assert {
        bare(r) for name in ("dependencies", "tasks", "dev", "mpi", "deepspeed", "bench") for r in listed(name)
    } <= pinned
    assert "torch==2.13.0" in lines
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]


@pytest.mark.parametrize("target", ["run", "test", "test-all", "lint", "claims", "model"])
def test_every_target_sets_up_what_it_needs(tmp_path, target):
    """In a fresh clone `make` would first build the environment, torch before everything else."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    planned = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    places = [planned.index(word) for word in ("-m venv", "grep '^torch=='", "-e '.[dev,tasks,mpi]'", "touch")]
    assert places == sorted(places)
    assert planned.rstrip().count("\n") > planned[: places[-1]].count("\n")  # and then the work


def test_make_help_names_every_target():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"make ([a-z-]+)", told)) >= {"run", "test", "test-all", "lint", "claims", "model", "help"}
