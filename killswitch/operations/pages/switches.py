"""The page of dead man's switches: `ksctl deadman status`, and the section of `ksctl status` on a watcher's store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from killswitch.operations.pages.wording import ago
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, instant
from killswitch.watcher.watch import SwitchView

HEAD = ("switch", "watches", "phase", "last heartbeat", "progress", "fires in", "on silence", "accounts")

LATE = 5
"""A view that is older than this many checks of its switch is of a watcher that hangs, or is gone."""


def switches_page(switches: Sequence[SwitchView], now: datetime, *, is_watching: bool) -> Page:
    """The state of every switch. `is_watching`: whether the watcher of the store is alive."""
    rows = () if is_watching else (("Watcher", "NOT ALIVE: nobody listens, and nothing fires"),)
    armed = sum(each.phase == "armed" for each in switches)
    summary = (f"{armed} of {count_of(len(switches), 'switch')} armed",)
    return Page("Dead man's switches", Facts(rows), summary=summary, sections=tuple(switches_section(switches, now)))


def switches_section(switches: Sequence[SwitchView], now: datetime) -> Iterator[Section]:
    """A row for each switch, and below it what is wrong with its ways."""
    table = Table(HEAD, tuple(_row(each, now) for each in switches))
    broken = (f"{each.name}: {way.way}: {way.error}" for each in switches for way in each.ways if way.error is not None)
    fired = (f"{each.name}: {each.why}" for each in switches if each.why is not None)
    yield from section("Dead man's switches", table, Items((*fired, *broken)))


def _row(switch: SwitchView, now: datetime) -> tuple[str, ...]:
    phase = switch.phase.upper() if switch.phase != "armed" else switch.phase
    if switch.phase == "disarmed" and switch.disarmed_until is not None:
        phase = f"{phase} until {instant(switch.disarmed_until)}"
    late = (now - switch.checked_at).total_seconds()
    if late > LATE * switch.check_every:
        phase = f"UNKNOWN since {ago(switch.checked_at, now)}, was {switch.phase}"
    age = "never" if switch.age is None else f"{switch.age + max(0.0, late):.0f} s ago"
    fires = "-" if switch.fires_in is None else f"{max(0.0, switch.fires_in - max(0.0, late)):.0f} s"
    progress = "-" if switch.progress is None else str(switch.progress)
    accounts = ", ".join(switch.accounts) or "none"
    return switch.name, f"{switch.watches} {switch.beats}", phase, age, progress, fires, switch.on_silence, accounts
