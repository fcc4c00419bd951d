"""Doing what a page says: its `sh` blocks in order in one shell, and what each printed beside what the page shows.

A block is marked by a comment before it, which a reader of the page does not see:
`<!-- exits 1 -->`: the block ends with this status. `<!-- numbers differ -->` before a `text` block: it depends on when
it was run, so numbers, instants, ids and symbols count as alike. Where a line ends in ` …` its beginning is shown, and
a line `…` stands for any number of lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"((?:^<!-- [^\n]* -->\n)?)^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_END = "@@ended"


@dataclass
class Block:
    """Commands, the status that they end with, and the outputs shown after them: (text, whether numbers differ)."""

    commands: str
    status: int
    shown: list[tuple[str, bool]] = field(default_factory=list)


def blocks(page: str) -> list[Block]:
    """The `sh` blocks of a page, each with the `text` blocks that follow it."""
    found: list[Block] = []
    for mark, language, text in _FENCE.findall(page):
        if language == "sh":
            exits = re.search(r"exits (\d+)", mark)
            found.append(Block(text, int(exits[1]) if exits else 0))
        elif found:
            found[-1].shown.append((text, "numbers differ" in mark))
    return found


def do(commands: list[str], folder: Path, environment: Mapping[str, str], seconds: float) -> list[tuple[str, int]]:
    """Each block's output (stdout and stderr as they come) and status, all in one shell; subprocess.TimeoutExpired."""
    marked = [f"{each}\nprintf '\\n{_END} %s\\n' $?\n" for each in commands]
    script, output = folder / ".walkthrough.sh", folder / ".walkthrough.out"
    script.write_text("".join(marked), encoding="utf-8")
    with output.open("w") as sink:  # a file, because what runs on in the background would keep a pipe open
        shell = subprocess.Popen(
            ["bash", str(script)], cwd=folder, env={**_own(), **environment}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            shell.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing of it runs any more
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = output.read_text(encoding="utf-8", errors="replace")
    ended = re.split(rf"\n{_END} (\d+)\n", printed)
    return [(text, int(status)) for text, status in zip(ended[0::2], ended[1::2], strict=False)]


def _own() -> dict[str, str]:
    """The environment without what would speak into the commands."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KSCTL_", "OTEL_"))}


def missing(shown: str, printed: str, *, numbers_differ: bool) -> list[str]:
    """The lines that a page shows and that were not printed, in that order."""
    rest = iter([_plain(line, numbers_differ) for line in printed.splitlines()])
    return [line for line in _lines(shown) if not _found(_plain(line, numbers_differ), rest)]


def _lines(shown: str) -> Iterator[str]:
    return (line for line in shown.splitlines() if line.strip() not in ("", "…"))


def _found(line: str, rest: Iterator[str]) -> bool:
    if line.endswith(" …"):
        return any(each.startswith(line.removesuffix(" …")) for each in rest)
    return line in rest


def _plain(line: str, numbers_differ: bool) -> str:
    """A line without what differs from run to run, or from machine to machine."""
    line = re.sub(r"sha256:[0-9a-f]+", "sha256:#", line)
    line = re.sub(r"commit [0-9a-f]{12,40}", "commit #", line)
    if numbers_differ:
        line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", line)
        line = re.sub(r"\b[0-9a-f]{20}\b", "#", line)
        line = re.sub(r"\b[A-Z]+_USDT\b", "SYMBOL", line)
        line = re.sub(r"-?\d[\d,.]*%?", "#", line)
    return re.sub(r"[ \t]+", " ", line).strip()
