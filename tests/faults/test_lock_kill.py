"""A runner that is killed while it writes a lock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("lock_killed_writer.py")


@pytest.mark.parametrize("old", ["lock", "suspicion"])
def test_l1_kill_9_at_any_line_of_a_write_leaves_the_old_file_or_the_new_one(tmp_path: Path, old: str) -> None:
    """At whatever line of the gate it is killed, scope file and union are each whole: the old or the new.

    Making a lock on suspicion permanent opens nothing in between.
    """
    ended = subprocess.run([sys.executable, PROGRAM, tmp_path, old], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    stages = [
        tuple(json.loads(content)["stage"] for content in line.split("\t")[1:]) for line in ended.stdout.splitlines()
    ]
    assert stages[0] == ("old", "old")
    assert stages[-1] == ("new", "new")
    assert set(stages) <= {("old", "old"), ("new", "old"), ("new", "new")}
    assert len(stages) > 40, "the trace must have seen the lines of the gate"
