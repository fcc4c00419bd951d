"""What a run does to its interpreter, so that no thread of its own holds up a tick for long."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from killswitch.runner.pauses import keep_short
keep_short()
print(sys.getswitchinterval() <= 0.001, gc.isenabled(), gc.get_freeze_count() > 1_000)
"""


def test_threads_change_often_and_collections_leave_out_what_is_loaded() -> None:
    """Garbage is still collected: only what was there at the start is not looked through each time."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stdout
