"""An interpreter whose outcomes have the notices of its alerts, as a run, a replay and a backtest make them."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter, Outcome, Pending
from killswitch.planning.scopes.corroboration import PricesOf


class NotifyingInterpreter(Interpreter):
    """Its alerts begin and end with its ticks."""

    alerts_known = AlertState()

    def tick(self, snapshot: Snapshot) -> Outcome:
        pending = self.evaluate(snapshot)
        return self._notified(NO_OUTCOME, to_micros(snapshot.as_of)) if pending is None else self.decide(pending)

    def decide(self, pending: Pending, reread: Snapshot | None = None, prices: PricesOf | None = None) -> Outcome:
        return self._notified(super().decide(pending, reread, prices), pending.now)

    def _notified(self, outcome: Outcome, now: int) -> Outcome:
        notices, self.alerts_known = advance(self.alerts_known, outcome.alerts, now)
        return replace(outcome, notices=outcome.notices + notices)
