"""Takes pictures: what a command prints on a terminal as SVG, and a page in headless Chromium as PNG."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROWS = 50
MAX_BYTES = 150_000
"""A picture is part of every clone, and of a page of the site."""
TIMEOUT_SECONDS = 240.0
SHOWN_FOLDER = "/srv/desk"
"""Shown instead of the folder of this machine in which the commands run."""


def terminal_output(command: Sequence[str], folder: Path, columns: int, environment: dict[str, str]) -> str:
    """Run `command` on a terminal of `columns` columns; return what it printed, with escape sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
    finally:
        os.close(theirs)
    printed = bytearray()
    try:
        while chunk := _read(ours):
            printed += chunk
    finally:
        os.close(ours)
        process.wait(TIMEOUT_SECONDS)
    return printed.decode("utf-8", "replace").replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the last process of the terminal has ended
        return b""


def terminal_svg(printed: str, title: str, columns: int) -> str:
    """Draw terminal output as an SVG that loads nothing; `title` stands in the bar of its window."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(printed.rstrip("\n")), soft_wrap=False)
    svg = console.export_svg(title=title, unique_id=re.sub(r"\W+", "-", title))
    svg = re.sub(r"@font-face\s*{[^}]*}|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code,", "Fira Code, Menlo, DejaVu Sans Mono, Consolas,")
    return re.sub(r"\n\s*\n+", "\n", svg)


def excerpt(printed: str, *cuts: tuple[str, str]) -> str:
    """Leave out the lines after the first one with the text of a cut, up to the next one with its second text.

    An empty second text leaves out the rest. StopIteration for a text that no line has.
    """
    lines = printed.rstrip("\n").split("\n")
    for after, until in cuts:
        first = next(number for number, line in enumerate(lines) if after in line) + 1
        last = next(n for n in range(first, len(lines)) if until in lines[n]) if until else len(lines)
        lines[first:last] = ["…"]
    return "\n".join(lines)


def page_png(page: Path, picture: Path, width: int, height: int, scratch: Path) -> None:
    """Draw the top of a page in a window of `width` × `height`; FileNotFoundError without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise FileNotFoundError("Chromium is not installed (on Debian: apt-get install chromium)")
    drawn = scratch / f"{picture.stem}-{width}.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files",
        f"--user-data-dir={scratch}/profile", "--virtual-time-budget=4000", f"--window-size={width},{height}",
        f"--screenshot={drawn}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    with Image.open(drawn) as taken:
        # Maximum coverage: a rare colour, such as that of one thin line, is kept.
        few = taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)
