"""Notifications of a run: messages enter the outbox with the tick, and are delivered concurrently."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.engine.alerts import AlertState
from killswitch.graph.nodes import PolicySet
from killswitch.graph.routing import RouteTarget, receivers_of
from killswitch.incident.notify.delivery import KEPT_FOR, NotificationSender, TargetDelivery
from killswitch.incident.notify.fallback import Fallbacks
from killswitch.incident.notify.grouping import GROUP_INTERVAL, NoticeGroups
from killswitch.incident.notify.message import LONGEST_LINE
from killswitch.incident.notify.page_threads import (
    BEGINS,
    MOST_KEYS,
    SentPages,
    account_of,
    digest,
    firing_keys,
    incident_on,
    place_of,
)
from killswitch.incident.notify.routing import FIRING, NotificationRouter
from killswitch.incident.record.checklist import UNKNOWN_START, StartedAs
from killswitch.incident.record.incident_decisions import group_decisions, stored_runbooks
from killswitch.incident.record.results import read_decision
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import HOUR, from_micros, to_micros
from killswitch.model.legible import shortened
from killswitch.model.snapshot import IN_PROGRESS, Closing, Event, Instant, Snapshot
from killswitch.model.store import ROUTING, Outgoing, Store, Suppression
from killswitch.model.tracing import NO_TRACER, Tracer
from killswitch.planning.routing.escalation import acknowledged
from killswitch.planning.routing.holding import Times, rule_text, silence_of
from killswitch.planning.routing.state import (
    Acknowledgement,
    Announcement,
    Dispatch,
    RoutingState,
    encode_routing,
    read_routing,
    renamed_routing,
    without_ended,
)
from killswitch.planning.routing.step import route
from killswitch.planning.routing.tree import leaves
from killswitch.render.formats import count_of, instant
from killswitch.runner.clock import Timeline
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.notify.target_check import sender, unusable_targets
from killswitch.runner.observers import TickReport
from killswitch.worker import Worker

if TYPE_CHECKING:
    from killswitch.planning.scopes.trigger_status import MachineStatus
    from killswitch.telemetry.metrics import NotificationCounts

KEPT_WITHOUT_ROUTE = 24 * HOUR
"""How long messages to a target without a route wait for the route to return."""
SEARCHED_DECISIONS = 20
"""Number of the newest decisions that are searched for the beginning of an incident."""
RECALLED = 1_000
"""Number of the newest notices from which a start restores groups."""


class Notifier:
    """The notifications of one run: an observer that delivers after acting, and reports delivery problems."""

    def __init__(
        self,
        policies: PolicySet,
        store: Store,
        clock: Clock,
        started: StartedAs = UNKNOWN_START,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """`started` is how the run was started: messages have complete commands. `tracer`: for attempts to deliver."""
        self._started = started
        self._tracer = tracer
        self._router = NotificationRouter(policies, started)
        self._routing = RoutingState()
        self._stored_routing = self._routing
        self._pages = SentPages(self._routing)
        """What was sent before the tick that is notified of."""
        self._suppressed: tuple[Suppression, ...] = ()
        self._defect: str | None = None
        """Why the last messages went to their leaves without groups, holds and escalation; None if they did not."""
        self._groups = NoticeGroups()
        self._store = store
        self._ended: dict[str, str] = {}
        self._fresh = True
        """Whether the outbox may have messages that no delivery thread knows of, such as those of an earlier run."""
        self._clock = clock
        self._stranded: dict[str, str] = {}
        self._unusable: dict[str, str] = {}
        """Target → why it was unusable when the run began."""
        self._policies = policies
        # Read before the ticks: a firing must not wait for the store to find the incident that it belongs to.
        newest_first = store.decisions(SEARCHED_DECISIONS) if self._router.has_routes else ()
        self._recent = deque((each.decision for each in reversed(newest_first)), SEARCHED_DECISIONS)
        """The newest decisions, oldest first."""
        self._sender = NotificationSender(
            {target.key: self._delivery(target, give_up_after) for target, give_up_after in _targets(policies)}
        )
        self._fallbacks = Fallbacks(store, clock, self._sender.wake)
        self._fallback_worker = Worker("notify fallbacks", self._fallbacks.step)

    def reload(self, taken: TakenSet) -> None:
        """Address messages by the routes of the next set. A target that it no longer names delivers what waits."""
        self._policies = taken.loaded.policies
        self._router = NotificationRouter(self._policies, self._started)
        self._router.runbooks = stored_runbooks(self._store, self._policies.digest)
        self._groups.rename(taken.change.renamed)
        self._routing = renamed_routing(self._routing, taken.change.renamed)
        for target, give_up_after in _targets(self._policies):
            if target.key not in self._sender.deliveries:
                self._sender.add(self._delivery(target, give_up_after))
                self._stranded.pop(target.key, None)
        self._fresh = True

    def _delivery(self, target: RouteTarget, give_up_after: int) -> TargetDelivery:
        return TargetDelivery(target.key, sender(target), self._store, self._clock, give_up_after, self._tracer)

    def outgoing(
        self,
        snapshot: Snapshot,
        decisions: Sequence[Decision],
        notices: Sequence[Notice],
        acting: Sequence[Decision],
        before: AlertState,
        paged: frozenset[str] = frozenset(),
        machines: Sequence[MachineStatus] | None = None,
    ) -> tuple[Outgoing, ...]:
        """The messages of a tick, to be committed with it; none if the policy set has no route.

        `before`: the alerts before the tick. `paged`: the ids of the suspicions whose falls a page was about.
        `machines`: the scopes after the tick; None if they are not known.
        """
        if not self._router.has_routes:
            return ()
        acted = {decision.id for decision in acting}
        self._pages = SentPages(self._routing)
        found: list[Announcement] = []
        for decision in decisions:
            if decision.kind == "breach":
                continue  # the page of the breach says what its stage does about it
            found += self._router.announce_decision(
                decision, snapshot, is_enforced=decision.id in acted, corrects=_corrected(decision, before),
                is_paged=decision.id in paged, incident=self._incident_of(decision), thread=self._thread(decision),
                resolves=self._keys_of_incident(decision), machines=machines or (), notices=notices,
            )  # fmt: skip
        found += self._of_closings(snapshot)
        for repeats in self._groups.due(snapshot.as_of):
            found += self._router.announce_repeats(repeats)
        found += self._of_notices(notices, snapshot, before)
        self._forget_firings(machines)
        messages = self._routed(found, snapshot, before)
        self._suppressed += tuple(self._parts_of_others(notices))
        self._fresh |= bool(messages)
        return messages

    def _of_notices(self, notices: Sequence[Notice], snapshot: Snapshot, before: AlertState) -> Iterator[Announcement]:
        """The messages about notices that are sent at once."""
        unread = {each.account for each in snapshot.accounts if each.quality != "ok"}
        over = {f"{BEGINS}{notice.alert}" for notice in notices if notice.is_over}
        texts = {notice.alert: notice.text for notice in notices}
        for notice in notices:
            if self._groups.is_sent_at_once(notice) and notice.severity != "info":
                incident = incident_on(account_of(notice), snapshot, self._close_of) if account_of(notice) else ""
                place = place_of(notice, incident, unread, self._pages, over)
                yield from self._router.announce_notice(notice, snapshot, place, _cause(notice, texts, before))

    def _parts_of_others(self, notices: Iterable[Notice]) -> Iterator[Suppression]:
        """What was sent to nobody because it follows from another alert, which was."""
        for notice in notices:
            if notice.part_of and notice.severity == "info":
                id_ = digest("part", str(to_micros(notice.as_of)), notice.part_of, notice.text)
                why = f"a part of {notice.part_of}: {shortened(notice.text, LONGEST_LINE)}"
                about = f"{BEGINS}{notice.alert}" if notice.alert else notice.title
                yield Suppression(to_micros(notice.as_of), about, id_, "", "", "inhibited", why)

    def _close_of(self, decision: str) -> tuple[str, frozenset[str]] | None:
        """The incident of a decision, and the accounts on which it closes."""
        found = next((each for each in self._recent if each.id == decision), None)
        stored = self._store.decision(decision) if found is None else None
        found = stored.decision if stored is not None else found
        return None if found is None else (self._thread(found), frozenset(found.accounts_at_work))

    def _keys_of_incident(self, decision: Decision) -> tuple[str, ...]:
        """The keys of the pages of an incident before the decision that goes on with it or ends it, those of firings
        first: also where it began long ago or under another name of its policy."""
        sent = self._pages.of(_firing(decision))[1:] if _continues(decision) else ()
        ended = (each.decisions for each in reversed(group_decisions(self._recent)) if each.reset is decision)
        keys = [firing_keys(each) for each in next(ended, ())]
        found = (*(fired for fired, *_ in keys), *sent, *(key for _, *left in keys for key in left))
        return tuple(dict.fromkeys(found))[:MOST_KEYS]

    def _forget_firings(self, machines: Sequence[MachineStatus] | None) -> None:
        """Forget real firings that no scope has in force: of a stage that does not latch, or of a policy that is gone,
        whose end nobody is notified of. They would end every drill for ever."""
        if machines is not None and self._routing.real:
            in_force = {f"{FIRING}{each.policy}/{each.scope}" for each in machines if each.level}
            real = tuple(each for each in self._routing.real if each in in_force)
            self._routing = replace(self._routing, real=real)

    def _routed(self, found: Sequence[Announcement], snapshot: Snapshot, before: AlertState) -> tuple[Outgoing, ...]:
        """The notifications of the announcements of a tick, and of what is due by then."""
        tree, now = self._router.tree, to_micros(snapshot.as_of)
        assert tree is not None
        active = {f"{BEGINS}{key}" for key, known in before.known.items() if known.is_active}
        active |= {item.alert for item in found}
        state = without_ended(self._routing, lambda alert: not alert.startswith(BEGINS) or alert in active)
        ended = {id_ for event in snapshot.events for id_ in _ended_silences(event)}
        given_silences = (silence for event in snapshot.events if (silence := silence_of(event)) is not None)
        kept = (each for each in (*state.commanded, *given_silences) if each.name not in ended)
        state = replace(state, commanded=tuple(kept))
        given = [self._acknowledgement(each) for each in snapshot.events if each.kind == "acknowledge"]
        try:
            routed = route(tree, state, found, Times(now, to_micros(self._wall())), given)
        except Exception as error:  # noqa: BLE001 - a defect in what holds messages must not lose one that is urgent
            self._defect = f"{type(error).__name__}: {error}"
            leaf = [(item, node) for item in found for node in leaves(tree, item.attributes, is_urgent=item.is_urgent)]
            unheld = [Dispatch(node.receiver, node.path, (item,)) for item, node in leaf]
            return self._router.outgoing(unheld, now)
        self._defect = None
        self._routing = routed.state
        self._suppressed = tuple(
            Suppression(each.at, each.alert, each.message, each.node, each.receiver, each.why, each.by)
            for each in routed.suppressed
        )
        return self._router.outgoing(routed.dispatches, now)

    def _wall(self) -> datetime:
        """The civil time; that of the run where its clock has no other."""
        return self._clock.wall() if isinstance(self._clock, Timeline) else self._clock.now()

    def to_commit(self) -> tuple[tuple[Suppression, ...], dict[str, bytes]]:
        """What the last `outgoing` has left to be committed with its messages: suppressed ones, and the state."""
        suppressed, self._suppressed = self._suppressed, ()
        if self._routing == self._stored_routing:
            return suppressed, {}
        self._stored_routing = self._routing
        return suppressed, {ROUTING: encode_routing(self._routing)}

    def answers(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """The answers to acknowledgements and silences of a tick, before they are applied."""
        found: list[Notice] = []
        for event in snapshot.events:
            if event.kind == "acknowledge":
                given = self._acknowledgement(event)
                after = acknowledged(self._routing.pages, given)
                pages = zip(after, self._routing.pages, strict=True)
                count = len({one.number for one, other in pages if one is not other})
                text = f"{count_of(count, 'firing')} acknowledged by {given.by}: no longer escalated, still reminded of"
            elif event.kind == "silence" and event.until is not None:
                silence = silence_of(event)
                what = "" if silence is None else f" ({rule_text(silence.rule)})"
                text = f"messages are silenced{what} until {instant(event.until)} by {event.author}: {event.reason}"
            elif ended := _ended_silences(event):
                text = self._end_text(event, ended)
            else:
                continue
            found.append(Notice(snapshot.as_of, "runner", "runner", "warning", "info", text, event.id))
        return tuple(found)

    def _end_text(self, event: Event, ended: Sequence[str]) -> str:
        """The answer to a command that ends silences; one of a document ends with an edit of it."""
        mine = {each.name: each for each in self._routing.commanded}
        found = [f"{id_} of {mine[id_].author}" for id_ in ended if id_ in mine]
        others = [id_ for id_ in ended if id_ not in mine]
        done = f"ended by {event.author}: silence {' and '.join(found)} ({event.reason})" if found else "nothing ended"
        return done if not others else f"{done}; no silence by command is called {' or '.join(others)}"

    def _acknowledgement(self, event: Event) -> Acknowledgement:
        """Covers the firings of the incident that the event names, up to its number."""
        about: set[str] = set()
        if event.decision is not None:
            about.add(event.decision)
            for incident in group_decisions(self._recent):
                ids = {each.id for each in incident.decisions}
                about |= ids if event.decision in ids else set()
        return Acknowledgement(event.author or "unknown", to_micros(event.at), event.number or 0, frozenset(about))

    def _incident_of(self, decision: Decision) -> str | None:
        """The id of the incident of a new decision; None without one, and where it began too long ago."""
        self._recent.append(decision)
        if decision.kind in ("reset", "suspicion"):
            return None
        for incident in reversed(group_decisions(self._recent)):
            if any(each is decision for each in incident.decisions):
                begins = incident.decisions[0]
                return begins.id if begins.kind == "manual" or begins.previous_level == 0 else None
        return None  # a lock by hand

    def _thread(self, decision: Decision) -> str:
        """The id of the incident that the decision began, continued or ended; its own where that is not known."""
        for found in reversed(group_decisions(self._recent)):
            about = (*found.decisions, *found.suspicions, *((found.reset,) if found.reset is not None else ()))
            if any(each.id == decision.id for each in about):
                return self._begun(decision) or found.id
        return self._begun(decision) or decision.id

    def _begun(self, decision: Decision) -> str:
        """The thread of the pages of the incident that the decision goes on with or ends; empty if none was sent."""
        return next(iter(self._pages.of(_firing(decision))), "") if _continues(decision) else ""

    def ticked(self, _report: TickReport) -> None:
        """Wake the delivery of committed messages."""
        if self._fresh:
            self._sender.wake()
            self._fallback_worker.wake()
            self._fresh = False

    @property
    def alerts(self) -> Alerts:
        """A page for each target that does not work; unknown while nothing was sent to it."""
        found = [alert_if(f"notifications/stranded/{target}", text) for target, text in self._stranded.items()]
        count, trouble = self._fallbacks.unreached, self._fallbacks.trouble
        text = f"{count_of(count, 'urgent message')} reached nobody in time: no target and no fallback accepts them"
        found.append(alert_if("notifications/unreached", text if count else trouble))
        text = f"messages are sent without groups, silences and escalation: {self._defect}"
        found.append(alert_if("notifications/routing", None if self._defect is None else text))
        for target, delivery in self._sender.deliveries.items():
            key, fault, why = f"notifications/target/{target}", delivery.fault, self._unusable.get(target)
            if fault is not None:
                kind, text = fault  # the others are not known while it lasts
                unknown = (key, f"notifications/unusable/{target}")
                found.append(Alerts(alert_if(f"{key}/{kind}", text).found, unknown))
            elif not delivery.counts.delivered:
                found.append(Alerts(unknown=(key,)))
                text = f"notifications to {target} will fail: {why}"
                found.append(alert_if(f"notifications/unusable/{target}", None if why is None else text))
        return together(found)

    def start(self) -> None:
        """Remove old messages, and find those whose target no route names any more."""
        now = to_micros(self._clock.now())
        self._unusable = {target.key: why for target, why in unusable_targets(self._policies).items()}
        if self._router.has_routes:
            self._router.runbooks = stored_runbooks(self._store, self._policies.digest)
            self._store.forget(now - KEPT_FOR)
            self._recall_groups()
            self._routing = self._stored_routing = read_routing(self._store.live(ROUTING))
        waiting = dict.fromkeys(count.target for count in self._store.outbox() if count.pending)
        stranded = [target for target in waiting if target not in self._sender.deliveries]
        self._stranded = {target: self._strand(target, now) for target in stranded}

    def _recall_groups(self) -> None:
        """Restore the groups of an earlier run, so that nothing is lost or sent twice."""
        since = self._clock.now() - 2 * GROUP_INTERVAL
        self._groups.restore(notice for notice in self._store.notices(RECALLED) if notice.as_of >= since)

    def _strand(self, target: str, now: int) -> str:
        """Drop messages that waited too long for a route; a message about the rest."""
        why = "no route names this target any more"
        dropped = self._store.give_up(target, now - KEPT_WITHOUT_ROUTE, now, why)
        left = self._store.waiting(target).pending
        parts = [f"{left} wait"] if left else []
        parts += [f"{dropped} were dropped"] if dropped else []
        return f"of the notifications to {target} {' and '.join(parts)}, because {why}; `ksctl status` counts them"

    async def drain(self, within: float) -> None:
        """Send what can be sent at once, for at most `within` seconds; other messages wait in the outbox."""
        self._fallback_worker.begin_stop()
        # In a thread of its own: threads of a pool may all hang in name look-ups.
        threads, loop = DaemonThreadExecutor("notifications"), asyncio.get_running_loop()
        try:
            await loop.run_in_executor(threads, self._sender.drain, within)
        except NoThreadError:
            self._sender.drain(0.0)

    def counts(self) -> NotificationCounts | None:
        """Messages pending in all, and those that this run delivered and gave up, by target; None without a route."""
        if not self._router.has_routes:
            return None
        from killswitch.telemetry.metrics import NotificationCounts

        counts = {target: delivery.counts for target, delivery in self._sender.deliveries.items()}
        return NotificationCounts(
            sum(each.pending for each in counts.values()),
            {target: each.delivered for target, each in counts.items()},
            {target: each.given_up for target, each in counts.items()},
            {target: each.in_time for target, each in counts.items()},
        )

    def newly_ended(self, snapshot: Snapshot) -> tuple[Closing, ...]:
        """The closings whose status no message of this run was about yet, until `outgoing` makes their messages."""
        return tuple(each for each in snapshot.closings if self._ended.get(each.decision) != each.status)

    def _of_closings(self, snapshot: Snapshot) -> Iterator[Announcement]:
        """A message for each closing that ended; the outbox keeps a restart from repeating it."""
        for closing in self.newly_ended(snapshot):
            stored = self._store.decision(closing.decision)
            if stored is not None and (stored.decision.kind != "breach" or closing.status != "flat"):
                # the alert of a breach, or of the fight, says that an answer was closed
                ended = read_decision(self._store, stored.decision) if closing.status not in IN_PROGRESS else None
                thread = self._thread(stored.decision)
                yield from self._router.announce_closing(
                    closing, stored.decision, snapshot.as_of, snapshot, ended, thread
                )
        self._ended = {closing.decision: closing.status for closing in snapshot.closings}


def _ended_silences(event: Event) -> tuple[str, ...]:
    """The silences that a command ends before their time."""
    return event.ids or () if event.kind == "silence" and event.until is None else ()


def _firing(decision: Decision) -> str:
    return f"{FIRING}{decision.policy}/{decision.scope}"


def _continues(decision: Decision) -> bool:
    """Whether its scope was above normal before: what was sent of it is of the same incident."""
    return decision.kind in (None, "reset") and decision.previous_level > 0


def _corrected(decision: Decision, before: AlertState) -> Instant | None:
    """Since when it was reported that the stage of the decision did not fire; None if that was not wrong."""
    known = before.known.get(f"uncorroborated/{decision.policy}/{decision.scope}/{decision.stage}")
    is_corrected = decision.kind is None and known is not None and known.is_active
    return from_micros(known.since) if known is not None and is_corrected else None


def _cause(notice: Notice, texts: Mapping[str, str], before: AlertState) -> str | None:
    """What the alert says of which an urgent notice is a part: as notified in this tick (`texts`: key of an alert →
    text), or as it was before."""
    if not notice.part_of:
        return None
    known = before.known.get(notice.part_of)
    return texts.get(notice.part_of) or (None if known is None else known.alert.full_text)


def _targets(policies: PolicySet) -> Iterator[tuple[RouteTarget, int]]:
    """Every target once, with the longest `give_up_after` of its routes."""
    give_up_after: dict[RouteTarget, int] = {}
    for _, receiver in receivers_of(policies.routes, policies.notification):
        for target in receiver.targets:
            give_up_after[target] = max(receiver.give_up_after, give_up_after.get(target, 0))
    yield from give_up_after.items()
