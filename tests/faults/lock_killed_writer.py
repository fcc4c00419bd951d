"""Writes a lock in a forked child that kills itself at the n-th line of the gate, for every n; prints what is left.

Run as a program: `lock_killed_writer.py FOLDER [suspicion]`; with `suspicion` the lock that is there already is one on
suspicion. Each printed line is one kill: `n TAB content of the file`,
and the last line is the write that was left to finish.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from killswitch.gate.lock import LockFolder
from killswitch.model.decision import LockOrder

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)


def write_and_die(folder: LockFolder, line: int) -> None:
    seen = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal seen
        if "killswitch/gate" not in frame.f_code.co_filename:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    folder.write(LockOrder("account/main", "all", None), "new", "new", "d2", NOW)
    sys.settrace(None)


def main() -> None:
    root, suspected = Path(sys.argv[1]), sys.argv[2:] == ["suspicion"]
    line = 0
    while True:
        line += 1
        folder = LockFolder(root / str(line), root / str(line) / "union" / "v6.json", generation=1, alive_for=15)
        (root / str(line) / "union").mkdir(parents=True)
        order = LockOrder("account/main", "reduce_only", None)
        folder.write(order, "old", "old", "d1", NOW, on_suspicion=suspected)
        child = os.fork()
        if child == 0:
            write_and_die(folder, line)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        union = root / str(line) / "union" / "v6.json"
        print(line, folder.path_of("account/main").read_text(), union.read_text(), sep="\t", flush=True)
        if os.WIFEXITED(status):
            raise SystemExit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
