"""The next commands of an incident, filled in and quoted for the shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msgspec import Struct

from killswitch.incident.record import Command
from killswitch.model.words import Cause


class StartedAs(Struct, frozen=True):
    """How the run on this store was started: what a command needs to find the same things. Empty where unknown."""

    store: str
    policies: tuple[str, ...] = ()
    live: bool = False
    recording: str | None = None


def next_commands(
    incident: str,
    scope: str,
    decisions: Sequence[str],
    started: StartedAs,
    *,
    is_open: bool,
    unfinished: bool,
    cause: Cause = "operator",
) -> tuple[Command, ...]:
    """What to type next. `decisions`, the highest first; `unfinished`: something is left to close, for `cause`."""
    store = ("--store", started.store)
    policies = tuple(word for path in started.policies for word in ("--policies", path))
    found = [_command("How everything stands now", "status", *store)]
    found += [_command("Why it fired, line by line", "explain", decision, *store) for decision in decisions[:1]]
    found.append(_command("Everything decided so far", "history", *store))
    if unfinished and policies:
        found.append(
            _command("What a close of the rest would send; changes nothing", "close", "--dry-run", "--scope", scope,
                     "--reason", f"{cause}: rest of incident {incident}", *policies, *store)
        )  # fmt: skip
    if started.recording is not None and policies:
        found.append(
            _command("The same policies over what was recorded", "replay", *policies, "--snapshots", started.recording)
        )
    if is_open:
        live = ("--live",) if started.live else ()
        found.append(
            _command("Return the scope to normal, once the checklist is done", "reset", scope,
                     "--reason", f"incident {incident} is dealt with", *live, *policies, *store)
        )  # fmt: skip
    found.append(_command("This report anew, as a page", "report", incident, "--format", "html", "--out",
                          f"incident-{incident}.html", *store))  # fmt: skip
    return tuple(found)


def _command(purpose: str, *words: str) -> Command:
    return Command(purpose, ("ksctl", *words), shlex.join(("ksctl", *words)))
