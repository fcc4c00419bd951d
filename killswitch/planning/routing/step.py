"""One step of routing: from the announcements of a tick to what each receiver is sent now, and what is held and why.

**Urgent announcements take their leaf of the tree, and nothing else of it**: no wait, interval, repeat, mute time,
silence or inhibition is looked at. For the others, in this order: the leaf, its group and its times, then what holds
them when they are due. What is held and still active is sent once nothing holds it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from killswitch.graph.routing import label_of
from killswitch.planning.routing import escalation
from killswitch.planning.routing.holding import HoldReason, Times, hold_of, is_source, running_silences
from killswitch.planning.routing.state import (
    GRAVITY,
    Acknowledgement,
    Announcement,
    Dispatch,
    HeldAlert,
    MessageGroup,
    Purpose,
    Routed,
    RoutingState,
    SentAlert,
    Suppressed,
    Why,
)
from killswitch.planning.routing.tree import RouteNode, RoutingTree, leaves, nodes_of

SEPARATOR = "\x1f"


def route(
    tree: RoutingTree,
    state: RoutingState,
    announcements: Sequence[Announcement],
    times: Times,
    acknowledgements: Iterable[Acknowledgement] = (),
) -> Routed:
    """What is sent at `times` of these announcements and of what is due by then, and the state after it.

    Acknowledgements count before escalations. Urgent announcements are first, and sources before what they inhibit.
    """
    step = _Step(tree, state, times)
    for given in acknowledgements:
        step.pages = escalation.acknowledged(step.pages, given)
    ordered = sorted(
        announcements, key=lambda item: (not item.is_urgent, not is_source(item.attributes, tree.inhibitions))
    )
    if any(item.is_urgent for item in ordered):
        step.end_drills()
    for item in ordered:
        step.take(item)
    step.release()
    step.flush()
    step.repeat()
    step.escalate()
    step.remind()
    return step.outcome()


class _Step:
    """The state while one step changes it."""

    def __init__(self, tree: RoutingTree, state: RoutingState, times: Times) -> None:
        self.tree = tree
        self.times = times
        self.number = state.number
        self.sent = {receiver: dict(alerts) for receiver, alerts in state.sent.items()}
        self.held = {receiver: dict(alerts) for receiver, alerts in state.held.items()}
        self.groups = dict(state.groups)
        self.pages = state.pages
        self.real = set(state.real)
        self.commanded = tuple(each for each in state.commanded if times.civil < each.end)
        self.silences = running_silences(tree.silences, self.commanded, state.silences, times)
        self.dispatches: list[Dispatch] = []
        self.suppressed: list[Suppressed] = []
        self._urgent: dict[tuple[str, str], list[Announcement]] = {}
        self._clear: dict[tuple[str, str], list[Announcement]] = {}
        self._nodes = {node.path: node for node in nodes_of(tree.root)}
        self._groups_of: dict[str, set[str]] = {}
        """Alert → the groups that have something of it."""
        for key, group in self.groups.items():
            for alert in (*group.members, *(item.alert for item in group.pending)):
                self._groups_of.setdefault(alert, set()).add(key)

    # Announcements

    def take(self, item: Announcement) -> None:
        """Route one announcement to its leaves, or to whoever had what it ends."""
        if item.is_drill and self.real:
            self._suppress(item, "", "", HoldReason("drill_ended", sorted(self.real)[0]))
        elif item.ends and self._end(item):
            return
        elif not (nodes := leaves(self.tree, item.attributes, is_urgent=item.is_urgent)):
            self._suppress(item, self.tree.root.path, "", HoldReason("no_route", "no route takes it"))
        else:
            self.number += item.is_urgent
            if item.is_urgent and item.lasts and not item.is_drill:
                self.real.add(item.alert)
            for node in nodes:
                if item.is_urgent:
                    self._send_urgent(item, node)
                else:
                    self._enter(item, node)

    def _send_urgent(self, item: Announcement, node: RouteNode) -> None:
        self._urgent.setdefault((node.receiver, node.path), []).append(item)
        self._forget_waiting(item.alert, node.receiver)
        self._was_sent(item, node.path, node.receiver)
        page = escalation.opened(item, node, self.number, self.times.now)
        if page is not None:
            self.pages = escalation.bounded((*self.pages, page))

    def _was_sent(self, item: Announcement, node: str, receiver: str) -> None:
        if item.lasts:
            known = self._nodes.get(node)
            reminds = item.escalates and known is not None and known.remind is not None
            # The text is only kept where a reminder repeats it: the state is written with every tick that changes it.
            kept = item if reminds else replace(item, content=b"")
            reminded = self.times.now if reminds else None
            self.sent.setdefault(receiver, {})[item.alert] = SentAlert(kept, node, self.times.now, reminded)

    def _end(self, item: Announcement) -> bool:
        """End an alert: whoever was sent it gets the all-clear; whoever waits for it gets neither.

        False where no receiver has it or waits for it, so that the tree decides.
        """
        self.real.discard(item.alert)
        self.pages = escalation.ended(self.pages, item.alert)
        had = [receiver for receiver, alerts in self.sent.items() if item.alert in alerts]
        dropped = self._drop(item)
        for receiver in sorted(dropped):
            self._suppress(item, "", receiver, HoldReason("not_sent", "what it ends was not sent"))
        for receiver in had:
            node = self.sent[receiver].pop(item.alert).node
            to = receiver if receiver in self.tree.receivers else self.tree.root.receiver
            self._all_clear(item, node, to)
        subscribed = [
            leaf
            for leaf in leaves(self.tree, item.attributes, is_urgent=item.is_urgent)
            if leaf.receiver not in {*had, *dropped} and (not (had or dropped) or _names_end(leaf, item))
        ]
        for leaf in subscribed:
            self._enter(replace(item, ends=False, alert=item.id), leaf)
        return bool(had or dropped or subscribed)

    def _all_clear(self, item: Announcement, node: str, receiver: str) -> None:
        """Send an all-clear at once; those of one tick are one message where the node groups."""
        known = self._nodes.get(node)
        place = node if known is not None and known.group_by is not None else f"{node}{SEPARATOR}{item.id}"
        self._clear.setdefault((receiver, place), []).append(item)

    def _drop(self, item: Announcement) -> set[str]:
        """Drop what waits in a group or is held of the alert that `item` ends; the receivers that waited for it."""
        receivers: set[str] = set()
        for key in sorted(self._groups_of.pop(item.alert, ())):
            group = self.groups[key]
            waiting = [each for each in group.pending if each.alert == item.alert]
            left = tuple(each for each in group.pending if each.alert != item.alert)
            members = {alert: each for alert, each in group.members.items() if alert != item.alert}
            self.groups[key] = replace(group, pending=left, members=members)
            for each in waiting:
                self._suppress(each, group.node, group.receiver, HoldReason("ended", "it was over before it was sent"))
                receivers.add(group.receiver)
        for receiver, alerts in self.held.items():
            if (held := alerts.pop(item.alert, None)) is not None:
                self._suppress(held.announcement, held.node, receiver, HoldReason("ended", "over while it was held"))
                receivers.add(receiver)
        return receivers - {receiver for receiver, alerts in self.sent.items() if item.alert in alerts}

    def end_drills(self) -> None:
        """A real event ends a drill: nothing of it that waits is sent."""
        for key, group in list(self.groups.items()):
            for each in group.pending:
                if each.is_drill:
                    self._suppress(each, group.node, group.receiver, HoldReason("drill_ended", "a real event"))
            pending = tuple(each for each in group.pending if not each.is_drill)
            members = {alert: each for alert, each in group.members.items() if not each.is_drill}
            self.groups[key] = replace(group, pending=pending, members=members)
        for alerts in self.held.values():
            for alert in [alert for alert, each in alerts.items() if each.announcement.is_drill]:
                del alerts[alert]

    # Groups

    def _enter(self, item: Announcement, node: RouteNode) -> None:
        """Put an announcement into its group; one that is worse than all before it is due at once."""
        now, key = self.times.now, _group_key(item, node)
        group = self.groups.get(key)
        if group is None:
            group = MessageGroup(node.path, node.receiver, now + node.group_wait)
        elif not group.pending and group.sent is not None:
            group = replace(group, due=max(now, group.sent + node.group_interval))
        worst = max((group.highest, *(each.attributes.severity for each in group.pending)), key=GRAVITY.__getitem__)
        has_content = bool(group.pending) or group.sent is not None
        if has_content and GRAVITY[item.attributes.severity] > GRAVITY[worst]:
            group = replace(group, due=now)
        group = self._without(group, item.alert) if item.lasts else group
        self.groups[key] = replace(group, pending=(*group.pending, item))
        self._groups_of.setdefault(item.alert, set()).add(key)

    def release(self) -> None:
        """Return to their groups what nothing holds any more, and is still active."""
        for receiver, alerts in self.held.items():
            for alert, held in list(alerts.items()):
                node = self._nodes.get(held.node)
                if self._hold(held.announcement, node, receiver) is None:
                    del alerts[alert]
                    self._enter(held.announcement, node or replace(self.tree.root, receiver=receiver))

    def flush(self) -> None:
        """Send every group that is due, those with sources of inhibitions first."""
        due = [(key, group) for key, group in self.groups.items() if group.pending and self.times.now >= group.due]
        inhibitions = self.tree.inhibitions
        due.sort(key=lambda each: not any(is_source(item.attributes, inhibitions) for item in each[1].pending))
        for key, group in due:
            self._send_group(key, group, group.pending, "first")

    def repeat(self) -> None:
        """Send again the groups whose active alerts were sent `repeat_interval` ago, and forget those that are over."""
        now = self.times.now
        for key, group in list(self.groups.items()):
            node = self._nodes.get(group.node)
            if group.pending:
                continue
            if group.members and node is not None and node.repeat_interval is not None:
                if now - (group.sent or now) >= node.repeat_interval:
                    self._send_group(key, group, tuple(group.members.values()), "repeat")
            elif not group.members and (node is None or now - (group.sent or now) >= node.group_interval):
                del self.groups[key]

    def _send_group(self, key: str, group: MessageGroup, items: Sequence[Announcement], purpose: Purpose) -> None:
        node, receiver = self._nodes.get(group.node), group.receiver
        sent: list[Announcement] = []
        for item in sorted(items, key=lambda each: not is_source(each.attributes, self.tree.inhibitions)):
            hold = self._hold(item, node, receiver)
            if hold is not None:
                self._suppress(item, group.node, receiver, hold)
                if item.lasts and purpose == "first":
                    self.held.setdefault(receiver, {})[item.alert] = HeldAlert(item, group.node, hold.why, hold.by)
                continue
            sent.append(item)
            if purpose == "first":
                self._was_sent(item, group.node, receiver)
        severities = (group.highest, *(item.attributes.severity for item in sent))
        keeps = node is not None and node.repeat_interval is not None
        lasting = {item.alert: item if keeps else replace(item, content=b"") for item in sent if item.lasts}
        members = {**group.members, **lasting}
        last = self.times.now if sent or purpose == "repeat" else group.sent
        highest = max(severities, key=GRAVITY.__getitem__)
        self.groups[key] = replace(group, pending=(), sent=last, highest=highest, members=members)
        if sent:
            to = receiver if receiver in self.tree.receivers else self.tree.root.receiver
            in_order = tuple(item for item in items if item in sent)
            self.dispatches.append(Dispatch(to, group.node, in_order, purpose))

    def _hold(self, item: Announcement, node: RouteNode | None, receiver: str) -> HoldReason | None:
        return hold_of(item, node, self.tree, self.silences.values(), self.sent.get(receiver, {}), self.times)

    def _forget_waiting(self, alert: str, receiver: str) -> None:
        """An urgent announcement replaces what waits of the same alert at the same receiver."""
        self.held.get(receiver, {}).pop(alert, None)
        for key in sorted(self._groups_of.get(alert, ())):
            if self.groups[key].receiver == receiver:
                self.groups[key] = self._without(self.groups[key], alert)

    def _without(self, group: MessageGroup, alert: str) -> MessageGroup:
        """The group without what waits in it of an alert, which is recorded as replaced."""
        for each in group.pending:
            if each.alert == alert:
                self._suppress(each, group.node, group.receiver, HoldReason("replaced", "a newer message of its alert"))
        return replace(group, pending=tuple(each for each in group.pending if each.alert != alert))

    # Time

    def escalate(self) -> None:
        """Send what nobody has acknowledged in time."""
        found, self.pages = escalation.escalations(self.pages, self.tree, self.times.now)
        self.dispatches += found
        for dispatch in found:
            for item in dispatch.announcements:
                if item.alert not in self.sent.get(dispatch.receiver, {}):
                    self._was_sent(item, dispatch.node, dispatch.receiver)

    def remind(self) -> None:
        """Remind of firings that nobody has reset; a silence and a mute time hold a reminder."""
        for receiver, each in escalation.reminders(self.sent, self.tree, self.times.now):
            self.sent[receiver][each.announcement.alert] = replace(each, reminded=self.times.now)
            item = replace(each.announcement, is_urgent=False)
            hold = self._hold(item, self._nodes.get(each.node), receiver)
            if hold is not None:
                self._suppress(item, each.node, receiver, hold)
                continue
            self.dispatches.append(Dispatch(receiver, each.node, (item,), "reminder"))

    # Outcome

    def _suppress(self, item: Announcement, node: str, receiver: str, hold: HoldReason) -> None:
        why: Why = hold.why
        self.suppressed.append(Suppressed(self.times.now, item.alert, item.id, node, receiver, why, hold.by))

    def outcome(self) -> Routed:
        """What the step sends, urgent dispatches first, and the state after it."""
        urgent = [Dispatch(receiver, node, tuple(items)) for (receiver, node), items in self._urgent.items()]
        clear = [
            Dispatch(receiver, place.split(SEPARATOR)[0], tuple(items), "all_clear")
            for (receiver, place), items in self._clear.items()
        ]
        state = RoutingState(
            self.number,
            {receiver: alerts for receiver, alerts in self.sent.items() if alerts},
            {receiver: alerts for receiver, alerts in self.held.items() if alerts},
            self.groups, self.pages, self.silences, self.commanded, tuple(sorted(self.real)),
        )  # fmt: skip
        return Routed((*urgent, *clear, *self.dispatches), tuple(self.suppressed), state)


def _names_end(node: RouteNode, item: Announcement) -> bool:
    """Whether the node's own rule names the event, so that its receiver subscribes to ends, whoever had the alert."""
    return node.rule is not None and node.rule.events is not None and item.attributes.event in node.rule.events


def _group_key(item: Announcement, node: RouteNode) -> str:
    if node.group_by is None:
        values = [item.alert if item.lasts else item.id] if not node.group_wait and not node.group_interval else []
    else:
        values = [label_of(item.attributes, key) or "" for key in node.group_by]
    return SEPARATOR.join((node.path, node.receiver, *values))
