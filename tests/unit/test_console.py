"""The console of a verb that sends orders: all output arrives in order, and no write blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

IN_ORDER = """
import logging, sys, warnings
import click
from killswitch.cli.console import write_in_background
write_in_background()
click.echo("one")
click.echo("two", err=True)
print("th", end=""); print("ree")
click.echo(b"four")
logging.getLogger("library").error("five")
click.echo("sechs \\udcff", err=True)
sys.stdout.write("no newline")
sys.stdout.flush()
raise SystemExit(7)
"""

NOBODY_READS = """
import logging, sys
import click
from killswitch.cli.console import console_problem, write_in_background
from killswitch.telemetry import background_writer
background_writer.STALLED_AFTER = 0.0
write_in_background()
for _ in range(100):
    click.echo("x" * 10_000)
    click.echo("x" * 10_000, err=True)
    logging.getLogger("library").error("y" * 10_000)
    print("z" * 10_000, file=sys.stderr, flush=True)
with open(sys.argv[1], "w") as file:
    file.write(console_problem())
raise RuntimeError("a traceback that nobody reads either")
"""

NO_STREAMS = """
from killswitch.cli.console import write_in_background
from killswitch.cli.terminal import print_note, print_page
from killswitch.render.document import Page, Table, section
write_in_background()
print_note("a note")
print_page(Page("", sections=tuple(section("", Table(("a", "table"), (("1", "2"),))))))
raise SystemExit(7)
"""


def test_output_arrives_complete_and_in_order_by_the_end_of_the_process() -> None:
    """Echoes, prints, bytes, a library's log line, a character that cannot be encoded, and a line without its end."""
    result = subprocess.run(
        [sys.executable, "-c", IN_ORDER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=90
    )
    assert result.stdout.decode() == "one\ntwo\nthree\nfour\nlibrary: five\nsechs \\udcff\nno newline"
    assert result.returncode == 7


def test_a_reader_that_never_reads_blocks_neither_a_line_nor_the_end(tmp_path: Path) -> None:
    """Megabytes to a pipe, with a log line and a traceback: the problem is recorded, and the process ends."""
    read_end, writing = os.pipe()
    place = tmp_path / "problem"
    try:
        result = subprocess.run(
            [sys.executable, "-c", NOBODY_READS, str(place)], stdout=writing, stderr=writing, check=False, timeout=90
        )
    finally:
        os.close(read_end)
        os.close(writing)
    assert result.returncode == 1
    assert place.read_text() == "lines to stdout are late or lost: the reader is too slow, or the disk hangs"


def test_a_process_without_stdout_and_stderr_continues() -> None:
    """A service may start a process with closed streams: text is lost, and nothing fails."""
    closed = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, NO_STREAMS]
    assert subprocess.run(closed, check=False, timeout=90).returncode == 7
