"""Ticks of a replay: the decisions and notices of each snapshot, as if every decision had been carried out.

Recordings and scenarios are evaluated by it. Where a run fetches prices a second time before a stage acts, those of the
next snapshot are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import HistoryRow
from killswitch.model.venue import Prices
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter, Observer, Pending
from killswitch.planning.scopes.compiled_policy import ReaderOf, reader_of

SECOND_LOOK = 2_000_000
"""How late the next snapshot may be to serve as the second look at prices (microseconds)."""


class ReplayedTick(Struct, frozen=True):
    """The notices and the decisions of one snapshot, in the order in which they are read."""

    notices: tuple[Notice, ...] = ()
    decisions: tuple[Decision, ...] = ()


NOTHING = ReplayedTick()


class ReplayedTicks:
    """The interpreter of a replay, with the life of its alerts."""

    def __init__(
        self, policies: PolicySet, observer: Observer | None = None, *, keeps_rows: bool = False,
        reader: ReaderOf = reader_of,
    ) -> None:  # fmt: skip
        """`keeps_rows`: whether history rows are kept, for a restart. `reader`: what reads the signals."""
        self._reader = reader
        self._policies = policies
        self._observer = observer
        self._keeps_rows = keeps_rows
        self.interpreter = Interpreter(policies, observer=observer, reader=reader)
        self._alerts = AlertState()
        self._rows: dict[tuple[str, str], list[HistoryRow]] = {}
        self._live: dict[str, bytes] = {}
        self._past: list[Decision] = []
        self._last = 0

    def tick(self, snapshot: Snapshot, following: Callable[[], Snapshot | None]) -> ReplayedTick:
        """Evaluate the snapshot; `following` is called only if the next one serves as the second look."""
        interpreter = self.interpreter
        pending = interpreter.evaluate(snapshot)
        outcome = NO_OUTCOME
        if pending is not None:
            prices = second_look(pending, following()) if pending.reread else None
            outcome = interpreter.decide(pending, prices=prices)
        if self._keeps_rows:
            self._keep(interpreter.rows(), outcome.decisions)
        self._last = to_micros(snapshot.as_of)
        if pending is None and not self._alerts.known:
            return NOTHING
        notices, self._alerts = advance(self._alerts, outcome.alerts, self._last)
        return ReplayedTick((*outcome.notices, *notices), outcome.decisions)

    def reload(self, policies: PolicySet) -> None:
        """Continue with another set from the next snapshot on, as a run that took it between two ticks.

        Histories of what is new reach back as far as rows were kept. ValueError if the set cannot be taken.
        """
        ready = self.interpreter.prepare(policies, self.interpreter.states(), self._since)
        self.interpreter.reload(ready)
        self._policies = policies

    def _since(self, policy: str, scope: str, at: int) -> list[HistoryRow]:
        return [row for row in self._rows.get((policy, scope), ()) if row.at >= at]

    def restart(self, until: int) -> None:
        """Continue as a new run on what this one has stored; nothing was measured until `until` (microseconds).

        It needs `keeps_rows`.
        """
        states = self.interpreter.states()
        self._live |= self.interpreter.live()
        self.interpreter = Interpreter(self._policies, observer=self._observer, reader=self._reader)
        self.interpreter.restore(
            states, self._since, past=tuple(reversed(self._past)), outage=(self._last, until), live=self._live.get
        )

    def _keep(self, rows: Iterable[HistoryRow], decisions: Iterable[Decision]) -> None:
        for row in rows:
            self._rows.setdefault((row.policy, row.scope), []).append(row)
        self._live |= self.interpreter.live()
        self._past += decisions


def second_look(pending: Pending, following: Snapshot | None) -> dict[str, dict[str, Prices]]:
    """The prices of the next snapshot, by account and symbol; none if it is too late, and none of its equity."""
    if following is None or to_micros(following.as_of) - pending.now > SECOND_LOOK:
        return {}
    return {
        account.account: {each.symbol: Prices(each.mark_price, each.index_price, each.last_price) for each in positions}
        for account in following.accounts
        if account.account in pending.reread and account.quality == "ok" and (positions := account.positions)
    }
