"""What holds a message that is not urgent: a silence, a mute time, or an alert that inhibits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from killswitch.graph.routing import Inhibition, MessageAttributes, MessageSilence, RouteRule, label_of
from killswitch.model.instant import from_micros, rfc3339, to_micros
from killswitch.model.snapshot import Event
from killswitch.planning.routing.state import Announcement, RunningSilence, SentAlert, Why
from killswitch.planning.routing.tree import RouteNode, RoutingTree

LABEL: Final = "label/"
MATCHED: Final = ("policy", "scope", "level", "severity", "event", "notify")
"""What a silence by command matches, besides labels of the policy (`label/KEY`)."""


def silence_of(event: Event) -> MessageSilence | None:
    """The silence that a command declares; None for any other event, and for one that ends silences.

    ValueError for a level that is no number: `ksctl` and the server refuse it before.
    """
    if event.kind != "silence" or event.until is None:
        return None
    matching = event.matching or {}
    level = matching.get("level")
    rule = RouteRule(
        matching.get("notify"), None if level is None else int(level[0]),
        matching.get("severity"),  # type: ignore[arg-type] # `ksctl` takes severities alone; any other matches nothing
        matching.get("event"),  # type: ignore[arg-type] # likewise
        _all_of(event.policy, matching.get("policy")), _all_of(event.scope, matching.get("scope")),
        tuple((key.removeprefix(LABEL), values[0]) for key, values in matching.items() if key.startswith(LABEL)),
    )  # fmt: skip
    author, reason = event.author or "unknown", event.reason or "no reason given"
    return MessageSilence(event.id, rule, author, reason, to_micros(event.until))


def _all_of(one: str | None, others: tuple[str, ...] | None) -> tuple[str, ...] | None:
    found = (*(() if one is None else (one,)), *(others or ()))
    return found or None


def rule_text(rule: RouteRule) -> str:
    """The conditions of a rule as `ksctl notify silence` takes them, such as `level>=2 severity=warning,info`."""
    named = {
        "policy": rule.policies, "scope": rule.scopes, "severity": rule.severities, "event": rule.events,
        "notify": rule.notify,
    }  # fmt: skip
    parts = [f"{key}={','.join(values)}" for key, values in named.items() if values is not None]
    level = [] if rule.least_level is None else [f"level>={rule.least_level}"]
    return " ".join((*level, *parts, *(f"{key}={value}" for key, value in rule.labels))) or "every message"


class Times(Struct, frozen=True):
    """An instant by both clocks, in microseconds: `now` never jumps, and `civil` is the time of the day."""

    now: int
    civil: int


class HoldReason(Struct, frozen=True):
    """Why a message is held, and by whose silence, which time or which alert."""

    why: Why
    by: str


def hold_of(
    item: Announcement,
    node: RouteNode | None,
    tree: RoutingTree,
    silences: Iterable[RunningSilence],
    sent: Mapping[str, SentAlert],
    times: Times,
) -> HoldReason | None:
    """What holds the message at a receiver that was sent the active alerts `sent`; None if nothing does.

    Nothing holds an urgent message.
    """
    if item.is_urgent:
        return None
    for running in silences:
        if is_running(running, times) and running.silence.rule.matches(item.attributes):
            silence = running.silence
            end = rfc3339(from_micros(silence.end))
            return HoldReason("silenced", f"silence {silence.name} by {silence.author} until {end}: {silence.reason}")
    if node is not None and (name := muted_by(node, tree, times.civil)) is not None:
        return HoldReason("muted", name)
    source = inhibited_by(item.alert, item.attributes, tree.inhibitions, sent)
    return None if source is None else HoldReason("inhibited", source)


def is_running(running: RunningSilence, times: Times) -> bool:
    """Whether a silence holds messages: since its begin, until the earlier of its end and its length."""
    silence = running.silence
    has_begun = silence.begin is None or times.civil >= silence.begin
    return has_begun and times.civil < silence.end and times.now < running.began + running.length


def running_silences(
    declared: Iterable[MessageSilence],
    commanded: Iterable[MessageSilence],
    before: Mapping[str, RunningSilence],
    times: Times,
) -> dict[str, RunningSilence]:
    """The silences that have not ended, by name. One that was edited runs from its edit; one that waits, from its
    begin."""
    found: dict[str, RunningSilence] = {}
    for silence in (*declared, *commanded):
        running = before.get(silence.name)
        waits = silence.begin is not None and times.civil < silence.begin
        if running is None or running.silence != silence or waits:
            begin = times.civil if silence.begin is None else max(silence.begin, times.civil)
            until_begin = max(0, begin - times.civil)
            running = RunningSilence(silence, times.now + until_begin, max(0, silence.end - begin))
        if waits or is_running(running, times) or silence in declared:
            found[silence.name] = running
    return found


def muted_by(node: RouteNode, tree: RoutingTree, civil: int) -> str | None:
    """Which time mutes the node now; a node with `active` times is muted outside all of them."""
    for name in node.mute:
        if name in tree.mute_times and tree.mute_times[name].covers(civil):
            return f"mute time {name}"
    known = [tree.mute_times[name] for name in node.active if name in tree.mute_times]
    if known and not any(each.covers(civil) for each in known):
        return f"outside {' and '.join(node.active)}"
    return None


def inhibited_by(
    alert: str, attributes: MessageAttributes, rules: Iterable[Inhibition], sent: Mapping[str, SentAlert]
) -> str | None:
    """The active alert, sent to the same receiver, that inhibits this one; None without one.

    An alert never inhibits itself, and a label that is absent on either side is not equal.
    """
    for rule in rules:
        if not rule.target.matches(attributes):
            continue
        for key, each in sent.items():
            other = each.announcement.attributes
            if key != alert and rule.source.matches(other) and _are_equal(rule.equal, attributes, other):
                return key
    return None


def _are_equal(labels: Iterable[str], one: MessageAttributes, other: MessageAttributes) -> bool:
    pairs = ((label_of(one, key), label_of(other, key)) for key in labels)
    return all(left is not None and left == right for left, right in pairs)


def is_source(attributes: MessageAttributes, rules: Iterable[Inhibition]) -> bool:
    """Whether an alert can inhibit others: it is sent before them."""
    return any(rule.source.matches(attributes) for rule in rules)
