"""Saved plan, format `killswitch.plan/v1`: decisions and the snapshot data that they are based on.

A plan holds no secret: it has decisions, positions, orders and instrument rules, but no credentials or endpoints. Its
digest covers the content and is no signature: it detects accidental changes, not intended ones.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.decision import Decision, decision_record
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import Instant, Instrument, Liquidity, Market, Order, Position

PLAN_FORMAT: Final = "killswitch.plan/v1"

Part = TypeVar("Part", bound=Struct)


class PlanFileError(Exception):
    """A text that is no plan, or an altered plan; the message gives the reason."""


class AccountBasis(Struct, frozen=True, omit_defaults=True):
    """One account of the basis. `unread`: why it could not be read; its positions and orders are then unknown.

    Positions have contracts, mark and notional; orders id, symbol, side and amount. `instruments` are the known rules
    of the symbols that the plan trades and, for a spot account, of those that it holds; `prices` those of its assets.
    Marks, prices and liquidity are what orders were computed from: a book is not compared by them.
    """

    account: str
    unread: str | None = None
    market: Market | None = None
    currency: str | None = None
    positions: tuple[Position, ...] | None = None
    orders: tuple[Order, ...] | None = None
    instruments: tuple[Instrument, ...] = ()
    prices: dict[str, Decimal] = {}
    liquidity: tuple[Liquidity, ...] = ()


class SavedPlan(Struct, frozen=True, kw_only=True):
    """Decisions, and the basis that must still hold when they are carried out."""

    format: Literal["killswitch.plan/v1"]
    digest: str
    as_of: Instant
    policy_set: str
    commit: str | None
    decisions: tuple[Decision, ...]
    basis: tuple[AccountBasis, ...]

    @property
    def short(self) -> str:
        """The digest, shortened for people."""
        return self.digest[:19]

    @property
    def scope(self) -> str | None:
        """The common scope of the decisions; None if they have several."""
        scopes = {decision.scope for decision in self.decisions}
        return scopes.pop() if len(scopes) == 1 else None


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DECODER = msgspec.json.Decoder(SavedPlan)


def make_plan(
    as_of: Instant,
    policy_set: str,
    commit: str | None,
    decisions: tuple[Decision, ...],
    basis: tuple[AccountBasis, ...],
) -> SavedPlan:
    """Create the plan of these decisions, with its digest."""
    plan = SavedPlan(
        format=PLAN_FORMAT, digest="", as_of=as_of, policy_set=policy_set, commit=commit, decisions=decisions,
        basis=basis,
    )  # fmt: skip
    return replace(plan, digest=digest_of(_contents(plan)))


def encode_plan(plan: SavedPlan) -> bytes:
    """Encode the plan as one readable JSON object."""
    return json.dumps(_contents(plan), indent=2, ensure_ascii=False).encode() + b"\n"


def decode_plan(text: bytes | str) -> SavedPlan:
    """Decode the plan in `text`; PlanFileError if it is no plan, or was altered."""
    try:
        contents = json.loads(text)
        plan = _DECODER.decode(text)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise PlanFileError(f"this is no {PLAN_FORMAT}: {_why_undecodable(error)}; {_WRITERS}") from error
    found = digest_of(contents)
    if found != plan.digest:
        raise PlanFileError(
            f"the plan was altered after it was saved: its digest is {plan.short}, that of its contents {found[:19]}; "
            "save it again with `ksctl plan --out` or `ksctl close --dry-run --out`"
        )
    if digest_of(_contents(plan)) != plan.digest:
        # An unknown field or another spelling of a number would change the digest after decoding.
        raise PlanFileError(
            "this was not saved by this version of ksctl: it holds fields or spellings (as 1e9) that it does not write"
        )
    return plan


class ReadPlan(Struct, frozen=True):
    """What can be read of a text that may be a saved plan, and what is wrong with it.

    `problems` is empty for a plan that `ksctl apply` would accept as a file. `left_out`: parts that cannot be read.
    """

    plan: SavedPlan | None
    problems: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def read_any(text: bytes) -> ReadPlan:
    """Read whatever can be read of a plan that may be damaged, altered or of another version. Never raises."""
    try:
        return ReadPlan(decode_plan(text), ())
    except PlanFileError as error:
        problem = str(error)
    try:
        return ReadPlan(_DECODER.decode(text), (problem,))
    except (ValueError, RecursionError, msgspec.DecodeError):
        pass
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError):
        return ReadPlan(None, (problem,))
    return _parts_of(contents, problem) if isinstance(contents, dict) else ReadPlan(None, (problem,))


def _parts_of(contents: dict[str, object], problem: str) -> ReadPlan:
    """The plan of the parts that can be decoded, each on its own."""
    left_out: list[str] = []

    def parts(key: str, kind: type[Part]) -> tuple[Part, ...]:
        written = contents.get(key)
        if not isinstance(written, list):
            left_out.append(key)
            return ()
        found = []
        for number, each in enumerate(written, start=1):
            try:
                found.append(msgspec.convert(each, kind, strict=False))
            except (ValueError, RecursionError, msgspec.ValidationError) as error:
                left_out.append(f"{key}, number {number} ({error})")
        return tuple(found)

    def text_of(key: str) -> str:
        value = contents.get(key)
        if isinstance(value, str):
            return value
        left_out.append(key)
        return ""

    try:
        as_of = msgspec.convert(contents.get("as_of"), Instant)
    except msgspec.ValidationError:
        left_out.append("as_of")
        as_of = NO_INSTANT
    decisions, basis = parts("decisions", Decision), parts("basis", AccountBasis)
    commit = contents.get("commit")
    plan = SavedPlan(
        format=PLAN_FORMAT, digest=text_of("digest"), as_of=as_of, policy_set=text_of("policy_set"),
        commit=commit if isinstance(commit, str) else None, decisions=decisions, basis=basis,
    )  # fmt: skip
    return ReadPlan(plan, (problem,), tuple(left_out))


NO_INSTANT: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of a plan whose own cannot be read; pages show it as unknown."""

_WRITERS: Final = "name a file that `ksctl plan --out` or `ksctl close --dry-run --out` wrote"


def _why_undecodable(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"it is not JSON, from line {error.lineno}, column {error.colno} on"
        case UnicodeDecodeError():
            return "it is not text in UTF-8"
        case RecursionError():
            return "it is nested too deep"
        case msgspec.ValidationError():
            return f"a field is missing or has another type ({error})"
        case _:
            return "it holds a number or a text that no plan has"


def digest_of(contents: dict[str, object]) -> str:
    """SHA-256 of the plan without its digest, as JSON with sorted keys and no blanks, in UTF-8."""
    content = {key: value for key, value in contents.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
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
