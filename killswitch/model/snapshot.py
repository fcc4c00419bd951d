"""The snapshot: the immutable input of one tick; format `killswitch.snapshot/v1`.

Money, prices and quantities are Decimal in the account's currency, in quote units per base unit and in contracts; times
are aware UTC datetimes. `None` (absent in the file) means *unknown*, never zero. Unknown keys are ignored, for
compatibility with newer writers.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec import json as msgjson

from killswitch.model.words import Cause, ChangeCause, LockMode
from killswitch.model.words import Market as Market

SNAPSHOT_FORMAT = "killswitch.snapshot/v1"

Instant = Annotated[datetime, Meta(tz=True)]
Quality = Literal["ok", "stale", "malformed", "down"]
Side = Literal["long", "short"]
OrderSide = Literal["buy", "sell"]
FlowKind = Literal["deposit", "withdrawal", "transfer", "funding", "interest", "fee", "rebate", "insurance"]
FillCause = Literal["trade", "liquidation", "adl", "delivery"]
InstrumentState = Literal["open", "reduce_only", "cancel_only", "post_only", "limit_only", "halted", "delisted"]

UNIT_FLOWS: frozenset[str] = frozenset({"deposit", "withdrawal", "transfer"})
"""Kinds of flows that issue or redeem units; every other kind is profit or loss."""


class Position(Struct, frozen=True, gc=False, omit_defaults=True):
    """An open position. `contracts` is never negative; the base quantity is contracts × contract size.

    For an inverse contract the base quantity is contracts × contract size ÷ price.
    """

    symbol: str
    side: Side
    contracts: Decimal
    entry_price: Decimal | None = None
    mark_price: Decimal | None = None
    index_price: Decimal | None = None
    last_price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    liquidation_price: Decimal | None = None
    notional: Decimal | None = None
    margin: Decimal | None = None
    leverage: Decimal | None = None
    unrealized_pnl: Decimal | None = None
    adl_rank: int | None = None
    strategy: str | None = None
    mark_at: Instant | None = None
    """Venue time of `mark_price`, unless the account's `marked_at` states it for all."""

    @property
    def key(self) -> tuple[str, Side]:
        """The identity of a position within its account."""
        return (self.symbol, self.side)


class Order(Struct, frozen=True, gc=False, omit_defaults=True):
    """An open order; a stop, take-profit or other conditional order has a `trigger_price`."""

    id: str
    symbol: str
    side: OrderSide
    amount: Decimal
    client_order_id: str | None = None
    position_side: Side | None = None
    type: str | None = None
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    filled: Decimal | None = None
    reduce_only: bool | None = None
    strategy: str | None = None
    created_at: Instant | None = None


class Fill(Struct, frozen=True, gc=False, omit_defaults=True):
    """A fill first reported since the last snapshot. `realized_pnl` is gross of `fee`."""

    id: str
    at: Instant
    symbol: str
    side: OrderSide
    amount: Decimal
    price: Decimal
    order: str | None = None
    position_side: Side | None = None
    fee: Decimal | None = None
    fee_currency: str | None = None
    realized_pnl: Decimal | None = None
    cause: FillCause = "trade"
    client_order_id: str | None = None
    """The client order id of its order: whose order it was, also of one that never rested."""
    strategy: str | None = None
    trigger_price: Decimal | None = None
    """The trigger price of its order, if that was a stop, a take-profit or another conditional order."""


class Flow(Struct, frozen=True, gc=False, omit_defaults=True):
    """Money that entered (+) or left (−) the account, except by price moves and fills."""

    id: str
    at: Instant
    kind: FlowKind
    amount: Decimal
    currency: str


class CorporateAction(Struct, frozen=True, gc=False, omit_defaults=True):
    """A split or a redenomination that changes the quantity of `symbol` and its price inversely, with nothing traded.

    `ratio` is new units per old one: 4 for a split of 4 for 1, 0.1 for one of 1 for 10. None: the venue states the
    action without it.
    """

    id: str
    at: Instant
    symbol: str
    ratio: Decimal | None = None


class Balance(Struct, frozen=True, gc=False, omit_defaults=True):
    """A holding of one asset; `price` in the account's currency, `haircut` a fraction 0…1.

    `wallet` is the amount without unrealised profit, `equity` the amount with it, both in units of the asset;
    `price_at` is the venue time of `price`, unless the account's `marked_at` states it for all. With the account's
    `unrealized` and every balance's `wallet` known, the account's equity is Σ wallet × price + unrealized.
    """

    asset: str
    amount: Decimal
    price: Decimal | None = None
    haircut: Decimal | None = None
    wallet: Decimal | None = None
    equity: Decimal | None = None
    price_at: Instant | None = None


class Mark(Struct, frozen=True, gc=False, omit_defaults=True):
    """The mark price of a symbol that is held or was held in the last five minutes."""

    symbol: str
    mark_price: Decimal


class WatchedPrice(Struct, frozen=True, gc=False, omit_defaults=True):
    """The prices of a symbol on the account's watch list, whether or not it is held; `at` is the venue time of them.

    `reference_price` is the middle of the lowest and the highest price at which the venue takes orders, `price_limit`
    their distance from it as a fraction.
    """

    symbol: str
    mark_price: Decimal | None = None
    index_price: Decimal | None = None
    last_price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    at: Instant | None = None
    reference_price: Decimal | None = None
    price_limit: Decimal | None = None


class LimitUse(Struct, frozen=True, gc=False, omit_defaults=True):
    """How much of one of the venue's rate limits is used, in the venue's own units; `limit` is above 0."""

    name: str
    used: Decimal
    limit: Decimal


class Withdrawals(Struct, frozen=True, gc=False, omit_defaults=True):
    """Whether the venue has suspended withdrawals of an asset, on all of its chains."""

    asset: str
    suspended: bool


class Rate(Struct, frozen=True, gc=False, omit_defaults=True):
    """The price of one unit of the account's currency in another `currency`, by the account's venue."""

    currency: str
    price: Decimal


class Instrument(Struct, frozen=True, gc=False, omit_defaults=True):
    """The trading rules of a symbol, valid until they are reported again."""

    symbol: str
    contract_size: Decimal | None = None
    inverse: bool = False
    amount_step: Decimal | None = None
    price_step: Decimal | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    min_notional: Decimal | None = None
    price_band: Decimal | None = None
    state: InstrumentState | None = None


class Liquidity(Struct, frozen=True, gc=False, omit_defaults=True):
    """The liquidity of a symbol's market. Depths and volume are in contracts, `over` in seconds.

    `bid_depth` and `ask_depth` are the resting amounts within the fraction `within` of the best price; `volume` was
    traded in the last `over` seconds; `volatility` is daily, as a fraction.
    """

    symbol: str
    bid_depth: Decimal | None = None
    ask_depth: Decimal | None = None
    within: Decimal | None = None
    volume: Decimal | None = None
    over: float | None = None
    volatility: float | None = None


class Health(Struct, frozen=True, gc=False, omit_defaults=True):
    """Statistics of polling the venue for this snapshot: latency, counts of requests and of failures."""

    latency_ms: float | None = None
    requests: int | None = None
    errors: int | None = None
    timeouts: int | None = None
    malformed: int | None = None
    rate_limited: int | None = None
    clock_skew_ms: float | None = None
    limits: tuple[LimitUse, ...] | None = None
    """The venue's rate limits with what is used of them; absent if the venue does not state it."""


class AccountSnapshot(Struct, frozen=True, gc=False, omit_defaults=True):
    """One account as its venue reported it. `positions=()` means flat; `positions=None` means unknown.

    With a `quality` other than `ok`, the numbers are the last known ones: displayed to people, unknown to triggers.
    """

    account: str
    venue: str
    market: Market
    currency: str
    quality: Quality
    reason: str | None = None
    observed_at: Instant | None = None
    equity: Decimal | None = None
    free: Decimal | None = None
    margin_used: Decimal | None = None
    maintenance_margin: Decimal | None = None
    margin_mode: str | None = None
    position_mode: str | None = None
    balances: tuple[Balance, ...] | None = None
    flows: tuple[Flow, ...] | None = None
    positions: tuple[Position, ...] | None = None
    orders: tuple[Order, ...] | None = None
    fills: tuple[Fill, ...] | None = None
    instruments: tuple[Instrument, ...] | None = None
    health: Health | None = None
    liquidity: tuple[Liquidity, ...] | None = None
    unrealized: Decimal | None = None
    """Unrealised profit, from the same answer as `equity`."""
    wallet_as_of: Instant | None = None
    positions_as_of: Instant | None = None
    orders_as_of: Instant | None = None
    """The time of the request that listed `orders`, by the clock of `positions_as_of`; absent if it is not known."""
    marked_at: Instant | None = None
    """Venue time of each position's `mark_price` without a `mark_at`, and of each balance's `price` without a
    `price_at`: written once where all prices are of one moment."""
    fills_as_of: Instant | None = None
    flows_as_of: Instant | None = None
    """Venue time up to which all rows are known to be complete; absent if unknown."""
    row_lag_s: float | None = None
    """The measured delay of the venue's rows, in seconds."""
    complete: bool | None = None
    """False if the account holds products that the adapter does not read."""
    marks: tuple[Mark, ...] | None = None
    rates: tuple[Rate, ...] | None = None
    corporate_actions: tuple[CorporateAction, ...] | None = None
    """Splits and the like that became known since the last snapshot; absent if unknown."""
    watched: tuple[WatchedPrice, ...] | None = None
    """The prices of the account's watch list; absent without one, and if they were not read."""
    withdrawals: tuple[Withdrawals, ...] | None = None
    """The assets of which the venue states whether they can be withdrawn; absent if it does not."""
    adl_ranks: int | None = None
    """The highest rank in the venue's queue of automatic deleveraging; `Position.adl_rank` counts from 0 to it."""


EventKind = Literal[
    "reset",
    "pause",
    "resume",
    "approve",
    "lock",
    "halt",
    "cancel",
    "unlock",
    "flag",
    "close",
    "apply",
    "reload",
    "give_up",
    "restate",
    "acknowledge",
    "silence",
]


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """An operator command or a reload received since the last snapshot; `scope` as in `account/main`."""

    id: str
    at: Instant
    kind: EventKind
    scope: str | None = None
    author: str | None = None
    reason: str | None = None
    cause: Cause | None = None
    force: bool = False
    plan: str | None = None
    """The saved plan of an `apply`: the text of its file."""
    decision: str | None = None
    """The decision whose closing a `give_up` ends, on the account of its scope or on all accounts."""
    change: str | None = None
    """The id of the unexplained change that a `restate` settles."""
    restated_as: ChangeCause | None = field(default=None, name="as")
    """What a `restate` settles it as: the key `as`."""
    lock: LockMode | None = None
    """The lock that a `lock`, a `halt` or a `pause` writes on its scope, and a `close` before its first order."""
    until: Instant | None = None
    """The end of that lock, of the `flag` or of the `pause`; absent: none."""
    side: Side | None = None
    """The side of its scope, or of its `symbols`, that the command is about; absent: both."""
    symbols: tuple[str, ...] | None = None
    """The symbols of its scope that the command is about; absent: all."""
    all_orders: bool = False
    """Whether a `halt` or a `cancel` also cancels stops and exits; otherwise only what can add risk."""
    leverage: Decimal | None = None
    """The gross per equity to which a `close` reduces its scope; absent: it closes all of it."""
    ids: tuple[str, ...] | None = None
    """The decisions that a `resume`, an `unlock` or a `reset` ends, which its author has seen; absent: all of its
    scope. Of a `silence` without end: the silences that it ends."""
    flag: str | None = None
    """The name of the flag that a `flag` sets or clears."""
    is_set: bool | None = field(default=None, name="set")
    """Whether a `flag` sets it or clears it: the key `set`."""
    number: int | None = None
    """The number of the newest firing that was shown to whoever gives an `acknowledge`: later ones still escalate."""
    policy: str | None = None
    """The policy whose messages a `silence` holds; absent: any."""
    approves: str | None = None
    """What an `approve` approves, such as the step of a way back; its author is verified."""
    matching: dict[str, tuple[str, ...]] | None = None
    """What a `silence` holds besides its policy and scope: key of a route's `match`, or `label/KEY` → values, one of
    which the message has; absent: any."""
    most: Decimal | None = None
    """The contracts above which a `close` touches no position and is refused, as for a drill; absent: none."""


class ExternalAlert(Struct, frozen=True, gc=False, omit_defaults=True):
    """An alert of a monitoring system, as its last notification states it (Alertmanager's webhook, version 4)."""

    name: str
    status: Literal["firing", "resolved"]
    received_at: Instant
    labels: dict[str, str] = {}
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    """When it ends unless it is notified again; absent: not before it is resolved."""


OrderFate = Literal["pending", "unconfirmed", "accepted", "rejected", "done"]
"""The fate of an order of ours: `pending` waits for the answer to its request, `unconfirmed` has had none in time."""


class OwnOrder(Struct, frozen=True, gc=False, omit_defaults=True):
    """An order that the runner itself sent, by its journal: every unfinished one, and each whose fate became known
    since the last scheduled snapshot, so that passes between two ticks may repeat it.

    `reason` says why the venue refused it. A refusal of a reduce-only order because nothing is left to close is `done`.
    """

    client_order_id: str
    account: str
    symbol: str
    fate: OrderFate
    sent_at: Instant
    at: Instant
    """When the fate became known, or the time of the snapshot while it has not."""
    reason: str | None = None


class Residual(Struct, frozen=True, gc=False, omit_defaults=True):
    """The part of a position that a close has not closed yet, in contracts."""

    account: str
    symbol: str
    position_side: Side
    contracts: Decimal


ClosingStatus = Literal["planned", "closing", "flat", "residual", "blocked", "abandoned"]
IN_PROGRESS: tuple[ClosingStatus, ...] = ("planned", "closing")
"""The statuses of a close that has not ended."""
ENDED_SHORT: tuple[ClosingStatus, ...] = ("residual", "blocked", "abandoned")
"""The statuses of a close that has ended without reaching every target."""


class Closing(Struct, frozen=True, gc=False, omit_defaults=True):
    """The progress of closing for one decision. `cost` is fees and slippage so far, ≥ 0, in the account's currency."""

    decision: str
    status: ClosingStatus
    residual: tuple[Residual, ...] = ()
    cost: Decimal | None = None
    scope: str | None = None


class LockPart(Struct, frozen=True, omit_defaults=True):
    """The part of a scope that a lock reaches: what would open or enlarge a position of `side` in `symbols`.

    `until` null: no end. Without `side` both sides, without `symbols` all symbols.
    """

    mode: LockMode
    until: Instant | None
    side: Side | None = None
    symbols: tuple[str, ...] | None = None

    @property
    def is_everything(self) -> bool:
        """Whether it is the whole scope."""
        return self.side is None and self.symbols is None

    def reaches(self, side: Side, symbol: str) -> bool:
        """Whether it reaches the position."""
        return self.side in (None, side) and (self.symbols is None or symbol in self.symbols)


class WrittenLock(Struct, frozen=True, gc=False, omit_defaults=True):
    """A trading lock of ours that is in its file: which decision of which policy wrote it, and since when.

    `accounts`: the accounts that it reaches.
    """

    decision: str
    policy: str
    scope: str
    since: Instant
    accounts: tuple[str, ...]
    stage: str | None = None
    """The stage that has fired; None for a lock on suspicion or by hand."""
    only: tuple[LockPart, ...] = ()
    """The parts of the accounts that it locks; empty: all of them."""
    command: str | None = None
    """Of one by hand: the command that is no plain lock, such as `halt` and `pause`."""
    author: str | None = None
    """Of one by hand: who ordered it."""
    reason: str | None = None
    """Of one by hand: why."""

    def reaches(self, side: Side, symbol: str) -> bool:
        """Whether it locks the position, in the accounts that it reaches."""
        return not self.only or any(part.reaches(side, symbol) for part in self.only)


class Snapshot(Struct, frozen=True, gc=False, omit_defaults=True):
    """The complete input of one tick. `as_of` is the only time that decisions use."""

    as_of: Instant
    accounts: tuple[AccountSnapshot, ...]
    format: Literal["killswitch.snapshot/v1"]
    scheduled: bool = True
    due: Instant | None = None
    """When the scheduled tick was due; absent of other snapshots and in recordings of a version without it."""
    heartbeats: dict[str, Instant] = {}
    alerts: tuple[ExternalAlert, ...] = ()
    alerts_as_of: Instant | None = None
    """When the receiver of alerts was last known to work; absent: there is none, so that no alert is known."""
    own_orders: tuple[OwnOrder, ...] | None = None
    """Absent in a recording of a version without it."""
    events: tuple[Event, ...] = ()
    closings: tuple[Closing, ...] = ()
    locks: tuple[WrittenLock, ...] = ()
    """The trading locks in force that are written; empty in a recording of a version without it."""
    missing: int = 0
    """The number of earlier snapshots that a recording could not write. Decisions do not use it."""
    sentinel: str | None = None
    """Why everything is halted by a sentinel file; absent: there is none."""
    unwritten: str | None = None
    """Why records are in memory only, so that commands that loosen are refused; absent: they are durable."""


_ENCODER = msgjson.Encoder(decimal_format="string")

decode_snapshot = msgjson.Decoder(Snapshot).decode
"""Decode one line of a recording; `msgspec.ValidationError` or `msgspec.DecodeError` names the place of a mistake."""


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode a snapshot as one line of a recording, without the newline."""
    return _ENCODER.encode(snapshot)
