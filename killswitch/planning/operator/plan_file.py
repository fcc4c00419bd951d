"""The saved plan, format `killswitch.plan/v1`: what was decided, and the world that it was decided on.

A plan holds no secret: decisions, positions, orders and the venues' rules, and nothing of how an account is reached.
Its digest is one of content, not a signature: it finds what was altered by accident, not by intent.
"""

from __future__ import annotations

import json
from decimal import Decimal
from hashlib import sha256
from typing import Final, Literal

import msgspec
from msgspec import Struct

from killswitch.model.decision import Decision, decision_record
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import Instant, Instrument, OrderSide, Side

PLAN_FORMAT: Final = "killswitch.plan/v1"


class PlanFileError(Exception):
    """A text that is no plan, or one that was altered; the message says which."""


class PlannedPosition(Struct, frozen=True):
    """A position as it was seen, in contracts."""

    symbol: str
    side: Side
    contracts: Decimal


class PlannedOrder(Struct, frozen=True):
    """An open order as it was seen; `amount` in contracts."""

    id: str
    symbol: str
    side: OrderSide
    amount: Decimal


class AccountBasis(Struct, frozen=True, omit_defaults=True):
    """One account as it was seen. `unread` says why it could not be: then its positions and orders are unknown.

    `instruments` are the rules of the symbols that the plan trades, as far as they were known.
    """

    account: str
    unread: str | None = None
    positions: tuple[PlannedPosition, ...] | None = None
    orders: tuple[PlannedOrder, ...] | None = None
    instruments: tuple[Instrument, ...] = ()


class SavedPlan(Struct, frozen=True, kw_only=True):
    """Decisions, and the basis on which alone they may be carried out."""

    format: Literal["killswitch.plan/v1"]
    digest: str
    as_of: Instant
    policy_set: str
    commit: str | None
    decisions: tuple[Decision, ...]
    basis: tuple[AccountBasis, ...]

    @property
    def short(self) -> str:
        """The digest as far as people compare it."""
        return self.digest[:19]

    @property
    def scope(self) -> str | None:
        """The scope of all decisions; None where they have several."""
        scopes = {decision.scope for decision in self.decisions}
        return scopes.pop() if len(scopes) == 1 else None


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DECODER = msgspec.json.Decoder(SavedPlan)


def made(
    as_of: Instant,
    policy_set: str,
    commit: str | None,
    decisions: tuple[Decision, ...],
    basis: tuple[AccountBasis, ...],
) -> SavedPlan:
    """The plan of these decisions, with its digest."""
    plan = SavedPlan(
        format=PLAN_FORMAT, digest="", as_of=as_of, policy_set=policy_set, commit=commit, decisions=decisions,
        basis=basis,
    )  # fmt: skip
    return msgspec.structs.replace(plan, digest=digest_of(_contents(plan)))


def encode_plan(plan: SavedPlan) -> bytes:
    """The text of its file: one JSON object, for people to read too."""
    return json.dumps(_contents(plan), indent=2, ensure_ascii=False).encode() + b"\n"


def decode_plan(text: bytes | str) -> SavedPlan:
    """The plan in `text`. PlanFileError if it is none, or is not what was saved."""
    try:
        contents = json.loads(text)
        plan = _DECODER.decode(text)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise PlanFileError(f"this is no {PLAN_FORMAT}: {error}") from error
    found = digest_of(contents)
    if found != plan.digest:
        raise PlanFileError(
            f"the plan was altered after it was saved: it says {plan.short}, and its contents are {found[:19]}"
        )
    if digest_of(_contents(plan)) != plan.digest:
        # A number spelled otherwise, a field that we do not know: read again, its digest would be another one.
        raise PlanFileError(
            "this was not saved by this version of ksctl: it holds fields or spellings (as 1e9) that it does not write"
        )
    return plan


def digest_of(contents: dict[str, object]) -> str:
    """SHA-256 of everything in the plan but its digest, as JSON with sorted keys and no blanks, in UTF-8."""
    rest = {key: value for key, value in contents.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def plan_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of a saved plan."""
    schemas, components = msgspec.json.schema_components((SavedPlan,), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://killswitch.dev/schema/plan/v1",
        "title": PLAN_FORMAT,
        "$defs": components,
        **schemas[0],
    }


def _contents(plan: SavedPlan) -> dict[str, object]:
    contents: dict[str, object] = msgspec.json.decode(_ENCODER.encode(plan))
    contents["as_of"] = rfc3339(plan.as_of)
    contents["decisions"] = [decision_record(decision) for decision in plan.decisions]
    return contents
