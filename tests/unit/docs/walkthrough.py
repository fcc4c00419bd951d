"""Follows a page: runs its `sh` blocks in order in one shell, and compares their output with the page.

A block is marked by a comment before it, which is not rendered:
`<!-- exits 1 -->`: the block ends with this status. `<!-- numbers differ -->` before a `text` block: its output
differs between runs, so numbers, times, ids and symbols count as equal. A line that ends in ` …` shows only its
beginning, and a line `…` means any number of lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct, field

_FENCE = re.compile(r"((?:^<!-- [^\n]* -->\n)?)^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_END = "@@ended"
CONFIGURING = ("KSCTL_", "OTEL_", "FORCE_COLOR", "TTY_")


class Block(Struct):
    """Commands, the status that they end with, and the outputs shown after them: (text, whether numbers differ)."""

    commands: str
    status: int
    shown: list[tuple[str, bool]] = field(default_factory=list)


def shell_blocks(page: str) -> list[Block]:
    """The `sh` blocks of a page, each with the `text` blocks that follow it."""
    found: list[Block] = []
    for mark, language, text in _FENCE.findall(page):
        if language == "sh":
            exits = re.search(r"exits (\d+)", mark)
            found.append(Block(text, int(exits[1]) if exits else 0))
        elif found:
            found[-1].shown.append((text, "numbers differ" in mark))
    return found


def run_blocks(
    commands: list[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> list[tuple[str, int]]:
    """Run all blocks in one shell. Returns output (stdout and stderr merged) and status.

    The status of a block is that of its last command that failed, also where later ones succeed. Raises AssertionError
    with the block that hangs, what it printed, and the last lines of the files that the page left.
    """
    ended_by = f"last=$?\nprintf '\\n{_END} %s\\n' $(( failed ? failed : last ))\n"
    marked = ["trap 'failed=$?' ERR\n", *(f"failed=0\n{each}\n{ended_by}" for each in commands)]
    script, output = folder / ".walkthrough.sh", folder / ".walkthrough.out"
    script.write_text("".join(marked), encoding="utf-8")
    with output.open("w") as sink:  # a file, because a background process would keep a pipe open
        shell = subprocess.Popen(
            ["bash", str(script)], cwd=folder, env={**_own(), **environment}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            shell.wait(seconds)
        except subprocess.TimeoutExpired as hanging:
            ended = _ended(output)
            raise AssertionError(
                f"after {seconds:g} s this hangs:\n{commands[len(ended)]}\n{logs(folder)}"
            ) from hanging
        finally:
            with contextlib.suppress(ProcessLookupError):  # no process of it is running
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    return _ended(output)


def _ended(output: Path) -> list[tuple[str, int]]:
    """Of each block that ended: what it printed, and its status."""
    ended = re.split(rf"\n{_END} (\d+)\n", output.read_text(encoding="utf-8", errors="replace"))
    return [(text, int(status)) for text, status in zip(ended[0::2], ended[1::2], strict=False)]


def logs(folder: Path) -> str:
    """The last lines of the files in which a page keeps what its background processes print."""
    return "\n".join(
        _last_lines(each) for each in sorted(folder.iterdir()) if each.suffix in (".log", ".jsonl", ".out")
    )


def _last_lines(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return "\n".join([f"--- {file.name}", *(line[:400] for line in lines)])


def _own() -> dict[str, str]:
    """The environment without the variables that configure the commands, or colour what they print."""
    return {name: value for name, value in os.environ.items() if not name.startswith(CONFIGURING)}


def missing_lines(shown: str, printed: str, *, numbers_differ: bool) -> list[str]:
    """The lines shown on a page that were not printed, in order."""
    rest = iter([_plain(line, numbers_differ) for line in printed.splitlines()])
    return [line for line in _lines(shown) if not _found(_plain(line, numbers_differ), rest)]


def _lines(shown: str) -> Iterator[str]:
    return (line for line in shown.splitlines() if line.strip() not in ("", "…"))


def _found(line: str, rest: Iterator[str]) -> bool:
    if line.endswith(" …"):
        return any(each.startswith(line.removesuffix(" …")) for each in rest)
    return line in rest


def _plain(line: str, numbers_differ: bool) -> str:
    """A line without the parts that differ between runs or machines."""
    line = re.sub(r"sha256:[0-9a-f]+", "sha256:#", line)
    line = re.sub(r"commit [0-9a-f]{12,40}", "commit #", line)
    if numbers_differ:
        line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", line)
        line = re.sub(r"\b[0-9a-f]{20}\b", "#", line)
        line = re.sub(r"\b[A-Z]+_USDT\b", "SYMBOL", line)
        line = re.sub(r"-?\d[\d,.]*%?", "#", line)
    return re.sub(r"[ \t]+", " ", line).strip()
