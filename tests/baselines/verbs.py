"""What the verbs of `ksctl` print, in this process, with the present time pinned and paths made the same everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.runner.status_blob import last_tick
from killswitch.store.sqlite import open_store
from tests.baselines.dumps import settled

REPOSITORY = Path(__file__).parents[2]
HOUSE = "/house"
"""Stands for the source tree."""
SINCE = timedelta(seconds=5)
"""How long after the last tick of a store its verbs are asked."""
PROGRAM = "killswitch"
_PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "KSCTL_STORE": None, "KSCTL_POLICIES": None}


def said(*arguments: str, folder: Path | None = None) -> str:
    """A command as it is typed, what it printed on stdout and stderr, and its exit status where it is not 0."""
    result = CliRunner().invoke(ksctl, arguments, env=_PLAIN, standalone_mode=False)
    status, refused = result.return_value or 0, ""
    if isinstance(result.exception, click.ClickException):
        status, refused = result.exception.exit_code, f"Error: {result.exception.format_message()}\n"
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    parts = [f"$ ksctl {' '.join(arguments)}\n", _ended(result.stdout)]
    parts += [f"--- stderr\n{_ended(told)}" for told in (result.stderr + refused,) if told]
    parts += [f"--- exit {status}\n"] if status else []
    text = "".join(parts).replace(str(REPOSITORY), HOUSE)
    return text if folder is None else settled(text, folder)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def machine_readable(store_at: Path) -> str:
    """Every verb's JSON on a store: how it stands, its history, and each decision and incident of it."""
    decisions, incidents = _known(store_at)
    commands = [
        ("status", "--output", "json"),
        ("status", "--notices", "50", "--output", "json"),
        *(("status", "--probe", probe, "--output", "json") for probe in ("live", "ready")),
        ("history", "--output", "json"),
        ("report", "list", "--output", "json"),
        *(("explain", decision, "--output", "json") for decision in decisions),
        *(("report", incident, "--output", "json") for incident in incidents),
    ]
    return _asked(store_at, commands)


def readable(store_at: Path) -> str:
    """The same in words for people."""
    decisions, incidents = _known(store_at)
    commands = [
        ("status", "--notices", "50"),
        *(("status", "--probe", probe) for probe in ("live", "ready")),
        ("history",),
        ("report", "list"),
        *(("explain", decision) for decision in decisions),
        *(("report", incident) for incident in incidents),
    ]
    return _asked(store_at, commands)


def pages(store_at: Path) -> str:
    """Each incident's report as a page."""
    return _asked(store_at, [("report", incident, "--format", "html") for incident in _known(store_at)[1]])


def _asked(store_at: Path, commands: Sequence[Sequence[str]]) -> str:
    now, here = _now(store_at), ("--store", str(store_at))
    return "\n".join(said_at(now, *command, *here, folder=store_at.parent) for command in commands)


def said_at(now: datetime, *arguments: str, folder: Path) -> str:
    """What `said` gives when it is `now`."""
    loaded = _modules()
    with pinned(now):
        text = said(*arguments, folder=folder)
    if not _modules() - loaded:
        return text
    with pinned(now):  # what was imported meanwhile had a clock of its own
        return said(*arguments, folder=folder)


def _known(store_at: Path) -> tuple[list[str], list[str]]:
    """The ids of all decisions, newest first, and those of all incidents."""
    store = open_store(str(store_at), read_only=True)
    try:
        decisions = [each.decision.id for each in store.decisions(100)]
    finally:
        store.close()
    listed = CliRunner().invoke(ksctl, ["report", "list", "--store", str(store_at), "--output", "json"], env=_PLAIN)
    return decisions, [json.loads(line)["id"] for line in listed.stdout.splitlines()]


def _now(store_at: Path) -> datetime:
    store = open_store(str(store_at), read_only=True)
    try:
        last = last_tick(store)
    finally:
        store.close()
    assert last is not None, f"nothing has ticked on {store_at.name}"
    return last + SINCE


# The present time


@contextmanager
def pinned(now: datetime) -> Iterator[None]:
    """Every module of the program that is loaded finds that it is `now`."""
    stand_in = _standing(now)
    held = [module for module in _loaded() if vars(module).get("datetime") is datetime]
    for module in held:
        vars(module)["datetime"] = stand_in
    try:
        yield
    finally:
        for module in held:
            vars(module)["datetime"] = datetime


def _standing(now: datetime) -> type:
    """`datetime` for whoever makes, compares or parses one, except that it is always `now`."""

    class Always(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

        def __call__(cls, *parts: Any, **named: Any) -> datetime:
            return datetime(*parts, **named)  # noqa: DTZ001 - as its caller wants it

        def __getattr__(cls, name: str) -> Any:
            return getattr(datetime, name)

    class Standing(metaclass=Always):
        @staticmethod
        def now(tz: Any = None) -> datetime:
            return now.astimezone(tz)

    return Standing


def _loaded() -> list[Any]:
    return [module for name, module in list(sys.modules.items()) if name.split(".")[0] == PROGRAM and module]


def _modules() -> set[str]:
    return {name for name in sys.modules if name.split(".")[0] == PROGRAM}
