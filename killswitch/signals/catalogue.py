"""The signal catalogue: the declarations of all subjects."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.signals import attribution_signals, equity_signals, exposure_signals, position_signals, venue_signals
from killswitch.signals.declaration import SignalSpec


def catalogue(*subjects: Iterable[SignalSpec]) -> tuple[SignalSpec, ...]:
    """The signals of all subjects, in order. TypeError if two have the same name."""
    found: dict[str, SignalSpec] = {}
    for spec in (spec for subject in subjects for spec in subject):
        if spec.name in found:
            raise TypeError(f"the signal {spec.name} is declared twice")
        found[spec.name] = spec
    return tuple(found.values())


CATALOGUE: tuple[SignalSpec, ...] = catalogue(
    equity_signals.SIGNALS,
    attribution_signals.SIGNALS,
    exposure_signals.SIGNALS,
    venue_signals.SIGNALS,
    position_signals.SIGNALS,
)
BY_NAME: dict[str, SignalSpec] = {spec.name: spec for spec in CATALOGUE}

TRIGGER_SIGNALS: dict[str, str] = {spec.name: spec.meaning for spec in CATALOGUE if spec.level == "scope"}
"""Signals allowed in triggers → their description."""
