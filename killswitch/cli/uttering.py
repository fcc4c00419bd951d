"""What a run says on its own stdout and stderr. A reader that has stopped reading must not stop the run."""

from __future__ import annotations

import sys

import click

from killswitch.incident.mouth import Mouth, descriptor_of

PATIENCE = 0.05
"""Seconds that a line waits for its reader; the tick after it waits too."""

_MOUTHS: dict[int, Mouth] = {}
"""By descriptor: they remember what is torn, and who does not listen."""


def utter(text: str, *, err: bool = False) -> None:
    """Say a line; OSError if nobody takes it in time. Whoever stopped reading is waited for once, not at each line."""
    stream = sys.stderr if err else sys.stdout
    descriptor = descriptor_of(stream)
    if descriptor is None:
        click.echo(text, err=err)  # no stream of the system's, so nobody who could stop reading it
        return
    mouth = _MOUTHS.setdefault(descriptor, Mouth(descriptor))
    mouth.say(f"{text}\n".encode(stream.encoding or "utf-8", "backslashreplace"), PATIENCE)
