"""Where the stages and triggers of a policy set were written, kept in the store so that `explain` needs no files."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet, Trigger
from killswitch.model.store import Store
from killswitch.model.words import Place
from killswitch.signals.catalogue import BY_NAME


class WrittenAt(Struct, frozen=True):
    """A line of a policy file: where it stands, and what it says."""

    file: str
    line: int
    text: str


class TriggerText(Struct, frozen=True):
    """A trigger as written. Signal, unit and threshold are those of the threshold form; null for an expression."""

    at: WrittenAt
    signal: str | None
    unit: str | None
    threshold: str | None


class PolicyText(Struct, frozen=True):
    """One policy: its own line, its stages' and its triggers'."""

    at: WrittenAt
    stages: dict[str, WrittenAt]
    triggers: dict[str, TriggerText]


_DECODER = msgspec.json.Decoder(dict[str, PolicyText])


T = TypeVar("T")


def decoded(decoder: msgspec.json.Decoder[T], blob: bytes | None, otherwise: T) -> T:
    """What was kept; `otherwise` where nothing was, or another version wrote it."""
    try:
        return otherwise if blob is None else decoder.decode(blob)
    except msgspec.DecodeError:
        return otherwise


def keep(store: Store, name: str, blob: bytes) -> None:
    """Write `blob` into the store by this name, unless it is there."""
    if store.live(name) != blob:
        store.put_live(name, blob)


def keep_places(store: Store, policies: PolicySet) -> None:
    """Write down the places of `policies` under its digest, unless they stand there."""
    blob = msgspec.json.encode({graph.policy: _policy(graph) for graph in policies.graphs})
    keep(store, f"places/{policies.digest}", blob)


def places_of(store: Store, digest: str) -> dict[str, PolicyText]:
    """Policy name → its text, of the policy set with this digest; empty if it was never run on this store."""
    return decoded(_DECODER, store.live(f"places/{digest}"), {})


def _policy(graph: Graph) -> PolicyText:
    return PolicyText(
        at=_written(graph.place),
        stages={stage.name: _written(stage.place) for stage in graph.stages},
        triggers={trigger.name: trigger_text(graph, trigger) for trigger in graph.triggers},
    )


def trigger_text(graph: Graph, trigger: Trigger) -> TriggerText:
    """The trigger as its policy writes it."""
    threshold = trigger.threshold
    if threshold is None:
        return TriggerText(_written(trigger.place), None, None, None)
    name = graph.signals[threshold.index].name
    return TriggerText(_written(trigger.place), name, BY_NAME[name].unit, f"{threshold.op} {threshold.written}")


def _written(place: Place) -> WrittenAt:
    return WrittenAt(place.file, place.line, place.text.strip())
