"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# before torch and the hub are imported: small tensors gain nothing by threads, and no test asks the network for anything
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# a busy machine is slow, not wrong: no law has a deadline
settings.register_profile("merit", deadline=None)
settings.load_profile("merit")

REPOSITORY = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes take test by test (`--dist loadgroup`), but those that share a fixture of their file stay together.

    So it is made once, and they come in their order. Tests that share something of the machine name it: xdist_group("what").
    """
    for item in items:
        known = getattr(item, "_fixtureinfo", None)
        shared = known and any(found[-1].scope == "module" for found in known.name2fixturedefs.values() if found)
        if shared and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets (gsm8k, math, aqua), each a folder of .jsonl files."""
    for folder in (Path(os.environ.get("MERIT_DATA") or "/nowhere"), REPOSITORY.parent / "shared" / "data"):
        if (folder / "gsm8k").is_dir():
            return folder
    pytest.skip("the real data sets are absent: set MERIT_DATA to a folder with gsm8k/, math/ and aqua/ (.jsonl files)")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with tokenizer and chat template, made by `tests/models.py`."""
    from tests import models

    return models.make_model(tmp_path_factory.mktemp("tiny_model"))
