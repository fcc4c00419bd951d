"""Output of verbs: text within the width of the terminal and with coloured alarms, and JSON unchanged."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from shutil import get_terminal_size
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, TextIO

import click

from killswitch.render import layout

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from killswitch.render.document import Page, Section
    from killswitch.telemetry.library_output import LibraryOutput
    from killswitch.telemetry.process_log import LogFormat, LogLevel, ProcessLog

_ALARMS: Final = re.compile(
    r"(?P<red>^Error:|\berror(?= KS\d)|\bfailed {2}|\bFAILED\b|\bNOT (?:RUNNING|TICKING|RECORDED|IDENTICAL)\b"
    r"|\bLOCKED\b(?: \w+)?|\b(?:LOST|PAUSED|STALE|GIVEN UP|BEHIND)\b|\bWOULD (?:FIRE|LOCK)\b|\btrue since\b"
    r"|\bclosing(?=[:,] )|\bEMERGENCY\b|^Closes without a runner$|\b[1-9]\d* stages? latched\b"
    r"|\blevel [3-9]\d*(?: (?!by\b)[a-z][\w-]*)?(?=[: ,]|$)|(?<=\b(?:enforce|observe)  )[3-9] +[\w-]+"
    r"|(?<=\s)\^+$|(?<![\w.,-])-\d[\d,]*(?:\.\d+)?(?:%| [A-Z][A-Z0-9]{2,7}\b))"
    r"|(?P<yellow>\bwarning(?= KS\d|: | {2})|\bWARNINGS\b|\bUNKNOWN\b|\bNot(?:e|hing would be sent)\b(?=[: ])"
    r"|\blevel [12](?: (?!by\b)[a-z][\w-]*)?(?=[: ,]|$)|(?<=\b(?:enforce|observe)  )[12] +[\w-]+)"
    r"|(?P<green>^all quiet(?=:)|(?<=: )OK$|\barmed(?=: | until )|\balive(?= \()|(?<=: )flat\b|^ok(?=: )|^ +fix(?=: ))",
    re.MULTILINE,
)
"""Coloured words: alarms, levels of stages, losses, and the caret and the way out of a mistake.

The pattern applies after the layout, because escape sequences have no width. Each word says the same without colour.
"""


_chosen: dict[str, bool | None] = {"color": None, "wide": False}
"""`color`: value of `--color`: True forces colours, False disables them, None depends on the stream. `wide`: whether
the text for stdout ignores the width of the terminal."""


def choose_color(choice: str) -> bool | None:
    """Set `--color`: `auto`, `always` or `never`. With `auto`, NO_COLOR and TERM=dumb disable colours."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    _chosen["color"] = {"always": True, "never": False}.get(choice, False if plain else None)
    return _chosen["color"]


def choose_wide(*, wide: bool) -> None:
    """Print text on a terminal as in a pipe (`--output wide`), or within its width."""
    _chosen["wide"] = wide


def is_wide() -> bool:
    """Whether `--output wide` was chosen."""
    return _chosen["wide"] is True


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal of `stream` (default stdout); None for a pipe, a file and `--output wide` on stdout.

    A row is one line there.

    A standard stream is None if the process started without it, and has no columns then.
    """
    shown_on: TextIO | None = stream or sys.stdout
    if _chosen["wide"] and shown_on is sys.stdout:
        return None
    return get_terminal_size().columns if shown_on is not None and shown_on.isatty() else None


def stdin_is_terminal() -> bool:
    """Whether a person can answer a question on stdin, which is None if the process started without it."""
    return sys.stdin is not None and sys.stdin.isatty()


def print_text(text: str, *, err: bool = False) -> None:
    """Print text for people: within the width of a terminal, with coloured alarms."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    shown = text if width is None else layout.fit(text, width)
    painted = "\n".join(map(_painted_line, shown.split("\n")))
    click.echo(painted, err=err, color=_chosen["color"])


def print_page(page: Page, form: str = "text", *, err: bool = False) -> None:
    """Print a page: as text within the width of the terminal and with coloured alarms, as markdown, or as html."""
    if form == "text":
        from killswitch.render.document import text

        print_text(text(page, terminal_width(sys.stderr if err else None), is_marked=True), err=err)
    else:
        click.echo(render_page(form, page), err=err)


def print_screen(page: Page) -> None:
    """Redraw a terminal with a page, within its width and height; what does not fit is counted in the last line."""
    from killswitch.render.document import text
    from killswitch.render.formats import count_of

    width, height = get_terminal_size()
    lines = text(page, width, is_marked=True).split("\n")
    room = max(2, height - 1)
    if len(lines) > room:
        left_out = count_of(len(lines) - room + 1, "more line")
        lines = [*lines[: room - 1], f"… {left_out}: make the terminal larger, or leave out --watch"]
    click.echo("\x1b[H\x1b[2J\x1b[3J", nl=False, color=True)
    print_text("\n".join(lines))


def print_section(shown: Section, *, err: bool = False) -> None:
    """Print one section of a page that is not complete yet, as text."""
    from killswitch.render.document import section_text

    print_text(section_text(shown, terminal_width(sys.stderr if err else None), is_marked=True), err=err)


def print_answer(output: str, record: Callable[[], str | bytes], page: Callable[[], Page]) -> None:
    """Print the answer of a verb in the format of its `--output`: the JSON record, or its page for people."""
    if output == "json":
        click.echo(record())
    else:
        print_page(page(), output)


def render_page(form: str, page: Page, within: int | None = None) -> str:
    """A page as text no wider than `within`, as markdown or as html; without a final line break."""
    if form == "html":
        from killswitch.render.html import html

        return html(page)
    from killswitch.render.document import markdown, text

    return markdown(page) if form == "markdown" else text(page, within)


_log: list[ProcessLog] = []
"""The log that notes are written to instead of stderr, if the verb has one."""
_libraries: list[LibraryOutput] = []
"""What prints the records and warnings of libraries, where there is no log."""
_log_format: list[LogFormat] = ["text"]
"""What `--log-format` has chosen."""


def choose_log(form: LogFormat) -> None:
    """Set `--log-format`, which counts from `start_log` on."""
    _log_format[0] = form


def chosen_log() -> LogFormat:
    """What `--log-format` has chosen."""
    return _log_format[0]


def start_log() -> None:
    """From now on, write notes and all other output on stderr as events of a log, if that was chosen.

    Otherwise what libraries log and warn about is printed without credentials.
    """
    if chosen_log() == "text":
        from killswitch.telemetry.library_output import LibraryOutput

        if not _libraries:
            _libraries.append(LibraryOutput())
        _libraries[0].take_over()
    elif not _log:
        from killswitch.telemetry.process_log import ProcessLog

        _log.append(ProcessLog(sys.stderr))
        _log[0].take_over()


def hide_in_log(hide: Callable[[str], str]) -> None:
    """Redact these secrets in the log too, or in what libraries print."""
    for log in _log:
        log.hide(hide)
    for each in _libraries:
        each.hide = hide


def print_note(text: str, level: LogLevel = "info", *, at: datetime | None = None, **about: object) -> None:
    """Print text for people on stderr, after its time; in a log, an event with what it is about."""
    if _log:
        _log[0].write(text, level, at=None if at is None else at.isoformat(), **about)
    elif at is None:
        print_text(text, err=True)
    else:
        from killswitch.render.formats import instant

        print_text(f"{instant(at)}  {text}", err=True)


def is_logged() -> bool:
    """Whether notes are events of a log."""
    return bool(_log)


def _painted_line(line: str) -> str:
    """A line with its alarms coloured, or a line of heads."""
    if not line.startswith(layout.HEAD):
        return _ALARMS.sub(_painted, line)
    heads = line.removeprefix(layout.HEAD)
    words = heads.lstrip()
    return heads[: len(heads) - len(words)] + click.style(words, fg="cyan")


def _painted(found: re.Match[str]) -> str:
    return click.style(found[0], fg=found.lastgroup)


def coloured_words(line: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, colour) of each coloured word of a line."""
    for found in _ALARMS.finditer(line):
        yield found.start(), found.end(), found.lastgroup or ""


def print_markdown(text: str) -> None:
    """Print Markdown: rendered on a terminal, as source elsewhere."""
    if terminal_width() is None:
        click.echo(text.rstrip("\n"))
        return
    from rich.console import Console

    from killswitch.cli.markdown import THEME, FittedMarkdown

    color = _chosen["color"]
    system: Literal["auto", "standard"] = "standard" if color else "auto"
    Console(no_color=color is False, color_system=system, theme=THEME).print(FittedMarkdown(text, coloured_words))


def print_json(answer: object) -> None:
    """Print indented JSON."""
    import json

    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def encode_record(record: object) -> str:
    """Encode a record as one line of JSON, with decimals as strings."""
    import msgspec

    return msgspec.json.Encoder(decimal_format="string").encode(record).decode()


class ProgressLines:
    """Print a line at most once per interval, the first one after the first interval."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = monotonic() + every

    def print_due(self, line: str) -> None:
        if (now := monotonic()) >= self._next:
            self._next = now + self._every
            print_note(line)


def progress_bars(done: ProgressColumn) -> Progress:
    """Progress bars that disappear at the end. `done`: the column that shows the completed part."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    what = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=24), done, TimeRemainingColumn(), what)
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)
