"""What signals mean to a verb that acts: some end it well, and what is not meant for it ends nothing (ADR 0115)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Final

import click

ENDING: Final = ("SIGTERM", "SIGINT", "SIGQUIT")
"""The step under way ends, the lease is given back, exit 0."""
OUTLIVED: Final[Mapping[str, str]] = {
    "SIGHUP": "a terminal that closes ends nothing here",
    "SIGUSR1": "it means nothing here",
    "SIGUSR2": "it means nothing here",
}
"""Without a handler each of them would end the process at once, and leave positions open without a word."""


def end_well(hear: Callable[[str], None]) -> None:
    """Call `hear` with the name of a signal that ends a run. In a running event loop."""
    _at(ENDING, hear)


def outlive() -> None:
    """Go on over signals that are not meant for this program, and say so. In a running event loop."""
    _at(OUTLIVED, _mention)


def _mention(name: str) -> None:
    click.echo(f"{name}: {OUTLIVED[name]}; this goes on, SIGTERM ends it", err=True)


def _at(names: Mapping[str, str] | tuple[str, ...], hear: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    for name in names:
        number = getattr(signal, name, None)  # not every system has each of them
        if number is not None:
            loop.add_signal_handler(number, hear, name)
