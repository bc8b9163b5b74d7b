"""One run and its report for all tests of this folder."""

from __future__ import annotations

import json

import pytest

from apps.report import app
from tests.report import scripted_run


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(the folder of the report, its inputs, its summary)."""
    root = tmp_path_factory.mktemp("report")
    inputs = scripted_run.inputs(root / "store")
    app.report(root, inputs, scripted_run.OPTIONS)
    return root, inputs, json.loads((root / app.SUMMARY).read_text())
