"""What verbs print: text within the width of the terminal and with its alarms in colour, and JSON as it is."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import Final, TextIO

import click

from killswitch.render import layout

_ALARMS: Final = re.compile(
    r"(?P<red>^Error:|\berror(?= KS\d)|\bfailed {2}|\bFAILED\b|\bNOT RUNNING\b|\bNOT TAKEN\b|\bLOCKED \w+|\bLOST\b"
    r"|\bSTALE\b|\bGIVEN UP\b|\bBEHIND\b|\bWOULD FIRE\b|\bWOULD LOCK\b|\btrue since\b|\bclosing(?=[:,] )|\bEMERGENCY\b"
    r"|\bClosings [a-z ]+$)"
    r"|(?P<yellow>\bwarning(?= KS\d|: | {2})|\bWARNINGS\b|\bUNKNOWN\b|\bNot(?:e|hing would be sent)\b(?=[: ]))"
    r"|(?P<green>(?<=: )OK$|\barmed(?=: | until )|\balive(?= \()|(?<=: )flat\b)",
    re.MULTILINE,
)
"""The words that are worth a colour. They are found in what is laid out already, so that a colour has no width."""


_chosen: dict[str, bool | None] = {"color": None}
"""What `--color` says: True and False are orders, with None the stream decides."""


def choose_color(choice: str) -> bool | None:
    """Keep what `--color` says: `auto`, `always` or `never`. NO_COLOR and a terminal without colours are as `never`."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    _chosen["color"] = {"always": True, "never": False}.get(choice, False if plain else None)
    return _chosen["color"]


def room(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal that `stream` (stdout) is; None for a pipe or a file, where a row is one line."""
    return get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """A table as stdout has room for it."""
    return layout.table(head, rows, indent, room())


def show(text: str, *, err: bool = False) -> None:
    """Print text for people: on a terminal in its width, and with the alarms in it in colour."""
    within = room(sys.stderr if err else sys.stdout)
    shown = text if within is None else layout.fit(text, within)
    click.echo(_ALARMS.sub(_painted, shown), err=err, color=_chosen["color"])


def mention(text: str) -> None:
    """Print text for people on stderr."""
    show(text, err=True)


def _painted(found: re.Match[str]) -> str:
    return click.style(found[0], fg=found.lastgroup)


def show_markdown(text: str) -> None:
    """Print Markdown: rendered in the width of a terminal, as it is elsewhere."""
    if room() is None:
        click.echo(text.rstrip("\n"))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(no_color=_chosen["color"] is False).print(Markdown(text))


def show_json(answer: object) -> None:
    """Print an answer for programs, indented."""
    import json

    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def as_json(record: object) -> str:
    """A record as one line of JSON, with its decimals as text."""
    import msgspec

    return msgspec.json.Encoder(decimal_format="string").encode(record).decode()
