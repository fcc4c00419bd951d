"""Triggers that become unknown and known again in bars that are skipped.

A trigger that is not true does nothing while it is unknown, but for the clock of its grace, which is what ticks would
have left. A share of losses is unknown at every new high: without this, a backtest would tick one bar in ten for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.step import bits
from killswitch.lab.price_matrix import Instants
from killswitch.lab.screen import Flags
from killswitch.planning.scopes.evaluator import Quiescence, ScopeEvaluator


class UnknownRuns(Struct, frozen=True):
    """Whether triggers are unknown at some bars: those of the mask `lenient`, and false everywhere if not in `unknown`.

    `at`: when the bars are (microseconds).
    """

    at: Instants
    lenient: int
    unknown: Mapping[int, Flags]

    def of(self, trigger: int) -> Flags:
        """Whether the trigger is unknown at each bar."""
        found = self.unknown.get(trigger)
        return np.zeros(len(self.at), dtype=np.bool_) if found is None else found


def lenient_triggers(quiescence: Quiescence) -> int:
    """The mask of the triggers that may change between false and unknown without any other effect."""
    machine, state = quiescence.evaluator.machine, quiescence.evaluator.state
    triggers, now = state.triggers, quiescence.evaluator.now
    found = machine.all & ~(triggers.held | triggers.confirmed | machine.trip | machine.counting | state.spent)
    for i, since in triggers.unknown_since.items():
        if now - since >= machine.grace[i]:
            found &= ~(1 << i)  # it is reported, and what ends is notified
    return found


def first_overdue(evaluator: ScopeEvaluator, runs: Sequence[UnknownRuns]) -> int:
    """The first bar of the last of `runs` at which one of the triggers has been unknown for its grace, or their number.

    `runs` follow each other from the bar after the last tick on.
    """
    newest = runs[-1]
    first = len(newest.at)
    for i in bits(newest.lenient):
        if newest.of(i).any():
            at, is_unknown = np.concatenate([each.at for each in runs]), np.concatenate([each.of(i) for each in runs])
            since = _since(evaluator, i, at, is_unknown)
            late = is_unknown & (at - since >= evaluator.machine.grace[i])
            late = late[-len(newest.at) :]
            first = min(first, int(np.argmax(late)) if late.any() else first)
    return first


def set_unknown(evaluator: ScopeEvaluator, runs: Sequence[UnknownRuns], now: int) -> None:
    """Leave the triggers as ticks up to `now` would have: which are unknown, and since when."""
    triggers = evaluator.state.triggers
    unknown, unknown_since = triggers.unknown, dict(triggers.unknown_since)
    for i in bits(runs[0].lenient if runs else 0):
        at, is_unknown = np.concatenate([each.at for each in runs]), np.concatenate([each.of(i) for each in runs])
        last = int(at.searchsorted(now, "right")) - 1
        unknown &= ~(1 << i)
        if is_unknown[last]:
            unknown |= 1 << i
            unknown_since[i] = int(_since(evaluator, i, at[: last + 1], is_unknown[: last + 1])[-1])
        else:
            unknown_since.pop(i, None)
    if (unknown, unknown_since) != (triggers.unknown, triggers.unknown_since):
        changed = replace(triggers, unknown=unknown, unknown_since=unknown_since)
        evaluator.state = replace(evaluator.state, triggers=changed)


def _since(evaluator: ScopeEvaluator, trigger: int, at: Instants, is_unknown: Flags) -> Instants:
    """Since when the trigger is unknown at each bar, where it is."""
    known = np.maximum.accumulate(np.where(is_unknown, -1, np.arange(len(at))))
    earlier = evaluator.state.triggers.unknown_since.get(trigger)
    begun = np.where(known < 0, int(at[0]) if earlier is None else earlier, at[np.minimum(known + 1, len(at) - 1)])
    found: Instants = begun
    return found
