"""The observers of one run, in their order: recording, status, outputs, notifications, dead-man timers.

Observers are notified after acting, and a failure of one is a problem that is paged (ADR 0104). Only an error of the
store ends a run: a runner that cannot record must not act.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from killswitch.engine.alerts import AlertState
from killswitch.model.alert import NO_ALERTS, Alerts, NoticeGroup, alert_if, together
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot
from killswitch.model.store import Outgoing, Suppression
from killswitch.model.tracing import AS_OF, INCIDENT, Incidents, Span, Tracer
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.dead_man.timers import DeadManTimers
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.judged_keys import judged_by
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.observers import (
    CommandsByPolls,
    HasAlerts,
    HoldsPolicies,
    NotifiedOfLastPositions,
    NotifiedOfStop,
    Observer,
    SendsRequests,
    TickReport,
    shortfalls,
)
from killswitch.runner.order_reconciliation import OrderReconciliation
from killswitch.runner.tick_inputs import OwnOrders


class SnapshotRecorder(Protocol):
    """Records snapshots after acting. If it is also `HasAlerts`, it reports missing snapshots."""

    def write(self, snapshot: Snapshot) -> None: ...

    def close(self) -> bool | None:
        """Close the recording; False if not all snapshots could be written."""
        ...


class Observers:
    """Everything that observes a run: it is notified of each tick, and contributes problems and notices to the next."""

    def __init__(
        self,
        observers: tuple[Observer, ...],
        notifier: Notifier,
        isolation: FaultIsolation,
        reconciliation: OrderReconciliation,
        own_orders: OwnOrders,
        traced: tuple[Tracer, Incidents],
        dead_man: DeadManTimers | None,
        recorder: SnapshotRecorder | None,
    ) -> None:
        self.observers = observers
        self.notifier = notifier
        self.isolation = isolation
        self.reconciliation = reconciliation
        self.own_orders = own_orders
        """The fates of our own orders, which the next snapshot contains."""
        self.tracer, self._incidents = traced
        self.dead_man = dead_man
        """The venues' dead-man timers, if the run refreshes any."""
        self.recorder = recorder
        self.observers = (*self.observers, self.notifier)
        self._unrecorded = NO_ALERTS

    def incidents_of(self, decisions: Iterable[Decision]) -> Mapping[str, str]:
        """The incident of each decision of the tick, where it is known."""

        def found() -> Mapping[str, str]:
            return {each.id: incident for each in decisions if (incident := self._incidents.of(each)) is not None}

        return self.isolation.call("the incidents of a tick", found, {})

    def add(self, observer: Observer) -> None:
        """Notify one more observer, the last of all."""
        self.observers = (*self.observers, observer)

    def start(self) -> None:
        """Continue from what an earlier run left in the outbox and at the venues' timers."""
        self.isolation.call("the outbox of notifications", self.notifier.start, None)
        if self.dead_man is not None:
            self.isolation.call("the dead-man timers", self.dead_man.start, None)

    def reload(self, taken: TakenSet) -> None:
        """Pass the next policy set to every observer that holds one."""
        for observer in self.observers:
            if isinstance(observer, HoldsPolicies):
                follow = partial(observer.reload, taken)
                self.isolation.call(f"the policy set of {type(observer).__name__}", follow, None)

    def polled(self, accounts: tuple[AccountSnapshot, ...]) -> None:
        """Let observers store commands that the tick which has polled these accounts is to carry out."""
        for observer in self.observers:
            if isinstance(observer, CommandsByPolls):
                made = partial(observer.polled, accounts)
                self.isolation.call(f"the commands of {type(observer).__name__}", made, None)

    def notify(self, report: TickReport, span: Span) -> None:
        """Notify every observer of the tick; the timers last, as only a tick that has ended is healthy."""
        self.isolation.call("the trace of a tick", lambda: set_tick_attributes(span, report, self._incidents), None)
        self._record(report.snapshot)
        for observer in self.observers:
            self.isolation.call(f"the observer {type(observer).__name__}", partial(observer.ticked, report), None)
        if (timers := self.dead_man) is not None:
            self.isolation.call("refreshing dead-man timers", lambda: timers.refresh(report.snapshot), None)

    def _record(self, snapshot: Snapshot) -> None:
        if self.recorder is None:
            return
        try:
            self.recorder.write(snapshot)
        except Exception as error:  # noqa: BLE001 - a recording must not end a run
            self.recorder = None
            text = f"snapshots are not recorded from {snapshot.as_of:%H:%M:%S} on: {error}"
            self._unrecorded = alert_if("recording/ended", text)

    @property
    def alerts(self) -> Alerts:
        """An alert for each problem of an observer."""
        timers = NO_ALERTS if self.dead_man is None else self.dead_man.alerts
        parts: tuple[object, ...] = (*self.observers, self.recorder)
        behind = (each.alerts for each in parts if isinstance(each, HasAlerts))
        return together((self._unrecorded, timers, self.isolation.alerts, *behind))

    @property
    def judges(self) -> tuple[str, ...]:
        """How the keys begin that the observers of this run judge."""
        return judged_by((*self.observers, self.recorder, self.dead_man, self.isolation))

    @property
    def timers(self) -> tuple[TimerView, ...]:
        """The dead-man timers as `status` shows them."""
        return () if self.dead_man is None else self.dead_man.views

    def findings(self, snapshot: Snapshot) -> Alerts:
        """The findings of order reconciliation."""
        self.isolation.call("orders to be confirmed", partial(self.reconciliation.compare, snapshot), None)
        return self.reconciliation.alerts()

    def notices(self) -> tuple[Notice, ...]:
        """The events of dead-man timers."""
        return (
            ()
            if self.dead_man is None
            else self.isolation.call("notices of dead-man timers", self.dead_man.notices, ())
        )

    def messages(
        self,
        snapshot: Snapshot,
        decisions: Sequence[Decision],
        notices: Sequence[Notice],
        acting: Sequence[Decision],
        before: AlertState,
        paged: frozenset[str] = frozenset(),
        machines: Sequence[MachineStatus] | None = None,
    ) -> tuple[Outgoing, ...]:
        """The notifications of a tick, to be committed with it. `before` and the rest: as in `Notifier.outgoing`.

        A close that has ended in this tick has a message of its own, so the notice of what it left is left out.
        """
        own = {alert.group for alert in shortfalls(self.notifier.newly_ended(snapshot)).found}
        left = [each for each in notices if NoticeGroup(each.policy, each.scope, each.kind, each.subject) not in own]
        outgoing = partial(self.notifier.outgoing, snapshot, decisions, left, acting, before, paged, machines)
        return self.isolation.call("what is to be notified", outgoing, ())

    def routed(self) -> tuple[tuple[Suppression, ...], dict[str, bytes]]:
        """What is to be committed with the messages of the tick: those that are suppressed, and what routing
        remembers."""
        return self.isolation.call("what is not to be notified", self.notifier.to_commit, ((), {}))

    def answers(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """The answers to commands about notifications."""
        return self.isolation.call("acknowledgements", partial(self.notifier.answers, snapshot), ())

    def last_seen(self, accounts: tuple[AccountSnapshot, ...], closings: tuple[Closing, ...]) -> None:
        """Pass on what the passes after the last tick have seen, at a clean stop."""
        for observer in self.observers:
            if isinstance(observer, NotifiedOfLastPositions):
                observer.last_seen(accounts, closings)

    async def stop(self, within: float, problems: tuple[str, ...]) -> tuple[str, ...]:
        """Stop cleanly, in about `within` seconds; a message for each timer that could not be stopped.

        `problems`: those of the run; those of timers are over after the stop.
        """
        left: tuple[str, ...] = ()
        if self.dead_man is not None:
            over = frozenset(self.dead_man.alerts.texts)
            left = await self.dead_man.stop()
            lasting = (*(each for each in problems if each not in over), *left)
            for observer in self.observers:
                if isinstance(observer, NotifiedOfStop):
                    observer.stopped(self.dead_man.views, lasting)
        await self.isolation.call_async("notifications", lambda: self.notifier.drain(within), None)
        return left

    async def abandon(self) -> tuple[str, ...]:
        """Cancel requests under way at the end of any run; a message if the recording is incomplete."""
        if self.dead_man is not None:
            await self.dead_man.abandon()
        for observer in self.observers:
            if isinstance(observer, SendsRequests):
                await observer.abandon()
        await self.notifier.drain(0.0)
        recorder = self.recorder
        if recorder is not None and self.isolation.call("the recording", recorder.close, False) is False:
            return ("the recording ends early: its last snapshots could not be written",)
        return ()


def set_tick_attributes(span: Span, report: TickReport, incidents: Incidents) -> None:
    """Set the outcome of the tick as attributes of its span, with a part for each decision."""
    found = [incidents.of(decision) for decision in report.decisions]
    for decision, incident in zip(report.decisions, found, strict=True):
        with span.span("decision") as part:
            part.set("killswitch.decision", decision.id)
            part.set(INCIDENT, incident)
            part.set("killswitch.policy", decision.policy)
            part.set("killswitch.scope", decision.scope)
            part.set("killswitch.stage", decision.stage)
            part.set("killswitch.stage.level", decision.level)
            part.set("killswitch.decision.acted_on", decision.id in report.acting_on)
    span.set(INCIDENT, " ".join(dict.fromkeys(each for each in found if each is not None)) or None)
    span.set(AS_OF, to_micros(report.snapshot.as_of))
    span.set("killswitch.scheduled", report.snapshot.scheduled)
    span.set("killswitch.streams.silent", sum(stream.state != "heard" for stream in report.runner.streams))
    span.set("killswitch.timers.armed", sum(timer.state == "armed" for timer in report.runner.timers))
    span.set("killswitch.decisions", len(report.decisions))
    span.set("killswitch.acting_on", len(report.acting_on))
    span.set("killswitch.notices", len(report.notices))
    span.set("killswitch.problems", len(report.problems))
