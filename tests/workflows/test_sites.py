"""A site is found by name or path, and its faults are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apps.records import MeritError
from workflows import sites

ROOT = Path(__file__).parents[2]
MINE = """
from apps import records
from workflows.sites import Site
class Options(records.Options):
    nodes: int = 1
def site(options):
    return Site("mine", lambda *given: None, "cpu", 1, 1, options.nodes, launcher=("mpiexec", "-n", "{ranks}"))
"""


@pytest.mark.parametrize(("cores", "slots", "threads"), [(1, 1, 1), (2, 2, 1), (8, 4, 2), (32, 4, 8), (104, 4, 26)])
def test_the_local_site_shares_out_its_cores(tmp_path, cores, slots, threads):
    site = sites.load("local", cores=cores, device="cpu")
    assert (
        (site.training_slots, site.training_threads)
        == (site.inference_slots, site.inference_threads)
        == (slots, threads)
    )
    executors = site.parsl(tmp_path, None).executors
    assert {e.label: e.max_threads for e in executors} == {
        "inference": slots,
        "training": slots,
        "cpu": cores,
        "network": 8,
    }
    assert set(sites.LABELS) == {e.label for e in executors}


def test_an_accelerator_trains_one_at_a_time():
    assert sites.load("local", cores=32, device="cuda").training_slots == 1


@pytest.mark.parametrize("how", ["config.py", ""])
def test_a_users_site_is_loaded_by_path(tmp_path, how):
    (tmp_path / "config.py").write_text(MINE)
    site = sites.load(str(tmp_path / how), nodes=3)
    assert (site.name, site.training_slots, site.launcher[0]) == ("mine", 3, "mpiexec")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("locla", {}, r"site: there is no 'locla'; did you mean 'local'\? \(known: .*local.*\)"),
        ("no/such/config.py", {}, "no file 'no/such/config.py'"),
        ("local", {"core": 2}, "site local: unknown key: there is no 'core'; did you mean 'cores'"),
        ("local", {"cores": -1}, "site local: cores = -1"),
    ],
)
def test_a_fault_is_told_in_one_message(name, options, message):
    with pytest.raises(MeritError, match=message):
        sites.load(name, **options)


def test_a_site_that_offers_nothing_is_told_what_to_offer(tmp_path):
    (tmp_path / "config.py").write_text("SITE = 1\n")
    with pytest.raises(MeritError, match="offers no Options and no site"):
        sites.load(str(tmp_path))


def test_loading_a_site_imports_neither_torch_nor_parsl():
    script = (
        "import sys; from workflows import sites; sites.load('local'); "
        "print([m for m in ('torch', 'parsl', 'transformers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
