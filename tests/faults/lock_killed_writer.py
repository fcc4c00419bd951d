"""Writes a lock, and records at every line of the gate what a kill -9 there would leave; then kills it for real.

Run as a program: `lock_killed_writer.py FOLDER [suspicion]`; with `suspicion` the lock that is already there is one on
suspicion. A kill undoes nothing that has reached the kernel, so what another reader finds at a line is what a kill
there leaves. Forked children verify this: around every line at which the files change, and at every fortieth. Each
printed line is `n TAB content of the scope file TAB content of the union`, of the kill where there was one, and the
last is the finished write.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from killswitch.model.decision import LockOrder
from tests.lock_turns import LockFolder

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)


def write(folder: LockFolder, at_line: Callable[[int], None]) -> None:
    """Write the new lock, and call `at_line` with its number before each line of the gate."""
    seen = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal seen
        if "killswitch/gate" not in frame.f_code.co_filename:
            return None
        if event == "line":
            seen += 1
            at_line(seen)
        return trace

    sys.settrace(trace)
    folder.write(LockOrder("account/main", "all", None), "new", "new", "d2", NOW)
    sys.settrace(None)


class Site:
    """A lock folder and a union for all scopes, with the old lock in both."""

    def __init__(self, root: Path, on_suspicion: bool) -> None:
        self.union = root / "union" / "v6.json"
        self.union.parent.mkdir(parents=True)
        self.folder = LockFolder(root, self.union, generation=1, alive_for=15)
        self.folder.write(
            LockOrder("account/main", "reduce_only", None), "old", "old", "d1", NOW, on_suspicion=on_suspicion
        )

    def left(self) -> str:
        """What a reader finds, as one line."""
        return f"{self.folder.path_of('account/main').read_text()}\t{self.union.read_text()}"


def killed_at(line: int, site: Site) -> str:
    """What a child leaves that is killed at that line."""
    child = os.fork()
    if child == 0:
        write(site.folder, lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == line else None)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the write has no line {line}"
    return site.left()


def main() -> None:
    root, suspected = Path(sys.argv[1]), sys.argv[2:] == ["suspicion"]
    site = Site(root / "looked at", suspected)
    found: list[str] = []
    write(site.folder, lambda _: found.append(site.left()))
    for line, content in enumerate(found, start=1):
        changes = content not in found[line - 2 : line - 1] or content not in found[line : line + 1]
        if changes or line % 40 == 0:
            left = killed_at(line, Site(root / str(line), suspected))
            assert stages(left) == stages(content), f"line {line}: {left} is left, and {content} was there"
            print(line, left, sep="\t")
        else:
            print(line, content, sep="\t")
    print(len(found) + 1, site.left(), sep="\t")


def stages(content: str) -> list[str]:
    return [json.loads(each)["stage"] for each in content.split("\t")]


if __name__ == "__main__":
    main()
