"""The messages of a tick as announcements, and as notifications of the targets that the tree of routes leads to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Final

from msgspec.structs import replace

from killswitch.engine.notice_titles import is_urgent
from killswitch.graph.nodes import Graph, PolicySet, Stage
from killswitch.graph.routing import MessageAttributes
from killswitch.incident.notify.acknowledge_link import link, seals_of
from killswitch.incident.notify.grouping import RepeatedNotice
from killswitch.incident.notify.joining import joined, sent_again
from killswitch.incident.notify.message import (
    Message,
    MessageContext,
    closing_facts,
    closing_message,
    decision_message,
    decode_message,
    drill_message,
    encode_message,
    lock_outlook,
    notice_message,
    repeats_message,
    trigger_texts,
)
from killswitch.incident.notify.page_threads import BEGINS, PageThread, digest, firing_keys, page_of
from killswitch.incident.notify.scope_members import ScopeMembers, members_of, seen_scope
from killswitch.incident.record.checklist import UNKNOWN_START, StartedAs
from killswitch.incident.record.document import Person
from killswitch.incident.record.firing import common_currency
from killswitch.incident.record.first_minute import next_stage_text
from killswitch.incident.record.incident_decisions import Runbooks
from killswitch.incident.record.results import RecordedDecision
from killswitch.incident.record.source_places import ladder_of
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Closing, Instant, Snapshot
from killswitch.model.store import Outgoing
from killswitch.model.words import NotificationEvent, Severity
from killswitch.planning.routing.state import Announcement, Dispatch
from killswitch.planning.routing.tree import leaves, tree_of
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.formats import duration_text


class NotificationRouter:
    """Addresses messages under one policy set."""

    def __init__(self, policies: PolicySet, started: StartedAs = UNKNOWN_START) -> None:
        """`started` is how the run was started, so that the commands of messages are complete."""
        self._started = started
        self.tree = tree_of(policies)
        """The tree of routes; None if nobody is to be notified."""
        self._texts = trigger_texts(policies)
        self._graphs = {graph.policy: graph for graph in policies.graphs}
        self._strategies = policies.strategies
        self._pages_at = None if policies.notification is None else policies.notification.pages_at
        self.runbooks: Runbooks | None = None
        """The runbooks of the policy set; None where the store does not have them."""

    @property
    def has_routes(self) -> bool:
        """Whether the policy set has a route."""
        return self.tree is not None

    def announce_decision(
        self,
        decision: Decision,
        snapshot: Snapshot | None = None,
        *,
        is_enforced: bool,
        corrects: Instant | None = None,
        is_paged: bool = False,
        incident: str | None = None,
        thread: str = "",
        resolves: tuple[str, ...] = (),
        machines: Sequence[MachineStatus] = (),
        notices: Sequence[Notice] = (),
    ) -> Iterator[Announcement]:
        """Yield the messages about a stage that fires, a manual close, a reset or a suspicion.

        `snapshot`, of this tick, has the currencies. `corrects` is since when the stage was reported as not fired.
        `is_paged` says that a page about the same unexplained fall was just sent, so that a suspicion is a warning.
        `incident` is the id of the decision's incident, where it is known; `thread` that of the messages about it;
        `resolves`: the keys of the pages of the incident so far, which a reset to normal ends; `machines` are the
        scopes after the tick, `notices` what else the tick notifies of.
        """
        if decision.is_hold:
            subject = self._subject("notice", "warning", decision, None, lambda stage: True)
        elif decision.is_suspicion:
            subject = self._suspicion_subject(decision, is_paged=is_paged)
        else:
            subject = self._decision_subject("reset" if decision.kind == "reset" else "fired", decision)
        context = MessageContext(
            self._started, self._texts, snapshot, self._book_currency(decision, snapshot), incident,
            self._members(decision, snapshot),
            tuple(outlook(decision, self._graphs.get(decision.policy), self._started)),
            self._ahead(decision, snapshot, machines), self._contacts(decision), _blocked(decision, notices),
        )  # fmt: skip
        message = decision_message(decision, subject, context, is_enforced=is_enforced, corrects=corrects)
        is_end = subject.event == "reset" and decision.level == 0
        message = replace(message, key="" if is_end else message.id, resolves=resolves if is_end else ())
        message = self._with_link(replace(message, thread=thread or decision.id), subject)
        found = self._of_decision(message, subject, decision, is_enforced)
        yield replace(found, page=page_of(message.thread, *resolves, *firing_keys(decision))) if found.lasts else found

    def _with_link(self, message: Message, subject: MessageAttributes) -> Message:
        """The message of a firing with the link to the page that acknowledges it, where there is a server.

        It follows the next command, because services with short texts cut what is below the first lines.
        """
        if self._pages_at is None or not self._started.store or subject.event != "fired" or message.decision is None:
            return message
        found = link(self._pages_at, seals_of(self._started.store), message.decision)
        if found is None:
            return message
        return replace(message, body=_NEXT.sub(lambda line: f"{line[0]}\nack{line[1]} {found}", message.body, count=1))

    def _of_decision(
        self, message: Message, subject: MessageAttributes, decision: Decision, is_enforced: bool
    ) -> Announcement:
        """A firing lasts until its reset. It is urgent where it is acted on, and no drill."""
        is_drill, event = decision.cause == "drill", subject.event
        is_stage, is_firing = decision.kind is None and event == "fired", event == "fired"
        ends = event == "reset" and decision.level == 0
        return Announcement(
            message.id, to_micros(message.at), subject,
            f"{FIRING}{decision.policy}/{decision.scope}" if is_stage or ends else f"decision/{decision.id}",
            encode_message(message), is_urgent=is_firing and is_enforced and not is_drill, lasts=is_stage, ends=ends,
            escalates=is_firing, is_drill=is_drill, decision=decision.id,
        )  # fmt: skip

    def _ahead(self, decision: Decision, snapshot: Snapshot | None, machines: Sequence[MachineStatus]) -> str | None:
        """The stage above the one that fired, with its distance; None of what no stage of a policy decided."""
        graph = self._graphs.get(decision.policy)
        if graph is None or decision.kind is not None:
            return None
        texts = {name: text for (policy, name), text in self._texts.items() if policy == decision.policy}
        mine = (each.triggers for each in machines if (each.policy, each.scope) == (decision.policy, decision.scope))
        equity, currency = seen_scope(decision.scope, self._members(decision, snapshot), snapshot).equity
        return next_stage_text(decision.level, ladder_of(graph), texts, next(mine, ()), equity, currency)

    def _contacts(self, decision: Decision) -> tuple[Person, ...] | None:
        """The contacts of the stage's runbook; of a close by hand, those of every runbook. None: not known."""
        if self.runbooks is None or decision.is_suspicion:
            return None
        if decision.kind == "manual":
            return self._every_contact()
        stage = self.runbooks.get(decision.policy, {}).get(decision.stage or "")
        return () if stage is None else tuple(dict.fromkeys(stage.contacts))

    def announce_closing(
        self,
        closing: Closing,
        decision: Decision,
        at: Instant,
        snapshot: Snapshot | None = None,
        recorded: RecordedDecision | None = None,
        thread: str = "",
        *,
        is_over: bool = False,
    ) -> Iterator[Announcement]:
        """Yield the messages about a close that has ended; none about one under way.

        What is left is real, whatever the close was for: a drill that has left something is a drill no longer.
        `snapshot` has the currencies and positions, `recorded` the results, `thread` is that of the incident.
        `is_over`: whether that was reset before, so that a pager must not open its page again.
        """
        if closing.status not in IN_PROGRESS:
            subject = self._decision_subject("closed" if closing.status == "flat" else "residual", decision)
            currency = None if snapshot is None else common_currency(_accounts_at_work(decision, snapshot))
            context = MessageContext(
                self._started, self._texts, snapshot, currency, members=self._members(decision, snapshot)
            )
            message = closing_message(closing, decision, subject, context, at=at, recorded=recorded)
            is_left = subject.event == "residual"
            yield Announcement(
                message.id, to_micros(message.at), subject, f"closing/{decision.id}",
                encode_message(replace(_keyed(message, decision, is_over=is_over), thread=thread or decision.id)),
                is_urgent=is_left, escalates=is_left, is_drill=decision.cause == "drill" and not is_left,
                decision=decision.id,
            )  # fmt: skip

    def announce_notice(
        self,
        notice: Notice,
        snapshot: Snapshot | None = None,
        place: PageThread | None = None,
        cause: str | None = None,
    ) -> Iterator[Announcement]:
        """Yield the messages about a notice of severity warning or page; `snapshot` has what an account holds.

        `place`: its incident and its key. `cause`: what was found to be its cause, which is paged already.
        """
        if notice.severity != "info":
            subject = self._notice_subject(notice)
            facts = self._closing_facts(notice, snapshot)
            facts = facts if cause is None else (f"cause: {cause}", *facts)
            message = notice_message(notice, subject, self._started, facts, place)
            earlier = () if place is None else place.earlier
            graph = self._graphs.get(notice.policy)
            yield Announcement(
                message.id, to_micros(message.at), subject, f"{BEGINS}{notice.alert}" if notice.alert else message.id,
                encode_message(message), is_urgent=is_urgent(notice) and (graph is None or graph.mode == "enforce"),
                lasts=bool(notice.alert) and not notice.is_over, ends=notice.is_over,
                page=page_of(message.thread, *earlier, message.key) if notice.alert and message.key else (),
            )  # fmt: skip

    def _closing_facts(self, notice: Notice, snapshot: Snapshot | None) -> tuple[str, ...]:
        """What the account of a close holds and whom to call; nothing of any other notice."""
        account = notice.closing_on
        return closing_facts(account, snapshot, self._every_contact()) if account and snapshot is not None else ()

    def _every_contact(self) -> tuple[Person, ...] | None:
        """The contacts of every runbook; None where they are not known."""
        if self.runbooks is None:
            return None
        facts = (each for stages in self.runbooks.values() for each in stages.values())
        return tuple(dict.fromkeys(person for each in facts for person in each.contacts))

    def announce_repeats(self, repeats: RepeatedNotice) -> Iterator[Announcement]:
        """Yield the messages about notices that have repeated since the last message."""
        subject = self._notice_subject(repeats.newest)
        message = repeats_message(repeats, subject, self._started)
        yield Announcement(message.id, to_micros(message.at), subject, message.id, encode_message(message))

    def _book_currency(self, decision: Decision, snapshot: Snapshot | None) -> str | None:
        """Return the currency of the decision's book: the policy's reference currency, or that of all its accounts."""
        graph = self._graphs.get(decision.policy)
        if graph is not None and graph.equity.reference is not None:
            return graph.equity.reference.currency
        seen = seen_scope(decision.scope, self._members(decision, snapshot), snapshot)
        return common_currency(seen.accounts or ())

    def _members(self, decision: Decision, snapshot: Snapshot | None) -> ScopeMembers | None:
        return members_of(decision, snapshot, self._graphs.values(), self._strategies)

    def _notice_subject(self, notice: Notice) -> MessageAttributes:
        return self._subject("notice", notice.severity, notice, None, lambda stage: True)

    def _suspicion_subject(self, decision: Decision, *, is_paged: bool) -> MessageAttributes:
        """Return the subject of a suspicion: the receivers of its stage, as a notice, because nothing has fired."""
        graph = self._graphs.get(decision.policy)
        level = next((each.level for each in graph.stages if each.name == decision.stage), None) if graph else None
        severity: Severity = "info" if decision.is_withdrawal else "warning" if is_paged else "page"
        return self._subject("notice", severity, decision, level, lambda stage: stage.name == decision.stage)

    def _decision_subject(self, event: NotificationEvent, decision: Decision) -> MessageAttributes:
        """Return the subject of a decision. A reset, and the end of a close, reach the receivers of the firing."""
        level = decision.previous_level if event == "reset" else decision.level
        of_level = event == "reset" or decision.stage is None
        return self._subject(
            event,
            "page" if event in ("fired", "residual") else "info",
            decision,
            None if decision.kind == "manual" else level,
            lambda stage: stage.level == level if of_level else stage.name == decision.stage,
        )

    def _subject(
        self,
        event: NotificationEvent,
        severity: Severity,
        about: Decision | Notice,
        level: int | None,
        chosen: Callable[[Stage], bool],
    ) -> MessageAttributes:
        """Return what routes match, with the receivers that the `chosen` stages name and the labels of the policy."""
        graph = self._graphs.get(about.policy)
        named = [name for each in graph.stages if chosen(each) for name in each.notify] if graph else []
        labels = graph.labels if graph else ()
        return MessageAttributes(event, severity, about.policy, about.scope, level, tuple(dict.fromkeys(named)), labels)

    def route_decision(self, decision: Decision, snapshot: Snapshot | None = None, **more: Any) -> Iterator[Outgoing]:
        """Yield the notifications of a decision at once; `more`: as of `announce_decision`."""
        yield from self.addressed(self.announce_decision(decision, snapshot, **more))

    def route_closing(
        self, closing: Closing, decision: Decision, at: Instant, *more: Any, **named: Any
    ) -> Iterator[Outgoing]:
        """Yield the notifications of a close that has ended at once; `more`: as of `announce_closing`."""
        yield from self.addressed(self.announce_closing(closing, decision, at, *more, **named))

    def route_notice(self, notice: Notice) -> Iterator[Outgoing]:
        """Yield the notifications of a notice at once."""
        yield from self.addressed(self.announce_notice(notice))

    def addressed(self, announcements: Iterable[Announcement]) -> Iterator[Outgoing]:
        """Yield each as a message of its own to each target of the routes that take it.

        Nothing is held, and nothing was sent before; the root of a set without a tree is left out.
        """
        tree = self.tree
        for item in announcements:
            nodes = () if tree is None else leaves(tree, item.attributes, is_urgent=item.is_urgent)
            dispatches = tuple(Dispatch(node.receiver, node.path, (item,)) for node in nodes if not node.only_urgent)
            yield from self.outgoing(dispatches, item.at)

    def outgoing(self, dispatches: Sequence[Dispatch], now: int) -> tuple[Outgoing, ...]:
        """The notifications of dispatches, one for each target: urgent announcements of one tick are one message.

        A target gets an announcement once, whatever number of receivers lead there.
        """
        tree = self.tree
        if tree is None:
            return ()
        urgent: dict[str, list[tuple[Announcement, Dispatch]]] = {}
        others: dict[tuple[str, str, tuple[str, ...]], Dispatch] = {}
        for dispatch in dispatches:
            is_urgent = dispatch.purpose == "first" and all(item.is_urgent for item in dispatch.announcements)
            for target in tree.targets(dispatch.receiver):
                if is_urgent:
                    urgent.setdefault(target.key, []).extend((item, dispatch) for item in dispatch.announcements)
                else:
                    ids = tuple(item.id for item in dispatch.announcements)
                    others.setdefault((target.key, dispatch.purpose, ids), dispatch)
        found = []
        reached = {key: {item.id for item, _ in items} for key, items in urgent.items()}
        for key, items in urgent.items():
            by_id = {item.id: (item, dispatch) for item, dispatch in reversed(items)}
            once = [by_id[id_][0] for id_ in dict.fromkeys(item.id for item, _ in items)]
            found.append(self._message(key, once, items[0][1], now, hops=self._hops(key, items, reached)))
        found += [self._message(key, each.announcements, each, now) for (key, _, _), each in others.items()]
        return tuple(found)

    def _hops(
        self, key: str, items: Sequence[tuple[Announcement, Dispatch]], reached: Mapping[str, Collection[str]]
    ) -> tuple[tuple[str, ...], ...]:
        """The fallbacks of a target, of all receivers that led there, but those that get the whole message anyway.

        `reached`: the ids of the announcements that each target gets at once.
        """
        assert self.tree is not None
        ids = {item.id for item, _ in items}
        receivers = dict.fromkeys(dispatch.receiver for _, dispatch in items)
        groups = zip_longest(*(self.tree.hops(receiver) for receiver in receivers), fillvalue=())
        used = {key, *(target for target, those in reached.items() if ids.issubset(those))}
        left: list[tuple[str, ...]] = []
        for group in groups:
            hop = tuple(dict.fromkeys(each.key for hop in group for each in hop if each.key not in used))
            used.update(hop)
            left += [hop] if hop else []
        return tuple(left)

    def _message(
        self, key: str, items: Sequence[Announcement], dispatch: Dispatch, now: int,
        hops: tuple[tuple[str, ...], ...] = (),
    ) -> Outgoing:  # fmt: skip
        purpose = dispatch.purpose
        is_again = purpose in ("repeat", "reminder", "escalation")
        own = [replace(decode_message(item.content), id=digest(item.id, key)) for item in items]
        if is_again:
            # Of its time and not of the attempt: a run that goes on after a crash has the same id.
            own = [sent_again(each, purpose, digest(purpose, each.id, str(now))) for each in own]
        message = joined(own, digest("joined", *(each.id for each in own)))
        message = drill_message(message) if self._started.is_drill else message
        only = items[0] if len(items) == 1 else None
        is_begin = only is not None and only.lasts and not is_again
        return Outgoing(
            message.id, now if is_again else to_micros(message.at), dispatch.node.rpartition("/")[2], key,
            encode_message(message), only.alert if only is not None and (is_begin or only.ends) else "",
            only is not None and only.ends, hops, to_micros(message.at) + HOP_AFTER if hops else 0,
        )  # fmt: skip


def _keyed(message: Message, decision: Decision, *, is_over: bool) -> Message:
    """The end of a close with its key: what it left rings by itself, and that all is closed is news of the firing."""
    if message.event == "residual":
        return replace(message, key=message.id)
    fired = firing_keys(decision)[0]
    return replace(message, resolves=(fired,)) if is_over else replace(message, key=fired)


_NEXT: Final = re.compile(r"^next( +)\S.*$", re.MULTILINE)
FIRING: Final = "firing/"
"""How the alert of a stage that fired begins; it ends with the reset."""
HOP_AFTER: Final = 10 * SECOND
"""How long a target has to accept an urgent message before the next hop gets it too (microseconds)."""


def _blocked(decision: Decision, notices: Sequence[Notice]) -> tuple[str, ...]:
    """Why positions of the decision's scope cannot be reduced now; dust pages nobody and is left out."""
    place = (decision.policy, decision.scope)
    mine = (it for it in notices if (it.policy, it.scope) == place and it.kind == "blocked" and it.severity == "page")
    return tuple(dict.fromkeys(it.text for it in mine if not it.is_over))


def _accounts_at_work(decision: Decision, snapshot: Snapshot) -> list[AccountSnapshot]:
    return [each for each in snapshot.accounts if each.account in decision.accounts_at_work]


def outlook(decision: Decision, graph: Graph | None, started: StartedAs) -> Iterator[str]:
    """Yield how the scope returns to normal; of a close without a stage, how its lock ends."""
    if decision.kind == "manual":
        yield from lock_outlook(decision, started)
    stages = () if graph is None or decision.kind is not None else graph.stages
    own = next((each for each in stages if each.name == decision.stage), None)
    if graph is None or own is None:
        return
    if own.reset is None:
        command = started.lifting("reset", decision.scope)
        when = "once the cause is known, which accepts the loss; a blank reason is refused"
        yield f"it stays latched until a person resets it, {when}: {command}"
    else:
        held = duration_text(timedelta(microseconds=own.reset.hold))
        yield f"it resets by itself once its condition has held for {held}"
