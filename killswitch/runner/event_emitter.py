"""Observers that record metrics of a tick and write the event stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import UNSET, convert

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Entry,
    Filled,
    OrderDetached,
    OrderSending,
    Rejected,
    Unknown,
    known,
)
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.decision import Decision
from killswitch.model.effects import Cancels, Lock, Orders, kind_of, of_kind, sizes_of, tag_of
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Closing
from killswitch.planning.exposures import Exposures
from killswitch.planning.scopes.trigger_status import MachineStatus, headroom, headroom_ratio
from killswitch.render.formats import count_of
from killswitch.runner.observers import TickReport
from killswitch.telemetry import events
from killswitch.telemetry.background_writer import BackgroundWriter
from killswitch.telemetry.metrics import AnchorGauges, GaugeValues, NotificationCounts, SourceGauges, gross

if TYPE_CHECKING:
    from killswitch.telemetry.opened import Telemetry


class MetricsRecorder:
    """Records the metrics of a run, and reports when telemetry is not delivered."""

    def __init__(
        self,
        telemetry: Telemetry,
        notifications: Callable[[], NotificationCounts | None],
        policy_files: Callable[[], str | None] = lambda: None,
        source: Callable[[], SourceGauges | None] = lambda: None,
        anchors: Callable[[], AnchorGauges | None] = lambda: None,
    ) -> None:
        """`notifications`: returns the counts of the outbox, without reading the store; None without a route.

        `policy_files`: returns whether the policy files are those that run; None where that is not known. `source`:
        returns how the source of the policies is; None in a run without one. `anchors`: returns what no anchor covers;
        None in a run that publishes none.
        """
        self._telemetry = telemetry
        self._notifications = notifications
        self._policy_files = policy_files
        self._source = source
        self._anchors = anchors

    @property
    def judges(self) -> tuple[str, ...]:
        return ("telemetry",)

    @property
    def alerts(self) -> Alerts:
        """A page for each export that fails; unknown before the first one of this run."""
        found = together(alert_if(f"telemetry/{what}", why) for what, why in self._telemetry.problems.items())
        return found if self._telemetry.has_exported else found + Alerts(unknown=("telemetry",))

    def ticked(self, report: TickReport) -> None:
        metrics = self._telemetry.metrics
        if metrics is None:
            return
        snapshot = report.snapshot
        gauges = GaugeValues(
            snapshot.accounts, report.machines(), snapshot.closings, len(report.problems), self._notifications(),
            self._policy_files(), self._source(), self._anchors(),
        )  # fmt: skip
        decided = [_labels(decision, report) for decision in report.decisions]
        metrics.record_tick(report.seconds, gauges, decided, scheduled=snapshot.scheduled)


def _labels(decision: Decision, report: TickReport) -> dict[str, str | int]:
    return {
        "killswitch.policy": decision.policy,
        "killswitch.scope": decision.scope,
        "killswitch.stage.level": decision.level,
        "killswitch.decision.kind": decision.kind or "stage",
        "killswitch.decision.acted_on": "true" if decision.id in report.acting_on else "false",
    }


class EventEmitter:
    """Writes the event stream of a run."""

    def __init__(self, writer: BackgroundWriter, hide: Callable[[str], str]) -> None:
        self._writer = writer
        self._hide = hide
        self._quality: dict[str, str] = {}
        self._closings: dict[str, Closing] = {}
        self._machines: tuple[MachineStatus, ...] = ()
        self.ticks = 0

    @property
    def judges(self) -> tuple[str, ...]:
        return ("events",)

    @property
    def alerts(self) -> Alerts:
        """A page while lines are late or lost; unknown before the first line of this run is written."""
        return alert_if("events", self._writer.problem) + Alerts(
            unknown=() if self._writer.has_written else ("events",)
        )

    def ticked(self, report: TickReport) -> None:
        self.ticks += report.snapshot.scheduled
        at = report.snapshot.as_of
        self._machines = report.machines()
        self._put(_portfolio(at, report.snapshot.accounts, self._machines, report.exposures(), self._hide))
        for account in report.snapshot.accounts:
            self._emit_quality(at, account, report.outage(account))
        for notice in report.notices:
            self._put(
                events.Warned(
                    at=at, source="notice", severity=notice.severity, text=self._hide(notice.text),
                    policy=notice.policy, scope=notice.scope, notice=notice.kind,
                )
            )  # fmt: skip
        for decision in report.decisions:
            self._put(_decided(decision, report))
        self._emit_closings(at, report.snapshot.closings)

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Nothing: the orders of an earlier run were written by it."""

    def wrote(self, entry: Entry) -> None:
        """Write a line for each state that an order of a close reaches."""
        event = _order_event(entry, self._hide)
        if event is not None:
            self._put(event)

    def ended(self, at: datetime, why: str, closings: tuple[Closing, ...]) -> None:
        """Write the last lines of a run: closings since the last tick, latched stages and unfinished closes."""
        if self.ticks:
            self._emit_closings(at, closings)
        in_force = [each for each in self._machines if each.level > 0]
        latched = convert(in_force, tuple[events.Latched, ...], from_attributes=True)
        unfinished = tuple(each.decision for each in self._closings.values() if each.status in IN_PROGRESS)
        self._put(events.Shutdown(at=at, why=self._hide(why), ticks=self.ticks, latched=latched, unfinished=unfinished))

    def _emit_quality(self, at: datetime, account: AccountSnapshot, now: str) -> None:
        if now != self._quality.get(account.account, ""):
            text = f"account {account.account} is {now or 'ok again'}"
            severity = events.Warned(
                at=at, source="account", severity="warning" if now else "info", text=self._hide(text),
                scope=f"account/{account.account}",
            )  # fmt: skip
            self._put(severity)
        self._quality[account.account] = now

    def _emit_closings(self, at: datetime, closings: tuple[Closing, ...]) -> None:
        for closing in closings:
            # The end of an earlier run's closing was reported by that run.
            old = self.ticks == 1 and closing.status not in IN_PROGRESS
            if self._closings.get(closing.decision) != closing and not old:
                self._put(
                    events.ObservedClose(
                        at=at, decision=closing.decision, scope=closing.scope, status=closing.status,
                        ended=closing.status not in IN_PROGRESS, residual=closing.residual, cost=closing.cost,
                    )
                )  # fmt: skip
        self._closings = {closing.decision: closing for closing in closings}

    def _put(self, event: events.RunEvent) -> None:
        lost = self._writer.put(events.encode_event(event))
        if lost:
            text = f"{count_of(lost, 'line')} lost before the last one, because the reader was too slow"
            warning = events.Warned(at=event.at, source="events", severity="warning", text=text)
            self._writer.put(events.encode_event(warning))


def _order_event(entry: Entry, hide: Callable[[str], str]) -> events.OrderChanged | None:
    """The event of a journal entry about an order; None of any other entry."""
    state: events.OrderStateName
    more: dict[str, Decimal | str | None] = {}
    match entry:
        case OrderSending():
            state, more = "sending", {"side": entry.side, "amount": known(entry.amount), "price": known(entry.price)}
        case Acknowledged():
            state, more = "acknowledged", {"filled": known(entry.filled)}
        case Filled():
            state, more = "filled", {"filled": known(entry.filled), "price": known(entry.price)}
        case Rejected():
            state, more = "rejected", {"text": entry.text or entry.reason}
        case Unknown():
            state, more = "unknown", {"text": entry.text}
        case OrderDetached():
            state, more = "set aside", {"text": entry.text}
        case Absent() | Abandoned():
            state, more = ("absent" if isinstance(entry, Absent) else "abandoned"), {"text": entry.text}
        case _:
            return None
    if entry.client_order_id is None:
        return None
    text = more.get("text")
    shown = more | ({"text": hide(text)} if isinstance(text, str) else {})
    return events.OrderChanged(
        at=entry.at, decision=entry.decision, account=entry.account, symbol=entry.symbol,
        position_side=entry.position_side, order=entry.client_order_id, state=state, **shown,  # type: ignore[arg-type]  # each by its name
    )  # fmt: skip


def _portfolio(
    at: datetime,
    accounts: tuple[AccountSnapshot, ...],
    machines: tuple[MachineStatus, ...],
    book: Exposures | None,
    hide: Callable[[str], str],
) -> events.Portfolio:
    parts = () if book is None else book.parts
    return events.Portfolio(
        currency=None if book is None else book.currency,
        profit=None if book is None else book.profit,
        exposures=tuple(
            events.ExposureOf(
                each.of, each.name, each.gross, each.net, each.unrealised,
                None if each.unknown is None else hide(each.unknown),
                each.realised,
                UNSET if each.realised_unknown is None else hide(each.realised_unknown), each.realised_since or UNSET,
            )
            for each in parts
        ),
        at=at,
        accounts=tuple(
            events.AccountState(
                each.account, each.quality, None if each.reason is None else hide(each.reason), each.currency,
                each.equity if each.quality == "ok" else None, gross(each),
                None if each.positions is None or each.quality != "ok" else len(each.positions),
            )
            for each in accounts
        ),
        machines=tuple(_machine(each) for each in machines),
    )  # fmt: skip


def _machine(machine: MachineStatus) -> events.Machine:
    nearest = [
        events.Nearest(observed.name, _short(room), _short(share))
        for observed in machine.triggers
        if (room := headroom(observed)) is not None and (share := headroom_ratio(observed)) is not None
    ]
    return events.Machine(
        machine.policy, machine.scope, "observe" if machine.mode == "observe" else "enforce",
        machine.level, machine.stage, min(nearest, key=lambda each: each.share, default=None),
        tuple(observed.name for observed in machine.triggers if observed.truth is None),
    )  # fmt: skip


def _short(value: float) -> float:
    """To ten significant digits, as decisions show values."""
    return float(f"{value:.10g}")


def _decided(decision: Decision, report: TickReport) -> events.RunEvent:
    """The event of a decision: each kind of event has the fields that it declares."""
    orders, lock = of_kind(decision.effects, Orders), of_kind(decision.effects, Lock)
    facts = {
        "at": decision.as_of,
        "decision": decision.id,
        "policy": decision.policy,
        "scope": decision.scope,
        "stage": decision.stage,
        "level": decision.level,
        "previous_level": decision.previous_level,
        "mode": decision.mode,
        "acted_on": decision.id in report.acting_on,
        "triggers": decision.triggers,
        "closes": () if orders is None else orders.intents,
        "cancels": sizes_of(decision.effects)[tag_of(Cancels)],
        "lock": None if lock is None else lock.order.mode,
        "until": decision.until,
        "by": decision.author,
        "reason": decision.reason,
        "cause": decision.cause,
        "hedge": decision.kind == "hedge",
    }
    if further := tuple(kind_of(effect).text(effect) for effect in decision.further):
        facts["effects"] = further
    if decision.kind == "reset":
        return convert(facts, events.Reset)
    if decision.is_suspicion:
        return convert(facts, events.Suspicion)
    return convert(facts, events.Trip, from_attributes=True)
