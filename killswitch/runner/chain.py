"""The chain behind a decision: policy line → trigger → values → snapshot → orders → fills → flat."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from killswitch.incident.places import PolicyText, places_of
from killswitch.incident.results import Result, kept_snapshot, recorded_result
from killswitch.model.decision import Decision, decision_record
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import Store

CHAIN_FORMAT = "killswitch.explanation/v1"


class Chain(Struct, frozen=True):
    """A decision with all that led to it and all that came of it. What was not kept is null."""

    decision: Decision
    policy: PolicyText | None
    snapshot: Snapshot | None
    result: Result


def chain_of(store: Store, id_prefix: str) -> Chain:
    """The chain of the one decision whose id starts so. LookupError, in words, if there is none or several."""
    stored = store.decision(id_prefix)
    if stored is None:
        raise LookupError(f"no decision starts with {id_prefix}; `ksctl history` lists them")
    decision = stored.decision
    snapshot = kept_snapshot(stored.snapshot)
    return Chain(
        decision,
        places_of(store, decision.policy_set).get(decision.policy),
        snapshot,
        recorded_result(store, decision),
    )


def encode_chain(chain: Chain) -> bytes:
    """The chain as one JSON object, format `killswitch.explanation/v1`."""
    return msgspec.json.Encoder(decimal_format="string").encode(
        {
            "format": CHAIN_FORMAT,
            "decision": decision_record(chain.decision),
            "policy": chain.policy,
            "snapshot": chain.snapshot,
            "result": chain.result,
        }
    )
