"""Runs programs many times, each run in a fork of one process that has imported them: only the first one pays for that.

Run as a program, `python -m tests.faults.forked MODULE …`: each line of its input is a run, as JSON: a module, the
file for its output, and its arguments. The answer is a line with its exit code. It has one thread, so that a fork is
complete.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self


class Forked:
    """The programs in `modules`, which have a `main()` that reads `sys.argv`; others are what they import late."""

    def __init__(self, repository: Path, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked", *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "adapters")])},
        )  # fmt: skip

    def run(self, module: str, output: Path, *arguments: str) -> tuple[int, str]:
        """The exit code of a run, and what it printed, errors too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([module, str(output), *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), output.read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def _child(module: str, output: str, arguments: list[str]) -> int:
    """Run that program in the child; returns its exit code."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [module, *arguments]
    try:
        sys.modules[module].main()
    except BaseException:  # noqa: BLE001 - a child must never go on with what is its parent's
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def main() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # what has been imported stays shared with the children
    threads = Path("/proc/self/task")
    if threads.exists():
        assert len(list(threads.iterdir())) == 1, "a process with threads is not to be forked"
    for line in sys.stdin:
        module, output, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_child(module, output, arguments))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
