"""Conversion of Deribit's lists, and the equity of an account there.

Deribit books profits and losses of futures at the daily settlement only: until then the balance does not change. Equity
is the balance, the realised and unrealised profit of futures in the session, and the value of options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import Row, UnreadableError, decimal, positive, required_number, required_text, total
from killswitch.model.snapshot import Balance, Flow, FlowKind, Position
from killswitch_ccxt.equity import (
    AccountEquity,
    from_dollars,
    optional_from_dollars,
    rates_in_dollars,
    unrealized_of,
    value_of,
)
from killswitch_ccxt.fills import ledger_flow

FLOWS: Final[Mapping[str, FlowKind]] = {"deposit": "deposit", "withdrawal": "withdrawal", "transfer": "transfer"}
"""`type` of an entry of the transaction log → kind of a flow."""
PERIODS = frozenset({"perpetual", "day", "week", "month"})
"""Lifetimes of futures; with any other value it is unknown whether they expire."""


def flow_of(row: Row) -> Flow | None:
    """An entry of the transaction log as a flow; None where it is no deposit, withdrawal or transfer."""
    what = f"log entry {row.get('id')}"
    kind = required_text(row.get("type"), what)
    if kind not in FLOWS:
        return None
    return ledger_flow(
        kind, FLOWS, what,
        number=row.get("id"), at=row.get("timestamp"), amount=row.get("change"), currency=row.get("currency"),
    )  # fmt: skip


def is_complete_rule(rule: Row) -> bool:
    """Whether a contract states its lifetime, and settles in one of its own coins: otherwise it would be another
    contract."""
    if not rule.get("contract"):
        return True
    has_lifetime = rule.get("option") or (rule.get("info") or {}).get("settlement_period") in PERIODS
    return bool(has_lifetime) and rule.get("settle") in (rule.get("base"), rule.get("quote"))


def position_row(info: Row, symbol: str | None) -> dict[str, Any]:
    """A position under ccxt's names; ccxt treats every direction except `buy` as short.

    UnreadableError where the direction contradicts the signed size, or one of them is missing.
    """
    name, direction = info.get("instrument_name"), info.get("direction")
    size = required_number(info.get("size"), f"the size of position {name}")
    if size and direction != ("buy" if size > 0 else "sell"):
        raise UnreadableError(f"position {name}: its size is {size}, and its direction {direction!r}")
    return {
        "symbol": symbol if symbol is not None else name, "side": "long" if size > 0 else "short", "contracts": size,
        "entryPrice": info.get("average_price"), "markPrice": info.get("mark_price"), "leverage": info.get("leverage"),
        "liquidationPrice": info.get("estimated_liquidation_price"), "info": info,
    }  # fmt: skip


ROUNDED: Final = Decimal("1e-6")
"""The difference between two profits, as a share of the position's value, that counts as rounding."""


def entry_of(position: Position, info: Row, *, inverse: bool) -> Decimal | None:
    """The price from which Deribit measures the unrealised profit of a future; None where it is unknown.

    `average_price` is that of the trades. A settlement books the profit up to the mark and leaves it as it is; the
    profit then counts from `settlement_price`, or from a mean of that and of later trades, which no field states. A
    price beyond all of these is none: a field is wrong.
    """
    profit, mark, size = decimal(info.get("floating_profit_loss")), position.mark_price, position.contracts
    if profit is None or mark is None:
        return None
    sign = 1 if position.side == "long" else -1
    stated = [it for it in (position.entry_price, positive(info.get("settlement_price"))) if it is not None]
    for price in stated:
        gain = sign * size * (1 / price - 1 / mark if inverse else mark - price)
        if abs(gain - profit) <= ROUNDED * (size / mark if inverse else size * mark):
            return price
    found = 1 / mark + sign * profit / size if inverse else mark - sign * profit / size
    entry = 1 / found if inverse and found else found
    return entry if min(*stated, mark) <= entry <= max(*stated, mark) else None


def rights_of(keys: Sequence[Row], key: str) -> KeyRights:
    """The permissions of one key in the list of the account's keys."""
    own_rows = [it for it in keys if it.get("client_id") == key]
    if not own_rows:
        return KeyRights(note="the venue's list of keys lacks this one")
    scopes = dict(each.partition(":")[::2] for each in str(own_rows[0].get("max_scope", "")).split())
    return KeyRights(
        read=scopes.get("account") in ("read", "read_write"),
        trade=scopes.get("trade") == "read_write",
        withdraw=scopes.get("wallet") == "read_write",
        transfer=scopes.get("wallet") == "read_write",
        bound_to_addresses=bool(own_rows[0].get("ip_whitelist")),
    )


PRICE_DRIFT: Final = Decimal("0.005")
"""Largest difference between the total and the sum of the currencies, as a share of the total: prices change between
two answers."""


def has_cross_collateral(summary: Row) -> bool:
    """Whether all currencies of the account are collateral, by its margin model where there is no flag.

    UnreadableError where both are missing or contradict each other.
    """
    enabled, model = summary.get("cross_collateral_enabled"), str(summary.get("margin_model") or "")
    by_model = {"cross": True, "segregated": False}.get(model.partition("_")[0])
    stated = {each for each in (enabled, by_model) if each is not None}
    if len(stated) != 1 or not stated <= {True, False} or isinstance(enabled, int) is not isinstance(enabled, bool):
        raise UnreadableError(
            f"the account does not state whether it has cross collateral: cross_collateral_enabled is {enabled!r}, "
            f"margin_model {model!r}"
        )
    return stated.pop() is True


def positions_margin(equity: AccountEquity, rows: Sequence[Row]) -> Decimal | None:
    """The part of the account's initial margin, which includes orders, that belongs to positions; `rows` of all of
    them.

    It is unknown for an account without positions: an order may rest in an instrument without a row.
    """
    if not any(decimal(row["contracts"]) for row in rows):
        return None
    orders = total(decimal(row["info"].get("open_orders_margin")) for row in rows)
    return None if equity.margin_used is None or orders is None else max(equity.margin_used - orders, Decimal(0))


def single_currency_equity(row: Row) -> AccountEquity:
    """The equity of an account in one currency. `margin_used` is that of positions and orders together."""
    own = _balance(row, Decimal(1))
    return AccountEquity(
        equity=own.amount,
        free=decimal(row.get("available_funds")),
        margin_used=decimal(row.get("initial_margin")),
        maintenance_margin=decimal(row.get("maintenance_margin")),
        margin_mode="cross",
        balances=(own,),
        unrealized=unrealized_of((own,)),
        has_orders_in_maintenance=_orders_maintained(row),
    )


def cross_collateral_equity(
    first: Row, summaries: Sequence[Row], currency: str, dollars: Mapping[str, Decimal]
) -> AccountEquity:
    """The equity with cross collateral. `first` has the totals, in dollars; `dollars` is Deribit's index of each
    currency.

    Deribit calculates its total at an index of another moment, so it changes by prices that no balance has: where the
    sum of the currencies is near the total, the sum is the equity. UnreadableError where the account's currency has no
    index.
    """
    own = dollars.get(currency)

    equity = from_dollars(required_number(first.get("total_equity_usd"), "the account's total equity"), own, currency)
    prices = {asset: price / own for asset, price in dollars.items()} if own else {}
    balances = tuple(_balance(it, prices.get(str(it.get("currency")))) for it in summaries)
    parts = value_of(balances)
    profit = unrealized_of(balances) if all(it.price is not None for it in balances) else None
    if profit is not None and abs(parts - equity) <= PRICE_DRIFT * abs(equity):
        equity = parts
    else:
        profit = None
    return AccountEquity(
        equity=equity,
        maintenance_margin=optional_from_dollars(first.get("total_maintenance_margin_usd"), own, currency),
        margin_mode="cross",
        balances=balances,
        unrealized=profit,
        rates=rates_in_dollars(own, currency),
        has_orders_in_maintenance=_orders_maintained(first),
    )


def _orders_maintained(row: Row) -> bool:
    """Whether the maintenance margin may include orders: that of a portfolio account may, that of a standard one
    does not."""
    return not str(row.get("margin_model") or "").endswith("_sm")


def _balance(row: Row, price: Decimal | None) -> Balance:
    """The balance of one currency. Its wallet is the balance with the profit that futures have realised since the
    last settlement, which Deribit does not book before the next one. The rest of the equity is unrealised profit and
    the value of options. Where one of the two is missing, the wallet is unknown: Deribit states both, even if they
    are zero."""
    name = str(row.get("currency"))
    equity, balance = required_number(row.get("equity"), f"the equity in {name}"), decimal(row.get("balance"))
    realized = decimal(row.get("futures_session_rpl"))
    wallet = None if balance is None or realized is None else balance + realized
    return Balance(name, equity, price, wallet=wallet, equity=equity)
