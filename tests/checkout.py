"""A copy of the sources, in which the real command runs with a tiny real model: a key holds the digest of the code.

And what can be seen of such a run from outside: its processes, its artifacts, its adapters.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps import artifacts, dormant, packs
from tests import models

ROOT = Path(__file__).parents[1]
PATIENCE_S = 300
MARK = "MERIT_TEST_MARK"  # in the environment of a run and of whatever it starts
VERIFIER = '''"""Right is what has an even number of letters: random models are right now and then, so there is credit to give."""
from apps import records
from apps.records import Verdict
class Options(records.Options):
    """Nothing to choose."""
def verify(task, text, options):
    return Verdict(float(len(text) % 2 == 0), text[:20] or None, "")
def check_gold(task, options):
    """Any answer will do."""
'''


class Checkout:
    """A copy of the sources with a model and a verifier."""

    def __init__(self, folder: Path, settings: tuple[str, ...]) -> None:
        self.folder, self.settings = folder, settings
        for part in ("apps", "workflows", "site"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "embedded"))
        (folder / "even.py").write_text(VERIFIER)
        models.make_model(folder / "model")
        self.mark = uuid.uuid4().hex

    def start(self, where: Path, *words: str) -> subprocess.Popen[bytes]:
        """The command, with its output in `output.txt`; a group of its own hears Ctrl-C as one that a terminal started."""
        where.mkdir(exist_ok=True)
        places = [f"model={self.folder / 'model'}", f"verifier.name={self.folder / 'even.py'}"]
        places += [f"store={where / 'store'}", f"runs={where / 'runs'}"]
        with open(where / "output.txt", "wb") as output:
            return subprocess.Popen(
                [sys.executable, str(self.folder / "workflows" / "run.py"), *self.settings, *places, *words],
                cwd=where,
                env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def finish(self, where: Path, *words: str) -> None:
        status = self.start(where, *words).wait(PATIENCE_S)
        assert status == 0, told(where)[-3000:]

    def alive(self) -> list[int]:
        """The processes that a run of this checkout started, itself included."""
        return [int(f.parent.name) for f in Path("/proc").glob("[0-9]*/environ") if self.mark.encode() in _bytes(f)]


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def told(where: Path) -> str:
    """What the last run there has said."""
    return (where / "output.txt").read_text()


@contextmanager
def checked_out(folder: Path, settings: tuple[str, ...]) -> Iterator[Checkout]:
    """A checkout in `folder`, of which nothing works on afterwards."""
    found = Checkout(folder, settings)
    yield found
    for pid in found.alive():  # only what a failed test left behind
        os.kill(pid, signal.SIGKILL)


def made(where: Path) -> dict[str, str]:
    """Every finished artifact, packed or not, with the seal of its manifest, that tells when and how fast it was made."""
    folders = {f.parent for f in (where / "store").glob(f"*/??/*/{artifacts.MANIFEST}")}
    held = [packs.read(pack) for pack in packs.every(where / "store")]
    packed = {artifacts.locate(where / "store", stage, key) for one in held for stage in one for key in one[stage]}
    return {f"{f.parts[-3]}/{f.name}": dormant.manifest(f)["seal"] for f in folders | packed}


def wait_for(ready, patience_s: float = PATIENCE_S) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end and not ready():
        time.sleep(0.02)
    return bool(ready())


def whole(where: Path) -> bool:
    """Whatever bears its final name is complete."""
    manifests = (where / "store").glob(f"*/??/*/{artifacts.MANIFEST}")
    folders = [f for f in (where / "store").glob("*/??/*") if f.parts[-3] not in ("tmp", "damaged")]
    return len(folders) == len(list(manifests)) and all(artifacts.check(f) is None for f in folders)


def adapters(where: Path) -> dict[str, bytes]:
    """Weights and optimisers of the team that a finished run left."""
    files = (where / "runs").glob("*/adapters/*/*.safetensors")
    return {f"{f.parent.name}/{f.name}": f.read_bytes() for f in files}
