"""The signal catalogue: the declarations of all subjects."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.signals import (
    attribution_signals,
    equity_signals,
    exposure_signals,
    loss_signals,
    market_signals,
    order_signals,
    ownership_signals,
    position_signals,
    system_signals,
    trade_signals,
    venue_price_signals,
    venue_signals,
    volatility_signals,
    worst_position_signals,
)
from killswitch.signals.arguments import Argument
from killswitch.signals.declaration import SignalSpec, TextSignal


def catalogue(*subjects: Iterable[SignalSpec]) -> tuple[SignalSpec, ...]:
    """The signals of all subjects, in order. TypeError if two have the same name, or a key two meanings."""
    found: dict[str, SignalSpec] = {}
    keys: dict[str, Argument] = {}
    for spec in (spec for subject in subjects for spec in subject):
        if spec.name in found:
            raise TypeError(f"the signal {spec.name} is declared twice")
        found[spec.name] = spec
        for argument in spec.arguments:
            known = keys.setdefault(argument.key, argument)
            if (argument.kind, argument.meaning) != (known.kind, known.meaning):
                raise TypeError(f"the signal {spec.name}: its argument {argument.key} has another meaning elsewhere")
    return tuple(found.values())


CATALOGUE: tuple[SignalSpec, ...] = catalogue(
    equity_signals.SIGNALS,
    loss_signals.SIGNALS,
    worst_position_signals.SIGNALS,
    attribution_signals.SIGNALS,
    exposure_signals.SIGNALS,
    volatility_signals.SIGNALS,
    market_signals.SIGNALS,
    venue_price_signals.SIGNALS,
    venue_signals.SIGNALS,
    order_signals.SIGNALS,
    system_signals.SIGNALS,
    ownership_signals.SIGNALS,
    trade_signals.SIGNALS,
    position_signals.SIGNALS,
)
BY_NAME: dict[str, SignalSpec] = {spec.name: spec for spec in CATALOGUE}

TRIGGER_SIGNALS: dict[str, str] = {spec.name: spec.meaning for spec in CATALOGUE if spec.level == "scope"}
"""Signals allowed in triggers → their description."""

ARGUMENTS: dict[str, tuple[Argument, ...]] = {}
"""Key → the argument as each signal declares it that takes one, all of one type and meaning. Those that only signals
which are texts take are in expressions, and no keys."""
for _spec in CATALOGUE:
    for _argument in () if isinstance(_spec, TextSignal) else _spec.arguments:
        if _argument not in ARGUMENTS.setdefault(_argument.key, ()):
            ARGUMENTS[_argument.key] += (_argument,)
