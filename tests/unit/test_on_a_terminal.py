"""On a terminal a report is rendered, and nothing is wider than it; in a pipe rows stay lines, and reports Markdown."""

from __future__ import annotations

import fcntl
import gzip
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.baselines.documents import RECORDED
from tests.baselines.dumps import restore

PROGRAM = "import sys; from killswitch.cli import main; sys.argv[0] = 'ksctl'; main()"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything was closed."""
    dump = gzip.decompress((RECORDED / "closed.store.jsonl.gz").read_bytes()).decode()
    return restore(dump, tmp_path_factory.mktemp("closed"))


def on_a_terminal(columns: int, *arguments: str, colour: bool = True, status: int = 0) -> str:
    """What `ksctl` shows on a terminal of that width, escape sequences included."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "CI")}
    environment |= {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    shown = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not read:
            break
        shown += read
    os.close(ours)
    assert process.wait() == status
    return shown.decode().replace("\r", "")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_the_report_rendered_in_its_width(store: Path, columns: int) -> None:
    """No bars and dashes of Markdown, and no line that is wider than the terminal."""
    shown = on_a_terminal(columns, "report", "--store", str(store))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "Incident" in plain
    assert "Checklist" in plain
    assert not re.search(r"\|[ -]*-{3,}|^#", plain, re.MULTILINE)
    assert max(map(len, plain.splitlines())) <= columns
    assert "\x1b[" in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_report_on_a_terminal_keeps_every_value_of_its_tables(store: Path, columns: int) -> None:
    """A row that is wider than the terminal becomes a line per column: no cell is cut, and no word is broken."""
    shown = on_a_terminal(columns, "report", "--store", str(store), colour=False)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "…" not in plain
    rows = [line for line in run("report", "--store", str(store)).splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    words = {word for row in rows for word in re.sub(r"\\(.)|[`*]", r"\1", row).replace("|", " ").split()} - {"---"}
    assert words <= set(plain.split())


def test_no_color_leaves_colours_out(store: Path) -> None:
    """NO_COLOR is heeded: bold and underlined, and nothing in a colour."""
    shown = on_a_terminal(80, "report", "--store", str(store), colour=False)
    assert not re.search(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])(?:;[0-9]+)*m", shown)


RED = "\x1b[31m"


def run(*arguments: str) -> str:
    """What a pipe gets of stdout."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_alarms_are_in_colour_on_a_terminal_and_nowhere_else(store: Path) -> None:
    """A lock is red; NO_COLOR and --color never leave that out, a pipe has it only with --color always, JSON never."""
    status = ("status", "--store", str(store))
    assert RED in on_a_terminal(120, *status)
    assert "\x1b[" not in on_a_terminal(120, *status, colour=False)
    assert "\x1b[" not in on_a_terminal(120, "--color", "never", *status)
    assert "\x1b[" not in run(*status)
    assert RED in run("--color", "always", *status)
    assert "\x1b[" not in run("--color", "always", *status, "--output", "json")


@pytest.mark.parametrize("columns", [80, 120])
def test_venues_and_diagnostics_keep_to_the_width(columns: int, tmp_path: Path) -> None:
    """The table of venues, and messages of validate; the place of a mistake is still there to be copied."""
    assert max(map(len, on_a_terminal(columns, "venues", "list", colour=False).splitlines())) <= columns
    (tmp_path / "bad.yaml").write_text(
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, market: swapx, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:1'}\n"
    )
    shown = on_a_terminal(columns, "validate", str(tmp_path / "bad.yaml"), colour=False, status=1)
    assert max(map(len, shown.splitlines())) <= max(columns, len(f"{tmp_path}/bad.yaml:4:32:"))
    assert f"{tmp_path}/bad.yaml:4:32:" in shown
    assert "error KS2004" in " ".join(shown.split())


def test_a_pipe_gets_markdown(store: Path) -> None:
    """As it is written to a file."""
    command = [sys.executable, "-c", PROGRAM, "report", "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# Incident")
    assert "| --- |" in done.stdout or "|---|" in done.stdout


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("verb", [["status"], ["history"], ["report", "list"]])
def test_no_line_is_wider_than_the_terminal(store: Path, verb: list[str], columns: int) -> None:
    """Columns are narrowed, and rows that are too wide even then become paragraphs; every word is still there."""
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(columns, *verb, "--store", str(store)))
    assert max(map(len, shown.splitlines())) <= columns
    command = [sys.executable, "-c", PROGRAM, *verb, "--store", str(store)]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert max(map(len, piped.splitlines())) > 110
    words = {word for word in piped.split() if not re.fullmatch(r"[0-9]+[dhms]", word)}
    assert words <= set(shown.split())
