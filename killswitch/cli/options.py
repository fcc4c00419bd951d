"""Options that several verbs share, with one name and one help text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click


class ParsedParam(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only; older ones cannot be subscripted
    """A parameter type that parses with a function; its ValueError becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            return self.fail(str(error), param, ctx)


def _duration(text: str) -> float:
    from killswitch.policy.schema.scalars import duration

    try:
        return duration(text) / 1_000_000
    except ValueError as error:
        unit = f"; write {text}s" if text.strip().isdigit() else ""
        raise ValueError(f"{error}{unit}") from error


def _record_text(text: str) -> str:
    from killswitch.model.legible import one_line

    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not UTF-8") from None
    if not text.strip():
        raise ValueError("the text is empty")
    return one_line(text)


def _name(text: str) -> str:
    from killswitch.policy.schema.scalars import venue_name

    return venue_name(_record_text(text))


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})\s*(|[KMGT]i?B)", text.strip())
    if found is None or (not found[2] and int(found[1])):
        raise ValueError(f"{text!r} is not a size; write 256MiB or 1GB")
    power = "KMGT".index(found[2][0]) + 1 if found[2] else 0
    factor: int = (1024 if "i" in found[2] else 1000) ** power
    return int(found[1]) * factor


def _number(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or found <= 0:
        raise ValueError(f"{text!r} is no number above 0; write 1.5")
    return found


class UncheckedPath(click.Path):
    """A path that the command line does not check: access to a dead mount would hang."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Convert without access to the file system."""
        return Path(value)


class Verb(click.Command):
    """A command that prints every exception of Killswitch as one line and exits 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            if not type(error).__module__.startswith("killswitch."):
                raise
            raise click.ClickException(str(error)) from error


def example_text(*examples: str) -> str:
    """The end of a help text: copyable example commands."""
    title = "Examples:" if len(examples) > 1 else "Example:"
    return "\n".join(("\b", title, *(line for each in examples for line in _example_lines(each))))


MAX_EXAMPLE = 76
"""Columns of a line of an example: a terminal of 80 columns indents it by two."""


def _example_lines(example: str) -> Iterator[str]:
    """The example, on several lines that a shell joins if it is long."""
    line = "  "
    for word in re.split(r" (?=--)", example):
        if len(line) + len(word) + 2 > MAX_EXAMPLE and line.strip():
            yield f"{line.rstrip()} \\"
            line = "    "
        line += f"{word} "
    yield line.rstrip()


def verb(
    *examples: str, group: click.Group | None = None, name: str | None = None
) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb, with copyable example commands at the end of its help."""

    def decorate(function: Callable[..., Any]) -> Verb:
        built = click.command(name, cls=Verb, epilog=example_text(*examples))(function)
        if group is not None:
            group.add_command(built)
        return built

    return decorate


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Turn an OSError into a one-line error that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{what}: {error.strerror or error}") from error


NUMBER = ParsedParam("number", _number)
"""A number above 0, exact."""
DURATION = ParsedParam("duration", _duration)
"""A duration as in policies (`1s`, `250ms`, `1m30s`), in seconds."""
WORD = ParsedParam("name", _name)
"""A name as policies write it: no spaces."""
SIZE = ParsedParam("size", _size)
"""An amount of memory or disk (`256MiB`, `1GB`, `0`), in bytes."""
RECORD_TEXT = ParsedParam("text", _record_text)
"""A text for the record: not blank, and valid UTF-8."""

COUNT = click.IntRange(min=0)
PATH = click.Path(path_type=Path)
IN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUT_FILE = click.Path(dir_okay=False, path_type=Path)
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)

option = partial(click.option, show_default=True)
"""An option whose help shows its default."""

store = click.option("--store", "store_at", metavar="FILE", required=True, envvar="KSCTL_STORE", show_envvar=True,
                     help="The store of the runner.")  # fmt: skip


def _output(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--output` with these formats, and `wide`, which is text as in a pipe and reaches the verb as `text`."""

    def chosen(_context: click.Context, _param: click.Parameter, form: str) -> str:
        from killswitch.cli.terminal import choose_wide

        choose_wide(wide=form == "wide")
        return "text" if form == "wide" else form

    described = "Format of stdout; wide is text with every column, whole ids and dates, as in a pipe."
    kinds = click.Choice(["text", "wide", *forms])
    return option("--output", "-o", type=kinds, default="text", callback=chosen, help=described)


def _chosen_log(_context: click.Context, _param: click.Parameter, form: Literal["text", "json"]) -> None:
    from killswitch.cli.terminal import choose_log

    choose_log(form)


log_format = option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", callback=_chosen_log, expose_value=False,
    envvar="KSCTL_LOG_FORMAT", show_envvar=True,
    help="What stderr has: text for people, or JSON with one line for each event.",
)  # fmt: skip
output = _output("json")
check_output = _output("json", "sarif", "github", "junit")
"""For a verb whose answer is diagnostics."""
page_output = _output("json", "markdown", "html")
"""For a verb whose answer is a page."""
journal = click.option(
    "--journal", metavar="memory|PATH",
    help="For an emergency, if the store cannot be written or read: act on a copy in memory, which is lost at the "
    "end, or in the new file PATH, which is the store from then on.",
)  # fmt: skip
lock_dir = click.option("--lock-dir", type=UncheckedPath(file_okay=False),
                        help="Folder of the lock files, one per scope. Default: STORE.locks.")  # fmt: skip
lock_file = click.option("--lock-file", type=UncheckedPath(dir_okay=False),
                         help="One file for all scopes, for bots that read a single path. Default: none.")  # fmt: skip


sentinel = click.option("--sentinel", "sentinel_at", type=UncheckedPath(), envvar="KSCTL_SENTINEL", show_envvar=True,
                        help="The file whose existence halts everything. Default: STORE.halt.")  # fmt: skip


def read_timeout(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--read-timeout`. The first request of a command also loads the rules of all markets.

    Operator commands have a shorter default, because other accounts wait for their close.
    """
    return option(
        "--read-timeout", type=DURATION, default=default,
        help="Time after which a venue counts as down. The first response includes the rules of all markets.",
    )  # fmt: skip


variant = click.option(
    "--variant", metavar="NAME",
    help="Select this variant in every policy that declares it. Default: the selection of the files.",
)  # fmt: skip


def policies(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--policies`, which is repeatable."""
    return click.option(
        "--policies", "policies_at", type=UncheckedPath(), multiple=True, required=required,
        envvar="KSCTL_POLICIES", show_envvar=True,
        help="Folder or file of policies and accounts. May be given more than once.",
    )  # fmt: skip
