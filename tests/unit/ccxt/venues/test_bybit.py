"""Bybit's codes as rejection reasons, its recorded answers, and fields of its rows that ccxt leaves out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import AccountSnapshot, Position, Rate
from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    RejectReason,
    RequestExpiredError,
    VenueDownError,
)
from killswitch_ccxt.errors import GoneError, VenueAnswer, as_venue_error
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_ccxt.venues.bybit.flows import flow_of
from killswitch_ccxt.venues.bybit.rows import account_equity, rights_of, row_report, spot_balance
from tests.faults.exchange import Market
from tests.wire.bybit import payloads

D = Decimal
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT", "LTC/USDT:USDT")
ASKED = OrderRequest("ks1", "BTC/USDT:USDT", "sell", "long", D(1), reduce_only=True)


def _error(code: int, text: str = "", status: int = 200) -> Exception:
    body = {"retCode": code, "retMsg": text}
    said = Bybit.codes_of(VenueAnswer(status, {}, body, json.dumps(body), "/v5/order/create"))
    meaning = next(Bybit.codes[it] for it in said if it in Bybit.codes)
    return as_venue_error(meaning, text, is_change=True, was_sent=True)


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (110017, "current position is zero, cannot fix reduce-only order qty", "already_flat"),
        (110017, "orderQty will be truncated to zero", "blocked_by_order"),
        (110072, "OrderLinkedID is duplicate", "duplicate_client_order_id"),
        (110007, "ab not enough for new order", "insufficient_margin"),
        (110094, "Order does not meet minimum order value 5USDT", "below_minimum"),
        (10001, "The number of contracts exceeds minimum limit allowed", "below_minimum"),
        (10001, "The number of contracts exceeds maximum limit allowed: too large", "above_maximum"),
        (10001, "position idx not match position mode", "other"),
        (110003, "Order price is out of permissible range", "price_band"),
        (30208, "The order price is higher than the maximum buying price.", "price_band"),
        (110074, "This contract is not live", "market_closed"),
        (110023, "Currently you can only reduce your positions on this contract.", "market_closed"),
        (10003, "API key is invalid.", "permission"),
        (10004, "Error sign", "permission"),
        (10005, "Permission denied", "permission"),
        (10010, "Unmatched IP", "permission"),
        (110020, "Not allowed to have more than 500 active orders.", "blocked_by_order"),
        (110121, "Order price cannot be higher than 5, the price limitation", "price_band"),
        (110103, "Only Post-Only orders are available at this stage", "market_closed"),
        (110124, "Trading is temporarily restricted due to an active cooling-off period.", "market_closed"),
        (110132, "Product not available in your region", "permission"),
        (170381, "Order quantity too large.", "above_maximum"),
        (170229, "The sell quantity per order exceeds the estimated maximum sell quantity.", "above_maximum"),
        (170151, "The trading pair is not open yet", "market_closed"),
        (170201, "Invalid orderFilter parameter", "other"),
        (170226, "Your Spot Account for Margin Trading is being liquidated.", "other"),
        (-2015, "(Spot) Your api key has expired", "permission"),
    ],
)
def test_a_code_is_a_rejection_with_its_reason(code: int, text: str, reason: RejectReason) -> None:
    """Nothing was executed, with a reason: "Error Codes" of Bybit's v5 documentation, UTA and Spot."""
    error = _error(code, text)
    assert isinstance(error, OrderRejectedError)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (110001, GoneError), (170213, GoneError), (10006, RateLimitedError), (10018, RateLimitedError),
        (10000, FateUnknownError), (10016, FateUnknownError), (10014, FateUnknownError), (10002, RequestExpiredError),
        (429, FateUnknownError),  # a trading service under high load, which does not state what it did
        (-1, VenueDownError),  # the request expired before it was processed
        (170212, FateUnknownError), (170150, FateUnknownError),  # a cancel that is in progress, or failed
        (170190, GoneError),
    ],
)  # fmt: skip
def test_a_code_that_is_no_rejection_is_classified_by_what_is_known(code: int, kind: type[Exception]) -> None:
    """Gone, rate limited, unknown status, or certainly not executed."""
    assert type(_error(code)) is kind


def test_a_blocked_address_is_rate_limited() -> None:
    """Status 403 has no JSON; Bybit uses it for too many requests from one address."""
    said = tuple(Bybit.codes_of(VenueAnswer(403, {}, None, "access too frequent", "/v5/order/create")))
    assert Bybit.codes[said[0]].kind == "limited"


def test_headers_state_what_was_used_of_the_routes_own_limit() -> None:
    """Ten allowed and seven left are three used, of the requested route."""
    heads = {"x-bapi-limit": "10", "x-bapi-limit-status": "7"}
    assert Bybit.used_from(heads, "/v5/order/create") == {"create": 3}
    assert Bybit.used_from(heads, "/v5/market/time") == {}


def test_a_timer_is_offered_only_where_its_stream_leads_to_the_same_system() -> None:
    """Not in demo trading, which has none, and not where requests go elsewhere and streams would not."""
    plain = AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, "bybit")
    timer = Bybit.traits_for(plain).dead_man
    assert timer is not None
    assert (timer.reach, timer.shortest, timer.longest) == ("account", 6.0, 300.0)
    assert Bybit.traits_for(replace(plain, environment="demo")).dead_man is None
    assert Bybit.traits_for(replace(plain, endpoint="http://127.0.0.1:1")).dead_man is None


# Recorded answers


class Recorded:
    """A venue with given answers, path → body; every other list is empty."""

    def __init__(self, bodies: Mapping[str, Any], currency: str = "USDT") -> None:
        options: dict[str, object] = {"ccxt": {"recorded": sorted(bodies)}}
        keys = {"key": "k", "secret": "s"}
        self.bodies = bodies
        self.venue = CcxtVenue(AccountSpec("main", "ccxt", "swap", currency, None, options, keys, "bybit"), Bybit)

    async def _fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path.endswith("instruments-info"):
            linear = query["category"] == "linear" and "status" not in query
            return _listed([payloads.instrument(payloads.listing(it), Market(it)) for it in SYMBOLS if linear])
        if parts.path.endswith("market/time"):
            return {"retCode": 0, "result": {"timeSecond": "0", "timeNano": "0"}, "time": 0}
        given = self.bodies.get(parts.path)
        if given is None or query.get("category", "linear") != "linear" or query.get("settleCoin", "USDT") != "USDT":
            wallet = [{"totalEquity": "0", "coin": []}] if parts.path.endswith("wallet-balance") else []
            return _listed(wallet)
        return given

    async def _read(self) -> AccountSnapshot:
        client: Any = self.venue._client.ccxt  # what the venue would have answered
        client.fetch = self._fetch
        try:
            return await self.venue.snapshot()
        finally:
            await self.venue.close()

    def snapshot(self) -> AccountSnapshot:
        return asyncio.run(self._read())


def _listed(rows: list[Any]) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}, "time": 0}


def _payload(shared: Path, name: str) -> Any:
    return json.loads((shared / "data" / "payloads" / "bybit" / f"http_get_{name}.json").read_text())


ROUTES = {
    "positions": "/v5/position/list",
    "positions_with_open_time": "/v5/position/list",
    "wallet_balance": "/v5/account/wallet-balance",
    "wallet_balance_spot_short": "/v5/account/wallet-balance",
    "wallet_balance_with_spot_borrow": "/v5/account/wallet-balance",
    "orders_realtime": "/v5/order/realtime",
    "orders_realtime_tp_sl": "/v5/order/realtime",
    "orders_history_with_duplicate": "/v5/order/realtime",
    "orders_history": "/v5/order/realtime",
    "order_partially_filled_rejected": "/v5/order/realtime",
    "executions": "/v5/execution/list",
}


DIFFERENCES = {
    "wallet_balance": "-997.18783409", "wallet_balance_spot_short": "500.00000000",
    "wallet_balance_with_spot_borrow": "2000.00000000",
}  # fmt: skip
"""The totals of recorded balances less their coins: 3.31216591 − 1000.50, 3000 − 2500, 3000 − 1000."""


@pytest.mark.parametrize("name", ROUTES)
def test_every_recorded_answer_is_a_valid_part_of_a_snapshot(shared: Path, name: str) -> None:
    """It is read, and no missing value is read as zero.

    The balances are examples from documentation, whose totals differ from their coins: their components are left out.
    """
    seen = Recorded({ROUTES[name]: _payload(shared, name)}).snapshot()
    odd = None
    if ROUTES[name] == "/v5/position/list":  # beside them the account is empty here, which cannot be
        many = len(seen.positions or ())
        odd = f"equity: it is 0 beside {many} positions, so the answer lacks their settlement coin"
        assert seen.equity is None
    if name in DIFFERENCES:
        odd = f"unrealised profit: with the wallets it differs from the equity by {DIFFERENCES[name]} USDT"
    assert (seen.quality, seen.reason, seen.unrealized) == ("ok", odd, None if odd else 0)


@pytest.mark.parametrize(
    ("name", "wallet", "profit"),
    [("wallet_balance", "1000.50", "0"), ("wallet_balance_spot_short", "2500", "0"),
     ("wallet_balance_with_spot_borrow", "1000", "0")],
)  # fmt: skip
def test_a_recorded_balance_has_its_wallet_without_borrowed_amounts(
    shared: Path, name: str, wallet: str, profit: str
) -> None:
    """1000.50, 2500 and 1200 − 200 USDT, with nothing unrealised; coins with a zero balance are left out."""
    seen = account_equity(_payload(shared, name), "USDT")
    assert [(it.asset, it.wallet) for it in seen.balances or ()] == [("USDT", D(wallet))]
    assert seen.unrealized == D(profit)


def test_the_recorded_positions_are_two_and_the_flat_row_is_none(shared: Path) -> None:
    """Of the recorded rows, SOLUSDT has no side and no size: it is no position."""
    seen = Recorded({"/v5/position/list": _payload(shared, "positions")}).snapshot()
    rows = [(it.symbol, it.side, it.contracts, it.liquidation_price, it.unrealized_pnl) for it in seen.positions or ()]
    assert rows == [
        ("BTC/USDT:USDT", "long", D("0.5"), D(45000), D(250)),
        ("ETH/USDT:USDT", "short", D(5), D(3500), D(250)),
    ]
    (btc, eth) = seen.positions or ()
    assert (btc.margin, btc.adl_rank, eth.leverage, eth.mark_price) == (D(2500), 2, D(5), D(2950))
    assert isinstance(btc, Position)


def test_a_position_without_instrument_rules_makes_the_snapshot_malformed() -> None:
    """The reason names it; it is never left out."""
    row = {"symbol": "NEWUSDT", "size": "1", "side": "Buy", "positionIdx": 0}
    seen = Recorded({"/v5/position/list": _listed([row])}).snapshot()
    assert (seen.quality, seen.positions) == ("malformed", None)
    assert "NEWUSDT" in (seen.reason or "")


@pytest.mark.parametrize(("session", "entry"), [("52000", 52000), ("", 50000), (None, 50000)])
def test_the_entry_price_of_a_settled_contract_is_that_of_its_session(session: str | None, entry: int) -> None:
    """Contracts in USDC are settled every few hours: `avgPrice` stays, and profit counts from `sessionAvgPrice`."""
    row = {"symbol": "BTCUSDT", "size": "1", "side": "Buy", "positionIdx": 0, "avgPrice": "50000", "markPrice": "52500"}
    seen = Recorded({"/v5/position/list": _listed([row | {"sessionAvgPrice": session}])}).snapshot()
    assert [it.entry_price for it in seen.positions or ()] == [entry]


def test_a_position_of_negative_size_makes_the_snapshot_malformed() -> None:
    """Bybit writes sizes without a sign: a negative size is invalid."""
    row = {"symbol": "BTCUSDT", "size": "-1", "side": "Buy", "positionIdx": 0}
    seen = Recorded({"/v5/position/list": _listed([row])}).snapshot()
    assert (seen.quality, seen.positions) == ("malformed", None)


def test_the_recorded_stops_come_with_trigger_and_position_side(shared: Path) -> None:
    """A take-profit at 55,000 and a stop-loss at 48,000, both of the long."""
    seen = Recorded({"/v5/order/realtime": _payload(shared, "orders_realtime_tp_sl")}).snapshot()
    rows = [(it.id, it.trigger_price, it.reduce_only, it.position_side) for it in seen.orders or ()]
    assert rows == [("tp-order-001", D(55000), True, "long"), ("sl-order-001", D(48000), True, "long")]


def test_the_recorded_executions_keep_their_fees(shared: Path) -> None:
    """0.0150 and 0.9 USDT; profits that are missing are unknown."""
    seen = Recorded({"/v5/execution/list": _payload(shared, "executions")}).snapshot()
    rows = [(it.symbol, it.amount, it.fee, it.fee_currency, it.realized_pnl) for it in seen.fills or ()]
    assert rows == [
        ("BTC/USDT:USDT", D("0.100"), D("0.0150"), "USDT", None),
        ("ETH/USDT:USDT", D("0.500"), D("0.9000"), "USDT", None),
    ]


def test_the_recorded_rights_are_those_of_a_key_that_only_reads(shared: Path) -> None:
    """readOnly 1 may neither trade nor transfer; it is bound to three addresses and does not expire."""
    rights = rights_of(_payload(shared, "user_query_api")["result"], spot=False)
    assert (rights.trade, rights.withdraw, rights.transfer) == (False, False, False)
    assert (rights.bound_to_addresses, rights.expires_at, rights.note) == (True, None, "")


# Rows


def _wallet(total: str, *coins: tuple[str, str, str]) -> dict[str, Any]:
    rows = [
        {"coin": name, "equity": n, "usdValue": usd, "walletBalance": n, "spotBorrow": "0"} for name, n, usd in coins
    ]
    return {"result": {"list": [{"totalEquity": total, "totalInitialMargin": "", "coin": rows}]}}


def test_equity_in_dollars_is_divided_by_bybits_own_price_of_the_currency() -> None:
    """1,000 USDT at 999 dollars make a USDT 0.999 dollars; 2,997 dollars are 3,000 USDT."""
    seen = account_equity(_wallet("2997", ("USDT", "1000", "999"), ("BTC", "0.04", "1998")), "USDT")
    assert (seen.equity, seen.margin_used, seen.rates) == (D(3000), None, (Rate("USD", D("0.999")),))
    assert [(it.asset, it.amount, it.price, it.wallet) for it in seen.balances or ()] == [
        ("USDT", D(1000), D(1), D(1000)),
        ("BTC", D("0.04"), D(50_000), D("0.04")),
    ]
    assert seen.unrealized == 0


def test_equity_without_a_price_of_the_currency_is_unknown_and_zero_for_an_empty_account() -> None:
    """No row of the currency, no price, no number; no dollars are no USDT either."""
    with pytest.raises(UnreadableError, match="USDT"):
        account_equity(_wallet("2000", ("BTC", "0.04", "2000")), "USDT")
    assert account_equity(_wallet("0"), "USDT").equity == 0


def test_at_spot_the_borrowed_amount_of_a_coin_is_no_holding(shared: Path) -> None:
    """Of the recorded 1,200 USDT in the wallet 200 are borrowed: 1,000 are the account's."""
    assert spot_balance(_payload(shared, "wallet_balance_with_spot_borrow"))["total"] == {"USDT": D(1000)}


@pytest.mark.parametrize(
    ("row", "kind", "amount"),
    [
        ({"type": "SETTLEMENT", "funding": "-0.003676", "change": "-0.003676"}, "funding", "-0.003676"),
        ({"type": "SETTLEMENT", "funding": "0.5", "cashFlow": "7", "change": "7.5"}, "funding", "0.5"),
        ({"type": "TRANSFER_OUT", "change": "-100"}, "transfer", "-100"),
        ({"type": "INTEREST", "change": "-0.02"}, "interest", "-0.02"),
        ({"type": "FEE_REFUND", "change": "0.1"}, "rebate", "0.1"),
    ],
)
def test_a_row_of_the_log_is_a_flow_of_its_kind(row: dict[str, str], kind: str, amount: str) -> None:
    """Signed as money that came in; a session's realised profit is no funding."""
    flow = flow_of({"id": "7", "currency": "USDT", "transactionTime": "1672128000000", **row})
    assert flow is not None
    assert (flow.kind, flow.amount, flow.at) == (kind, D(amount), datetime(2022, 12, 27, 8, tzinfo=UTC))


def test_log_rows_of_fills_are_no_flows() -> None:
    """TRADE, LIQUIDATION and ADL are fills."""
    for told in ("TRADE", "LIQUIDATION", "ADL", "DELIVERY"):
        assert flow_of({"type": told, "change": "5", "id": "1", "transactionTime": "1"}) is None


def test_a_batch_row_is_classified_by_its_own_code_and_matched_to_its_order() -> None:
    """A good row is an open order, a bad one a rejection, and a row of another order is no answer."""
    good = row_report(ASKED, {"orderId": "1", "orderLinkId": "ks1"}, {"code": 0, "msg": "OK"})
    bad = row_report(ASKED, {"orderId": "", "orderLinkId": ""}, {"code": 110017, "msg": "current position is zero"})
    over = row_report(ASKED, {"orderId": ""}, {"code": 10006, "msg": "Too many visits!"})
    odd = row_report(ASKED, {"orderId": "1", "orderLinkId": "other"}, {"code": 0, "msg": "OK"})
    assert [getattr(good, "state", None), getattr(bad, "reason", None)] == ["open", "already_flat"]
    assert [type(over).__name__, type(odd).__name__] == ["RateLimitedError", "MalformedAnswerError"]


def test_a_key_that_may_withdraw_is_reported_with_its_expiry() -> None:
    """Its wallet rights contain Withdraw; an unbound key has * as its address, and an expiry."""
    rights = rights_of(
        {
            "readOnly": 0, "uta": 0, "ips": ["*"], "expiredAt": "2027-05-15T03:21:05Z",
            "permissions": {"ContractTrade": ["Order", "Position"], "Wallet": ["AccountTransfer", "Withdraw"]},
        },
        spot=False,
    )  # fmt: skip
    assert (rights.trade, rights.withdraw, rights.transfer, rights.bound_to_addresses) == (True, True, True, False)
    assert rights.expires_at == datetime(2027, 5, 15, 3, 21, 5, tzinfo=UTC)
    assert "not a unified account" in rights.note
