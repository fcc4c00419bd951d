"""Output on a terminal is rendered within its width; in a pipe rows stay lines, and reports Markdown."""

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
from functools import cache
from pathlib import Path

import pytest

from tests.baselines.documents import RECORDED
from tests.baselines.dumps import restore

PROGRAM = "import sys; from killswitch.cli import main; sys.argv[0] = 'ksctl'; main()"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run in which everything was closed."""
    dump = gzip.decompress((RECORDED / "closed.store.jsonl.gz").read_bytes()).decode()
    return restore(dump, tmp_path_factory.mktemp("closed"))


def output_on_terminal(columns: int, *arguments: str, colour: bool = True, status: int = 0) -> str:
    """The output of `ksctl` on a terminal of that width, with escape sequences."""
    terminal, child_end = pty.openpty()
    fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "CI")}
    environment |= {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdin=child_end, stdout=child_end, stderr=child_end, env=environment)
    os.close(child_end)
    output = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # Linux raises this when the other end is closed
            break
        if not read:
            break
        output += read
    os.close(terminal)
    assert process.wait() == status
    return output.decode().replace("\r", "")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_report_is_rendered_within_the_width_of_the_terminal(store: Path, columns: int) -> None:
    """No Markdown bars and dashes, and no line wider than the terminal."""
    output = output_on_terminal(columns, "report", "--store", str(store))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert "Incident" in plain
    assert "Checklist" in plain
    assert not re.search(r"\|[ -]*-{3,}|^#", plain, re.MULTILINE)
    assert max(map(len, plain.splitlines())) <= columns
    assert "\x1b[" in output


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_report_on_a_terminal_keeps_every_value_of_its_tables(store: Path, columns: int) -> None:
    """A row wider than the terminal becomes one line per column: no cell is cut, and no word is broken."""
    output = output_on_terminal(columns, "report", "--store", str(store), colour=False)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert "…" not in plain
    rows = [line for line in piped_output("report", "--store", str(store)).splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    words = {word for row in rows for word in re.sub(r"\\(.)|[`*]", r"\1", row).replace("|", " ").split()} - {"---"}
    assert words <= set(plain.split())


def test_no_color_removes_colours(store: Path) -> None:
    """With NO_COLOR, text is bold or underlined but never coloured."""
    output = output_on_terminal(80, "report", "--store", str(store), colour=False)
    assert not re.search(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])(?:;[0-9]+)*m", output)


RED = "\x1b[31m"


@cache
def piped_output(*arguments: str) -> str:
    """The stdout that a pipe gets; of one command once, whatever the width that it is compared at."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_alarms_are_coloured_only_on_a_terminal(store: Path) -> None:
    """A lock is red; not with NO_COLOR or --color never, in a pipe only with --color always, in JSON never."""
    status = ("status", "--store", str(store))
    assert RED in output_on_terminal(120, *status)
    assert "\x1b[" not in output_on_terminal(120, *status, colour=False)
    assert "\x1b[" not in output_on_terminal(120, "--color", "never", *status)
    assert "\x1b[" not in piped_output(*status)
    assert RED in piped_output("--color", "always", *status)
    assert "\x1b[" not in piped_output("--color", "always", *status, "--output", "json")


@pytest.mark.parametrize("columns", [80, 120])
def test_venues_and_diagnostics_fit_the_width(columns: int, tmp_path: Path) -> None:
    """The table of venues and the messages of validate; the place of a mistake can still be copied."""
    listed = output_on_terminal(columns, "venues", "list", colour=False)
    assert max(map(len, listed.splitlines())) <= columns
    assert "Left out: batch, whole book and limits of orders; `-o wide` shows all." in listed
    (tmp_path / "bad.yaml").write_text(
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, market: swapx, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:1'}\n"
    )
    output = output_on_terminal(columns, "validate", str(tmp_path / "bad.yaml"), colour=False, status=1)
    assert max(map(len, output.splitlines())) <= max(columns, len(f"{tmp_path}/bad.yaml:4:32:"))
    assert f"{tmp_path}/bad.yaml:4:32:" in output
    assert "error KS2004" in " ".join(output.split())


def test_a_pipe_gets_markdown(store: Path) -> None:
    """The same text as in a file."""
    command = [sys.executable, "-c", PROGRAM, "report", "--store", str(store)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("# Incident")
    assert "| --- |" in result.stdout or "|---|" in result.stdout


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("verb", [["status"], ["history"], ["report", "list"], ["explain", "257b6b1d61a573490381"]])
def test_tables_stay_tables_within_the_width_and_wide_shows_everything(
    store: Path, verb: list[str], columns: int
) -> None:
    """Every column of the pipe is there or named in the last line; its words are all there with `-o wide`."""
    output = output_on_terminal(columns, *verb, "--store", str(store), colour=False)
    place = f"     {store.parent}/policies/policy.yaml:66"  # never broken, so that it can be copied
    assert max(map(len, output.splitlines())) <= max(columns, len(place))
    piped = piped_output(*verb, "--store", str(store))
    assert max(map(len, piped.splitlines())) > 100
    last = " ".join(" ".join(output.splitlines()[-2:]).split())
    assert "the date 2024-03-04; `-o wide` shows all." in last
    assert "2024-03-04T" not in output
    heads = [
        line for line in piped.splitlines() if re.match(r" *(as of|opened|scope|account|decision|symbol) +\w", line)
    ]
    assert heads
    shown = set(output.split()) | set(re.sub(r"[,;]", " ", last).split())
    assert {word for head in heads for word in head.split()} <= shown
    wide = output_on_terminal(columns, *verb, "--store", str(store), "-o", "wide", colour=False)
    words = {word for word in piped.split() if not re.fullmatch(r"[0-9]+[dhms]", word)}
    assert words <= set(wide.split())


CYAN, GREEN = "\x1b[36m", "\x1b[32m"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def test_heads_levels_and_losses_are_coloured_and_say_the_same_without_colour(store: Path) -> None:
    """A line of heads begins with a colour, a closing stage and a loss are red; removed, the words are the same."""
    explained = ("explain", "257b6b1d61a573490381", "--store", str(store))
    output = output_on_terminal(120, *explained)
    assert re.search(rf"^ +{re.escape(CYAN)}symbol +", output, re.MULTILINE) is not None
    assert re.search(rf"{re.escape(RED)}-[\d,.]+ USDT", output) is not None
    assert re.search(r"\x1b\[3[13]mlevel \d [\w-]+\x1b\[0m", output) is not None
    assert COLOURS.sub("", output) == output_on_terminal(120, *explained, colour=False)
    assert "\x1e" not in output + piped_output(*explained)


def test_the_caret_and_the_way_out_of_a_mistake_are_coloured(tmp_path: Path) -> None:
    """The eye finds them among lines of policies; without colour they are the same characters."""
    (tmp_path / "bad.yaml").write_text("apiVersion: killswitch.dev/v1\nkind: Acount\n", encoding="utf-8")
    output = output_on_terminal(100, "validate", str(tmp_path), status=1)
    assert re.search(rf"{re.escape(RED)}\^+\x1b", output) is not None
    assert f"{GREEN}  fix\x1b[0m: " in output
    assert COLOURS.sub("", output) == output_on_terminal(100, "validate", str(tmp_path), colour=False, status=1)
