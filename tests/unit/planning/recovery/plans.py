"""A policy with a recovery plan, and a book of one position that is polled, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Notice
from killswitch.model.snapshot import Event
from killswitch.model.store import RECOVERY, HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.recovery.way_back import RecoveryCap
from tests.backtests import written
from tests.worlds import START, account, operator_event, position, snapshot

EVERY = timedelta(minutes=5)

PLAN = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, venue: paper, market: swap, currency: USDT, execution: observe}
---
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: main}
spec: {match: {}, stale_after: 10s, gross: 1000000 USDT, leverage: 4}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: fall}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall-1h: {signal: equity.drawdown, window: 1h, at_least: 6%, warn_at: [50%], on_unknown: hold}
  stages:
    - name: stop
      level: 2
      any: [fall-1h]
      cooldown: 0s
      reset: manual
      actions: [lock_trading: {mode: reduce_only}]
---
apiVersion: killswitch.dev/v1
kind: RecoveryPlan
metadata: {name: way-back}
spec:
  policies: fall
  level: 2
  health: {when: 'equity.drawdown("15m") < 0.01', for: 1h}
  start: START
  ramp: RAMP
  MONITORING
"""


def planned(start: str = "{share: 5%}", ramp: str = "", monitoring: str = "") -> PolicySet:
    """The policy set with this start, ramp and monitoring. Left out: 5% in seven steps of 24 h, fixed thresholds."""
    ramp = ramp or "{steps: 7, every: 24h, thresholds: fixed}"
    return written(PLAN.replace("START", start).replace("RAMP", ramp).replace("MONITORING", monitoring))


class Course:
    """A run of the interpreter over one account, a tick each `EVERY`. `hours` counts from its first tick."""

    def __init__(self, policies: PolicySet, equity: str = "100000") -> None:
        self.policies = policies
        self.interpreter = Interpreter(policies)
        self.equity = Decimal(equity)
        self._begun_with = self.equity
        self.now = START
        self.notices: list[tuple[float, str, str]] = []
        """Hour, title and text of each notice about the way back."""
        self._stored: dict[str, bytes] = {}
        self._states: dict[tuple[str, str], MachineState] = {}
        self._rows: list[HistoryRow] = []
        self._ids = 0

    @property
    def hours(self) -> float:
        """The time of the next tick."""
        return (self.now - START) / timedelta(hours=1)

    def tick(self, equity: str | None = None, events: Sequence[Event] = (), *, is_known: bool = True) -> None:
        """One tick at the present time, after which the time is `EVERY` later."""
        if equity is not None:
            self.equity = Decimal(equity)
        profit = str(self.equity - self._begun_with)
        held = [position("BTC/USDT:USDT", "long", profit, notional="100000", mark_price="100")]
        shown = account(str(self.equity), held, observed_at=self.now)
        if not is_known:
            shown = account(None, None, quality="down", reason="no answer")
        outcome = self.interpreter.tick(snapshot(self.now, shown, events=events))
        self.notices += [self._noted(each) for each in outcome.notices if each.subject == "recovery" or each.title]
        self._stored |= self.interpreter.live()
        self._states |= {(each.policy, each.scope): each for each in self.interpreter.states()}
        self._rows += self.interpreter.rows()
        self.now += EVERY

    def until(self, hour: float, *, is_known: bool = True) -> None:
        """Ticks before this hour."""
        while self.hours < hour:
            self.tick(is_known=is_known)

    def reset(self) -> None:
        """A tick with the reset of an operator."""
        self.tick(events=[self.event("reset")])

    def event(self, kind: str, **more: str) -> Event:
        """An operator's event of now."""
        self._ids += 1
        return operator_event(kind, self.now, id_=f"event-{self._ids}", **more)  # type: ignore[arg-type]  # a literal by the caller

    def restart(self, gap: timedelta = timedelta(0)) -> None:
        """Another process goes on from what the ticks have stored, after a gap."""
        self.now += gap
        self.interpreter = Interpreter(self.policies)
        rows = list(self._rows)
        self.interpreter.restore(
            self._states.values(), lambda _policy, _scope, since: [each for each in rows if each.at >= since],
            live=self._stored.get,
        )  # fmt: skip

    def reload(self, policies: PolicySet) -> None:
        """Go on with another set, between two ticks."""
        rows = list(self._rows)
        self.interpreter.reload(
            self.interpreter.prepare(
                policies, self._states.values(), lambda _policy, _scope, since: [it for it in rows if it.at >= since]
            )
        )

    @property
    def cap(self) -> RecoveryCap | None:
        """What the account may open."""
        return self.interpreter.recoveries.caps([account("1", name="main")]).get("main")

    @property
    def share(self) -> Decimal:
        """The share of its limits that the account may open; 1 without a way back."""
        return Decimal(1) if self.cap is None else self.cap.share

    @property
    def stored(self) -> bytes:
        """The stored ways back."""
        return self._stored[RECOVERY]

    def titles(self) -> list[tuple[float, str]]:
        """Hour and title of each notice about the way back."""
        return [(hour, title) for hour, title, _ in self.notices]

    def _noted(self, notice: Notice) -> tuple[float, str, str]:
        return round((notice.as_of - START) / timedelta(hours=1), 3), notice.title, notice.text


def at(hours: float) -> datetime:
    """The time so many hours after the first tick."""
    return START + timedelta(hours=hours)
