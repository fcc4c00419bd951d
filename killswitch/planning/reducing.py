"""What an order does to an account: the one judgement of the gate, `halt`, `cancel` and the watch for breaches.

| effect   | meaning                                                                                            |
|----------|----------------------------------------------------------------------------------------------------|
| bounded  | the venue itself keeps it from opening anything: it is an exit of any size, whatever else rests    |
| proved   | it fits the position less everything else on its side that could be filled: an exit                |
| mixed    | more than that, and at least something of it reduces: an entry in its whole amount                 |
| assumed  | the position is not known as of now, and the order claims to be an exit and fits the last known one |
| unproved | it could be an exit, and nothing proves or disproves it                                            |
| entry    | everything else                                                                                    |

A venue bounds an order with a reduce-only flag (or for the whole position) where account, market and type of the order
enforce the flag, the closing side in hedge mode, and a spot order that receives cash and pays no cash. Orders of the
other side change nothing: what they would open may never be filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Market, Order, OrderSide, Position, Side
from killswitch.planning.spot_routes import base_of, quote_of
from killswitch.policy.schema.unwinding import DEFAULT_STABLES
from killswitch.valuation.position_measures import ZERO

OrderEffect = Literal["bounded", "proved", "mixed", "assumed", "unproved", "entry"]
OrderKind = Literal["market", "limit", "stop", "take_profit", "trailing_stop"]
PositionName = tuple[str, Side]
"""Symbol and side."""

INFINITE: Final = Decimal("Infinity")


class AccountHoldings(Struct, frozen=True):
    """What an account holds, and what its venue keeps from opening; everything that orders are judged by.

    `sizes`: the contracts that can be reduced, by position; None: unknown. `cash`: assets that count as money.
    `flags`: the types of orders whose reduce-only flag the venue enforces in this account; None: not known, so that
    only a flag that the venue itself reports counts. `is_current`: whether the sizes are known as of now.
    """

    market: Market
    position_mode: str | None
    sizes: Mapping[PositionName, Decimal] | None
    cash: frozenset[str]
    borrows: bool = False
    """Whether a spot account owes anything, so that its sales are not bounded by its balance."""
    flags: frozenset[OrderKind] | None = None
    is_current: bool = True


class Judgement(Struct, frozen=True):
    """The effect of an order. `room`: the contracts on its side that can still be reduced; None: unknown."""

    effect: OrderEffect
    room: Decimal | None = None

    @property
    def is_exit(self) -> bool:
        """Whether nothing that the order can do opens or enlarges a position."""
        return self.effect in ("bounded", "proved")

    @property
    def is_entry(self) -> bool:
        """Whether the order can open or enlarge a position, and this is known."""
        return self.effect in ("mixed", "entry")


def holdings_of(
    account: AccountSnapshot,
    *,
    cash: Iterable[str] = DEFAULT_STABLES,
    flags: frozenset[OrderKind] | None = None,
    is_current: bool = True,
) -> AccountHoldings:
    """The holdings of a snapshot. `cash`: assets that count as money next to the account's currency."""
    positions = account.positions
    return AccountHoldings(
        market=account.market,
        position_mode=account.position_mode,
        sizes=None if positions is None else _sizes(positions, account.position_mode),
        cash=frozenset((account.currency, *cash)),
        borrows=any(position.side == "short" for position in positions or ()),
        flags=flags,
        is_current=is_current,
    )


def judge(
    order: Order, holdings: AccountHoldings, taken: Decimal, *, is_reported: bool = True, claims_exit: bool = False
) -> Judgement:
    """What the order does next to others on its side that may fill `taken` contracts.

    `is_reported`: the venue itself states the order with its flag; otherwise a bot claims it, and the flag counts only
    where the venue is known to enforce it. `claims_exit`: the order says that it only reduces.
    """
    if is_bounded(order, holdings, is_reported=is_reported):
        return Judgement("bounded")
    if _opens(order, holdings):
        return Judgement("entry", ZERO)
    if holdings.sizes is None:
        return Judgement("unproved")
    room = max(ZERO, holdings.sizes.get(reduced_by(order), ZERO) - taken)
    fits = left_of(order) <= room
    if not holdings.is_current:
        # Where a flag exists, the way out is to send it: a claim counts only where there is none.
        has_flag = bool(holdings.flags) and kind_of(order) in (holdings.flags or ())
        return Judgement("assumed" if fits and claims_exit and not has_flag else "unproved", room)
    if fits:
        return Judgement("proved", room)
    return Judgement("mixed" if room > ZERO else "entry", room)


def is_bounded(order: Order, holdings: AccountHoldings, *, is_reported: bool = True) -> bool:
    """Whether the venue itself keeps the order from opening anything, whatever its size and what else is filled.

    In hedge mode with a position side the side decides, not the flag. An amount of zero is that of the whole position.
    """
    if _is_in_hedge_mode(order, holdings):
        return _closes_its_position_side(order)
    if (order.reduce_only is True or not order.amount) and _is_flag_enforced(order, holdings, is_reported=is_reported):
        return True
    return _is_cash_account(holdings) and _receives_cash(order, holdings) is True


def reduced_by(order: Order) -> PositionName:
    """The position that the order reduces, if it is no entry."""
    return order.symbol, "long" if order.side == "sell" else "short"


def enlarged_by(symbol: str, side: OrderSide, position_side: Side | None) -> PositionName | None:
    """The position that a purchase or a sale opens or enlarges, as far as it does not reduce the other side.

    None for the closing side of a position side. For orders and for fills, whose position side is what hedge mode has.
    """
    opened: Side = "long" if side == "buy" else "short"
    return (symbol, opened) if position_side in (None, opened) else None


def left_of(order: Order) -> Decimal:
    """Contracts that may still be filled; infinite for an order of the whole position, or of insane size."""
    if not sane(order.amount) or order.amount <= ZERO:
        return INFINITE
    filled = order.filled
    return max(ZERO, order.amount - (filled if filled is not None and sane(filled) else ZERO))


def kind_of(order: Order) -> OrderKind:
    """The kind of an order from the venue's word for its type; one without a known word goes by its trigger price."""
    word = (order.type or "").lower()
    if "trailing" in word:
        return "trailing_stop"
    if "take" in word:
        return "take_profit"
    if "stop" in word or order.trigger_price is not None:
        return "stop"
    return "limit" if "limit" in word or order.price is not None else "market"


def _opens(order: Order, holdings: AccountHoldings) -> bool:
    """Whether an unbounded order opens, whatever its size and the size of the position.

    Where the mode is unknown, an exit must be one under both meanings. On spot with unknown holdings, a sale for an
    asset that is not known to be cash may be the only way out of a holding.
    """
    if order.position_side is not None and holdings.position_mode != "one_way":
        return not _closes_its_position_side(order)
    if not _is_cash_account(holdings):
        return False
    return order.side == "buy" or (holdings.sizes is not None and _receives_cash(order, holdings) is False)


def _is_in_hedge_mode(order: Order, holdings: AccountHoldings) -> bool:
    return holdings.position_mode == "hedge" and order.position_side is not None


def _closes_its_position_side(order: Order) -> bool:
    return (order.side == "sell") == (order.position_side == "long")


def _is_flag_enforced(order: Order, holdings: AccountHoldings, *, is_reported: bool) -> bool:
    """Whether the venue enforces the flag. What a venue reports with it is bounded, except on spot, which has none."""
    if holdings.flags is not None:
        return kind_of(order) in holdings.flags
    return is_reported and holdings.market != "spot"


def _is_cash_account(holdings: AccountHoldings) -> bool:
    """Whether the account cannot hold less than nothing of an asset."""
    return holdings.market == "spot" and not holdings.borrows


def _receives_cash(order: Order, holdings: AccountHoldings) -> bool | None:
    """Whether the order pays an asset that is no cash and receives one that is; None where the symbol names none."""
    quote = quote_of(order.symbol)
    if quote is None:
        return True if order.side == "sell" else None
    paid, received = (base_of(order.symbol), quote) if order.side == "sell" else (quote, base_of(order.symbol))
    return received in holdings.cash and paid not in holdings.cash


def _sizes(positions: Iterable[Position], position_mode: str | None) -> dict[PositionName, Decimal]:
    """Contracts by position, of all its rows; in one-way mode less those of the other side."""
    gross: dict[PositionName, Decimal] = {}
    for position in positions:
        if sane(position.contracts):
            gross[position.key] = gross.get(position.key, ZERO) + position.contracts
    if position_mode != "one_way":
        return gross
    return {(symbol, side): size - gross.get((symbol, _other(side)), ZERO) for (symbol, side), size in gross.items()}


def _other(side: Side) -> Side:
    return "short" if side == "long" else "long"
