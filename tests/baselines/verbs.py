"""Runs verbs of `ksctl` in this process, with pinned time and with paths that are the same everywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from killswitch.cli import ksctl as cli
from killswitch.runner.status_blob import last_tick
from killswitch.store.sqlite import open_store
from tests.baselines.dumps import normalized

REPOSITORY = Path(__file__).parents[2]
HOUSE = "/house"
"""Replaces the path of the source tree."""
SINCE = timedelta(seconds=5)
"""The pinned time is this long after the last tick of the store."""
PROGRAM = "killswitch"
_PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "KSCTL_STORE": None, "KSCTL_POLICIES": None}


def ksctl(*arguments: str, folder: Path | None = None) -> str:
    """The command line, its stdout and stderr, and its exit status where that is not 0."""
    result = CliRunner().invoke(cli, arguments, env=_PLAIN, standalone_mode=False)
    status, refused = result.return_value or 0, ""
    if isinstance(result.exception, click.ClickException):
        status, refused = result.exception.exit_code, f"Error: {result.exception.format_message()}\n"
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    parts = [f"$ ksctl {' '.join(arguments)}\n", _with_newline(result.stdout)]
    parts += [f"--- stderr\n{_with_newline(err)}" for err in (result.stderr + refused,) if err]
    parts += [f"--- exit {status}\n"] if status else []
    text = "".join(parts)
    text = text if folder is None else normalized(text, folder)
    return re.sub(rf"{re.escape(str(REPOSITORY))}(?![\w.-])", HOUSE, text)  # another folder may begin with its name


def _with_newline(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def machine_readable(store_at: Path) -> str:
    """Every verb's JSON on a store: its status, its history, and each decision and incident."""
    decisions, incidents = _ids(store_at)
    commands = [
        ("status", "--output", "json"),
        ("status", "--notices", "50", "--output", "json"),
        *(("status", "--probe", probe, "--output", "json") for probe in ("live", "ready")),
        ("history", "--output", "json"),
        ("report", "list", "--output", "json"),
        *(("explain", decision, "--output", "json") for decision in decisions),
        *(("report", incident, "--output", "json") for incident in incidents),
    ]
    return _run_at_last_tick(store_at, commands)


def readable(store_at: Path) -> str:
    """The text output of the same verbs."""
    decisions, incidents = _ids(store_at)
    commands = [
        ("status", "--notices", "50"),
        *(("status", "--probe", probe) for probe in ("live", "ready")),
        ("history",),
        ("report", "list"),
        *(("explain", decision) for decision in decisions),
        *(("report", incident) for incident in incidents),
    ]
    return _run_at_last_tick(store_at, commands)


def pages(store_at: Path) -> str:
    """Each incident's report as an HTML page."""
    return _run_at_last_tick(store_at, [("report", incident, "--format", "html") for incident in _ids(store_at)[1]])


def _run_at_last_tick(store_at: Path, commands: Sequence[Sequence[str]]) -> str:
    now, here = _now(store_at), ("--store", str(store_at))
    return "\n".join(ksctl_at(now, *command, *here, folder=store_at.parent) for command in commands)


def ksctl_at(now: datetime, *arguments: str, folder: Path) -> str:
    """Run `ksctl` with the time pinned to `now`."""
    loaded = _modules()
    with pinned(now):
        text = ksctl(*arguments, folder=folder)
    if not _modules() - loaded:
        return text
    with pinned(now):  # a module imported meanwhile had the real clock
        return ksctl(*arguments, folder=folder)


def _ids(store_at: Path) -> tuple[list[str], list[str]]:
    """The ids of all decisions, newest first, and those of all incidents."""
    store = open_store(str(store_at), read_only=True)
    try:
        decisions = [each.decision.id for each in store.decisions(100)]
    finally:
        store.close()
    listed = CliRunner().invoke(cli, ["report", "list", "--store", str(store_at), "--output", "json"], env=_PLAIN)
    return decisions, [json.loads(line)["id"] for line in listed.stdout.splitlines()]


def _now(store_at: Path) -> datetime:
    store = open_store(str(store_at), read_only=True)
    try:
        last = last_tick(store)
    finally:
        store.close()
    assert last is not None, f"nothing has ticked on {store_at.name}"
    return last + SINCE


# Pinned time


@contextmanager
def pinned(now: datetime) -> Iterator[None]:
    """In every loaded module of the program, `datetime.now` returns `now`."""
    replacement = _pinned_datetime(now)
    modules = [module for module in _loaded() if vars(module).get("datetime") is datetime]
    for module in modules:
        vars(module)["datetime"] = replacement
    try:
        yield
    finally:
        for module in modules:
            vars(module)["datetime"] = datetime


def _pinned_datetime(now: datetime) -> type:
    """A class that constructs, compares and parses like `datetime`, and whose `now()` is always `now`."""

    class LikeDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

        def __call__(cls, *parts: Any, **named: Any) -> datetime:
            return datetime(*parts, **named)  # noqa: DTZ001 - as the caller requests

        def __getattr__(cls, name: str) -> Any:
            return getattr(datetime, name)

    class Pinned(metaclass=LikeDatetime):
        @staticmethod
        def now(tz: Any = None) -> datetime:
            return now.astimezone(tz)

    return Pinned


def _loaded() -> list[Any]:
    return [module for name, module in list(sys.modules.items()) if name.split(".")[0] == PROGRAM and module]


def _modules() -> set[str]:
    return {name for name in sys.modules if name.split(".")[0] == PROGRAM}
