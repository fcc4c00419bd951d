"""Where the stages and triggers of a policy set were written, kept in the store so that `explain` needs no files."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet
from killswitch.model.place import Place
from killswitch.model.store import Store


class WrittenAt(Struct, frozen=True):
    """A line of a policy file: where it stands, and what it says."""

    file: str
    line: int
    text: str


class PolicyPlaces(Struct, frozen=True):
    """One policy: its own line, its stages' and its triggers', and each trigger's threshold as written."""

    policy: WrittenAt
    stages: dict[str, WrittenAt]
    triggers: dict[str, WrittenAt]
    thresholds: dict[str, str]


_DECODER = msgspec.json.Decoder(dict[str, PolicyPlaces])


def keep_places(store: Store, policies: PolicySet) -> None:
    """Write down the places of `policies` under its digest, once per set."""
    name = _name(policies.digest)
    blob = msgspec.json.encode({graph.policy: _places(graph) for graph in policies.graphs})
    if store.live(name) != blob:
        store.put_live(name, blob)


def places_of(store: Store, digest: str) -> dict[str, PolicyPlaces]:
    """Policy name → places, of the policy set with this digest; empty if it was never run on this store."""
    blob = store.live(_name(digest))
    return {} if blob is None else _DECODER.decode(blob)


def _places(graph: Graph) -> PolicyPlaces:
    return PolicyPlaces(
        policy=_written(graph.place),
        stages={stage.name: _written(stage.place) for stage in graph.stages},
        triggers={trigger.name: _written(trigger.place) for trigger in graph.triggers},
        thresholds={
            trigger.name: f"{trigger.threshold.op} {trigger.threshold.written}"
            for trigger in graph.triggers
            if trigger.threshold is not None
        },
    )


def _written(place: Place) -> WrittenAt:
    return WrittenAt(place.file, place.line, place.text.strip())


def _name(digest: str) -> str:
    return f"places/{digest}"
