"""Fixtures that several tests share and that need only one run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo at full speed, in a folder like a clone: its folder and its output. One run for all test processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "demo"
    folder.mkdir(exist_ok=True)
    printed = folder / "printed.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            (folder / "policies").symlink_to(Path(__file__).resolve().parents[2] / "policies")
            command = [str(Path(sys.executable).parent / "ksctl"), "demo", "--pace", "0"]
            result = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            printed.write_text(result.stdout, encoding="utf-8")
    return folder / "demo-run", printed.read_text(encoding="utf-8")
