"""The places of a policy set's stages and triggers in their files, kept in the store: `explain` needs no files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet, Trigger
from killswitch.graph.wording import span
from killswitch.model.decision import TriggerReading
from killswitch.model.store import Store
from killswitch.model.words import Place
from killswitch.render.formats import interval
from killswitch.signals.catalogue import BY_NAME


class WrittenAt(Struct, frozen=True):
    """A line of a policy file: its place and its text."""

    file: str
    line: int
    text: str


class TriggerText(Struct, frozen=True):
    """A trigger as written. Signal, unit, threshold and window are null for an expression."""

    at: WrittenAt
    signal: str | None
    unit: str | None
    threshold: str | None
    window: str | None = None


class TriggerFact(Struct, frozen=True):
    """A confirmed trigger: its value as text next to its threshold as written, and the policy's line."""

    name: str
    signal: str | None
    value: str
    threshold: str
    true_since: datetime | None
    reason: str | None
    line: WrittenAt | None


class LadderStage(Struct, frozen=True):
    """One stage with its level, and the names of the triggers that fire it: any of `any_of`, and all of `all_of`."""

    stage: str
    level: int
    any_of: tuple[str, ...]
    all_of: tuple[str, ...] = ()


class PolicyText(Struct, frozen=True):
    """One policy: its own line, those of its stages and triggers, and its stages from the lowest level up.

    `ladder` is empty in what an older version stored.
    """

    at: WrittenAt
    stages: dict[str, WrittenAt]
    triggers: dict[str, TriggerText]
    ladder: tuple[LadderStage, ...] = ()


_DECODER = msgspec.json.Decoder(dict[str, PolicyText])


T = TypeVar("T")


def decode_or(decoder: msgspec.json.Decoder[T], blob: bytes | None, otherwise: T) -> T:
    """Decode what was kept; return `otherwise` where nothing was, or another version wrote it."""
    try:
        return otherwise if blob is None else decoder.decode(blob)
    except msgspec.DecodeError:
        return otherwise


def store_if_changed(store: Store, name: str, blob: bytes) -> None:
    """Store `blob` under this name, unless it is stored already."""
    if store.live(name) != blob:
        store.put_live(name, blob)


def store_places(store: Store, policies: PolicySet) -> None:
    """Store the places of `policies` under its digest, unless they are stored already."""
    blob = msgspec.json.encode({graph.policy: _policy(graph) for graph in policies.graphs})
    store_if_changed(store, f"places/{policies.digest}", blob)


def read_places(store: Store, digest: str) -> dict[str, PolicyText]:
    """Return the texts of the policies in the policy set with this digest; empty if it never ran on this store."""
    return decode_or(_DECODER, store.live(f"places/{digest}"), {})


def _policy(graph: Graph) -> PolicyText:
    return PolicyText(
        at=_written(graph.place),
        stages={stage.name: _written(stage.place) for stage in graph.stages},
        triggers={trigger.name: trigger_text(graph, trigger) for trigger in graph.triggers},
        ladder=ladder_of(graph),
    )


def ladder_of(graph: Graph) -> tuple[LadderStage, ...]:
    """Return the stages of a policy with the names of their triggers, the lowest level first."""
    names = [trigger.name for trigger in graph.triggers]
    stages = sorted(graph.stages, key=lambda each: each.level)
    return tuple(
        LadderStage(each.name, each.level, tuple(names[i] for i in each.any_of), tuple(names[i] for i in each.all_of))
        for each in stages
    )


def trigger_text(graph: Graph, trigger: Trigger) -> TriggerText:
    """Return the trigger as its policy writes it."""
    threshold = trigger.threshold
    if threshold is None:
        return TriggerText(_written(trigger.place), None, None, None)
    signal = graph.signals[threshold.index]
    return TriggerText(
        _written(trigger.place), signal.name, BY_NAME[signal.name].unit, f"{threshold.op} {threshold.written}",
        None if signal.window is None else span(signal.window),
    )  # fmt: skip


_YOUNG = re.compile(r"history reaches back (?P<seen>.+?) of (?P<window>[^;]+)")


def history_meaning(reason: str) -> str:
    """Return a reason about a short history in words that say what it means for a fall; any other as it is."""
    found = _YOUNG.fullmatch(reason)
    if found is None:
        return reason
    seen, window = found["seen"], found["window"]
    return f"the run had seen {seen} of the {window}: the true peak may be higher, the fall is at least this"


def reason_once(reason: str | None, others: Iterable[str | None]) -> str | None:
    """Return a reason without the part that one of `others`, of the triggers, has already."""
    begin, semicolon, rest = (reason or "").partition("; ")
    known = {each for each in others if each is not None}
    return f"for the same reason{semicolon}{rest}" if known & {begin, history_meaning(begin)} else reason


def trigger_fact(trigger: TriggerReading, text: TriggerText | None) -> TriggerFact:
    """Return a trigger of a decision in the words of its policy; without them, by the numbers of its record."""
    threshold = (text.threshold if text else None) or trigger.threshold
    unit = text.unit if text else "fraction" if (threshold or "").endswith("%") else None
    signal = None if text is None or text.signal is None else BY_NAME.get(text.signal)
    is_loss = signal is not None and signal.is_loss_size and signal.unit == "fraction"
    is_fall = is_loss and trigger.value is not None and trigger.value[0] is not None
    is_expression = trigger.value is None and trigger.threshold is None
    return TriggerFact(
        name=trigger.name,
        signal=text.signal if text else None,
        value="true" if is_expression else interval(trigger.value, unit),
        threshold=threshold or "its expression",
        true_since=trigger.true_since,
        reason=history_meaning(trigger.reason) if is_fall and trigger.reason else trigger.reason,
        line=text.at if text else None,
    )


def _written(place: Place) -> WrittenAt:
    return WrittenAt(place.file, place.line, place.text.strip())
