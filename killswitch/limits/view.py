"""What the runner writes after each tick for the gate and the server: format `killswitch.gate-view/v1`.

One JSON file, replaced atomically. It holds everything that an order is judged by but the locks and the sentinel, which
the gate reads at every question. Money, prices and amounts are texts of decimals; times are RFC 3339. `null` and absent
mean unknown, never zero. Unknown keys are ignored, so that an older gate reads the file of a newer runner.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec import json as msgjson

from killswitch.graph.limits import LimitsRule
from killswitch.model.snapshot import AccountSnapshot, Instant, OrderSide, Side, WrittenLock
from killswitch.planning.recovery.way_back import RecoveryCap
from killswitch.planning.reducing import OrderKind

GATE_VIEW_FORMAT: Final = "killswitch.gate-view/v1"


class ReadTimes(Struct, frozen=True, omit_defaults=True):
    """When the reads of an account began that are in its state, by the clock of the run. None: never read, or unknown.

    Nothing is proved by an absence in a read that began earlier.
    """

    positions: Instant | None = None
    orders: Instant | None = None
    fills: Instant | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether orders were read no later than positions, so that no fill between the two is missing in both."""
        return self.orders is not None and self.positions is not None and self.orders <= self.positions

    def all_began_after(self, moment: datetime) -> bool:
        """Whether every read began after the moment; fills only where the venue states up to when they are complete."""
        known = (self.positions, self.orders, *(() if self.fills is None else (self.fills,)))
        return all(each is not None and each > moment for each in known)


class InFlight(Struct, frozen=True, omit_defaults=True):
    """An order of the runner itself that may still fill and may not be among the resting ones.

    `contracts` is the worst case; None: unknown, so that it counts as the whole position.
    """

    client_order_id: str
    symbol: str
    side: OrderSide
    contracts: Decimal | None = None
    reduce_only: bool = False
    position_side: Side | None = None


class SeenFill(Struct, frozen=True, omit_defaults=True):
    """What an order has traded: contracts so far, and when the newest fill was read, by the clock of the run."""

    client_order_id: str
    contracts: Decimal
    at: Instant


class DayState(Struct, frozen=True, omit_defaults=True):
    """The UTC day of an account's limits so far. None is unknown, with the reason in `why`.

    `turned_at`: when the clock of the run and the venue's time were both past midnight. `loss` is net of fees and
    funding, negative for a gain; `fees` counts what is not known at the worst declared rate.
    """

    day: str
    turned_at: Instant
    began_with: Decimal | None = None
    loss: Decimal | None = None
    trades: int | None = None
    fees: Decimal | None = None
    why: str | None = None
    orders: tuple[str, ...] = ()
    """The orders that have traded, by which `trades` is counted."""
    moved: Decimal | None = None
    """Deposits and transfers less withdrawals since the day began."""
    fees_paid: Decimal | None = None
    """The sum of the fees of every fill that was read; None: the fee of one is not known even at its worst."""


class Pause(Struct, frozen=True, omit_defaults=True):
    """A pause of a scope that reaches the account: nothing may be opened until it is resumed."""

    scope: str
    reason: str
    since: Instant
    side: Side | None = None
    symbols: tuple[str, ...] | None = None

    def reaches(self, side: Side, symbol: str) -> bool:
        """Whether it holds back what would open a position of `side` in `symbol`."""
        return self.side in (None, side) and (self.symbols is None or symbol in self.symbols)


class GateAccount(Struct, frozen=True, omit_defaults=True):
    """One account as the last tick read it, its limits, and what the runner has under way there.

    `state` is the account of the tick's snapshot without `fills` and `flows`, with the rules of every known instrument.
    """

    state: AccountSnapshot
    reads: ReadTimes = ReadTimes()
    limits: LimitsRule | None = None
    """Its `Limits` document; None: there is none, so that no entry passes."""
    enforced: tuple[OrderKind, ...] | None = None
    """The types of orders whose reduce-only flag the venue enforces here; None: unknown, so that a flag is a claim."""
    own: tuple[InFlight, ...] = ()
    filled: tuple[SeenFill, ...] = ()
    """What was traded lately by client order id."""
    seen_ids: tuple[str, ...] = ()
    """The newest client order ids that were ever seen among orders and fills."""
    day: DayState | None = None
    pauses: tuple[Pause, ...] = ()
    recovery: RecoveryCap | None = None
    """The step of the way back after a reset, by which `limits` are reduced already; None: it is on none."""


class GateView(Struct, frozen=True):
    """Everything that the gate and the server know of a run, as of its last tick."""

    as_of: Instant
    run_started_at: Instant
    policy_set: str
    accounts: tuple[GateAccount, ...]
    lock_folder: str | None = None
    locks: tuple[WrittenLock, ...] = ()
    """For people and for the server. The gate reads the lock files themselves."""
    clock_back_until: Instant | None = None
    """A clock that went back: entries wait until both clocks have agreed for a minute; absent: it did not."""
    unrecorded: str | None = None
    """Why nothing can be put on record at present, so that entries are denied; absent: the record is written."""
    format: Literal["killswitch.gate-view/v1"] = "killswitch.gate-view/v1"

    def account(self, name: str) -> GateAccount | None:
        """The account of this name."""
        return next((each for each in self.accounts if each.state.account == name), None)


_ENCODER = msgjson.Encoder(decimal_format="string")
_DECODER = msgjson.Decoder(GateView)


def encode_gate_view(view: GateView) -> bytes:
    """The file's content."""
    return _ENCODER.encode(view)


def decode_gate_view(content: bytes) -> GateView:
    """The view in a file's content; `msgspec.DecodeError` or `msgspec.ValidationError` names what is wrong."""
    return _DECODER.decode(content)


def gate_view_schema() -> dict[str, Any]:
    """The JSON Schema of the format."""
    return msgspec.json.schema(GateView)
