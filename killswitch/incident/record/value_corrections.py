"""Corrects unit values that were entered before it was known which changes of equity were transfers.

History rows and curve points contain what was known in their tick. An unexplained change counts as profit or loss until
it is settled; the stored state of the scope has the open changes and the corrections made since.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from killswitch.incident.record.document import PendingChange
from killswitch.incident.record.source_places import decode_or
from killswitch.model.decision import Decision
from killswitch.model.instant import from_micros
from killswitch.model.store import EquityCurvePoint, IncidentStore
from killswitch.pnl_explain.pending_changes import UnexplainedChange, optimistic
from killswitch.signals.history.rows import Correction


class ValueCorrections(Struct, frozen=True):
    """The corrections of a scope's unit values and the open changes of its equity. Times are in microseconds."""

    corrections: tuple[Correction, ...] = ()
    changes: tuple[UnexplainedChange, ...] = ()

    def apply(self, points: Sequence[EquityCurvePoint]) -> Sequence[EquityCurvePoint]:
        """Return the points as they would be entered by what is known now: a transfer is no gain or loss.

        A pending change is read as the smaller drawdown.
        """
        if not self.corrections and not self.changes:
            return points
        return [self._one(point) for point in points]

    def _one(self, point: EquityCurvePoint) -> EquityCurvePoint:
        value = point.value
        for each in self.corrections:
            if not each.start <= point.at < each.end:
                continue
            if each.undone:
                value *= each.factor if each.factor > 0.0 else 1.0
            else:
                value = value / each.factor if each.factor > 0.0 else each.value
        for change in self.changes:
            if point.at >= change.at:
                factor = optimistic(change)
                value = value / factor if factor > 0.0 else change.value
        return EquityCurvePoint(point.at, value)

    def pending_changes(self, first: int, last: int) -> tuple[PendingChange, ...]:
        """Return the changes in that time that are still unexplained."""
        return tuple(
            PendingChange(from_micros(each.at), float(each.converted_amount) / each.before)
            for each in self.changes
            if each.kind == "trade" and first <= each.at <= last and each.before > 0.0
        )


NO_CORRECTIONS = ValueCorrections()


class _History(Struct):
    changes: list[UnexplainedChange] = []
    corrections: list[Correction] = []


class _StoredState(Struct):
    """The parts of a stored state that are read here."""

    history: _History = msgspec.field(default_factory=_History)


_STATE = msgspec.json.Decoder(_StoredState)
_KEPT = msgspec.json.Decoder(ValueCorrections)

encode_corrections = msgspec.json.Encoder(decimal_format="string").encode


def corrections_key(incident: str) -> str:
    """The store key of what was known while the incident was open."""
    return f"restating/{incident}"


def read_corrections(store: IncidentStore, opening: Decision) -> ValueCorrections:
    """Return what is known of the scope's changes now, with what was known while the incident was open.

    The state forgets both: corrections with their rows, changes after two days and at a reset.
    """
    kept, now = kept_corrections(store, opening.id), _scope_history(store, opening)
    corrections = sorted(dict.fromkeys((*kept.corrections, *now.corrections)), key=attrgetter("end", "start"))
    # A change that the state still has, or has corrected since, is taken from the state.
    known = {each.at for each in now.changes} | {each.start for each in now.corrections}
    open_ones = [each for each in now.changes if each.is_open]
    open_ones += [each for each in kept.changes if each.at not in known]
    return ValueCorrections(tuple(corrections), tuple(sorted(open_ones, key=attrgetter("at"))))


def kept_corrections(store: IncidentStore, incident: str) -> ValueCorrections:
    """Return what was kept of the incident; empty where nothing was, or another version wrote it."""
    return decode_or(_KEPT, store.live(corrections_key(incident)), NO_CORRECTIONS)


def _scope_history(store: IncidentStore, opening: Decision) -> _History:
    mine = (each.blob for each in store.states() if (each.policy, each.scope) == (opening.policy, opening.scope))
    return decode_or(_STATE, next(mine, None), _StoredState()).history
