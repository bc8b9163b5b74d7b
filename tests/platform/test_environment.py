"""What a run says of its surroundings."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from apps.platform import environment

ROOT = Path(__file__).parents[2]


def commit(folder: Path) -> None:
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


def test_it_is_json_and_names_the_versions():
    told = environment.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["libraries"]["parsl"] == importlib.metadata.version("parsl")
    assert told["cores"] >= 1 and told["memory_gb"] > 0


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path):
    (tmp_path / "file").write_text("1")
    commit(tmp_path)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert environment.git(tmp_path) == {"commit": head.stdout.strip(), "changed": False}
    (tmp_path / "file").write_text("2")
    assert environment.git(tmp_path)["changed"] is True


def test_without_git_or_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    assert environment.git(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git(ROOT) is None


def test_it_imports_no_torch_and_then_knows_no_device():
    script = (
        "import sys; from apps.platform import environment; "
        "print(environment.describe()['devices'], 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "None False\n"
