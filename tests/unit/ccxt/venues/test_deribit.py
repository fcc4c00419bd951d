"""Deribit through the adapter, on answers typed from its documents (https://docs.deribit.com)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from killswitch.model.venue import (
    AccountSpec,
    Call,
    FateUnknownError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    RejectReason,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import adapter
from tests.faults.exchange import Exchange
from tests.virtual_time import START, VirtualTime
from tests.wire.server import KEY, SECRET, Ask, Reply, WireVenue

T = TypeVar("T")
D = Decimal
PERPETUAL, LINEAR, OPTION = "BTC/USD:BTC", "BTC/USDC:USDC", "BTC/USD:BTC-251226-100000-C"
NOW = int(START.timestamp() * 1000)


def _instrument(name: str, kind: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "instrument_name": name, "kind": kind, "base_currency": "BTC", "counter_currency": "USD",
        "settlement_currency": "BTC", "settlement_period": "month", "is_active": True, "creation_timestamp": 1,
        "expiration_timestamp": 1766736000000, "taker_commission": 0.0005, "maker_commission": 0.0, **more,
    }  # fmt: skip


INSTRUMENTS = [
    _instrument("BTC-PERPETUAL", "future", {"settlement_period": "perpetual", "contract_size": 10.0,
                                            "min_trade_amount": 10.0, "tick_size": 0.5}),
    _instrument("BTC_USDC-PERPETUAL", "future", {"settlement_period": "perpetual", "contract_size": 0.0001,
                                                 "min_trade_amount": 0.0001, "tick_size": 1.0,
                                                 "counter_currency": "USDC", "settlement_currency": "USDC"}),
    _instrument("BTC-26DEC25-100000-C", "option", {"contract_size": 1.0, "min_trade_amount": 0.1, "tick_size": 0.0001,
                                                   "strike": 100000.0, "option_type": "call"}),
]  # fmt: skip
SUMMARY = {
    "currency": "BTC", "equity": 2.5, "balance": 2.4, "available_funds": 1.9, "initial_margin": 0.6,
    "maintenance_margin": 0.3, "margin_model": "segregated_sm", "cross_collateral_enabled": False,
    "futures_session_rpl": 0.0,
}  # fmt: skip
LONG = {
    "instrument_name": "BTC-PERPETUAL", "kind": "future", "direction": "buy", "size": 5000.0, "size_currency": 0.1,
    "average_price": 48000.0, "mark_price": 50000.0, "index_price": 49990.0, "initial_margin": 0.002,
    "maintenance_margin": 0.001, "floating_profit_loss": 0.004, "estimated_liquidation_price": 20000.0, "leverage": 50,
}  # fmt: skip
SHORT_CALL = {
    "instrument_name": "BTC-26DEC25-100000-C", "kind": "option", "direction": "sell", "size": -3.0, "delta": -0.7,
    "average_price": 0.02, "mark_price": 0.03, "index_price": 49990.0, "initial_margin": 0.3,
    "maintenance_margin": 0.2, "floating_profit_loss": -0.03,
}  # fmt: skip
ORDER = {
    "order_id": "BTC-1", "label": "kswa1", "instrument_name": "BTC-PERPETUAL", "direction": "sell", "amount": 5000.0,
    "filled_amount": 5000.0, "average_price": 50000.0, "price": 49500.0, "order_type": "market", "reduce_only": True,
    "order_state": "filled", "commission": 0.00005, "creation_timestamp": NOW, "last_update_timestamp": NOW,
    "time_in_force": "good_til_cancelled",
}  # fmt: skip
STOP = ORDER | {
    "order_id": "SLIB-1", "label": "", "order_type": "stop_market", "order_state": "untriggered",
    "price": "market_price", "trigger_price": 45000.0, "trigger": "mark_price", "filled_amount": 0.0,
    "average_price": 0.0,
}  # fmt: skip


class Answers(WireVenue):
    """Returns the result set for a path, or calls it with the request; an empty result for other paths."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(Exchange({}, lambda: (time.monotonic(), time.now())))
        self.results: dict[str, Any] = {
            "public/get_instruments": INSTRUMENTS,
            "private/get_account_summaries": {"summaries": [SUMMARY]},
            "private/get_user_trades_by_currency_and_time": {"trades": [], "has_more": False},
            "private/get_transaction_log": {"logs": [], "continuation": None},
            "public/get_time": NOW,
        }

    def answer(self, ask: Ask) -> Reply:
        result = self.results.get(ask.path.removeprefix("/api/v2/"), [])
        result = result(ask.params) if callable(result) else result
        return result if isinstance(result, Reply) else Reply({"jsonrpc": "2.0", "result": result})

    def asked(self, path: str) -> list[Mapping[str, Any]]:
        return [it.ask.params for it in self.seen if it.ask.path == f"/api/v2/{path}"]

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        return None

    def check(self, ask: Ask) -> None: ...

    def refused(self, error: OrderRejectedError) -> Reply:
        raise error

    def limited(self, wait: float) -> Reply:
        return error_reply(10028)

    def down(self) -> Reply:
        return error_reply(11051)


def error_reply(code: int, status: int = 400, text: str = "said so") -> Reply:
    return Reply({"jsonrpc": "2.0", "error": {"code": code, "message": text}}, status)


def run(
    talk: Callable[[Any], Awaitable[T]],
    answers: Mapping[str, Any] | None = None,
    currency: str = "BTC",
    watch: tuple[str, ...] = (),
) -> tuple[T, Answers]:
    """What `talk` returns with an adapter that gets these answers, and the venue with the requests."""
    time = VirtualTime()
    venue = Answers(time)
    venue.results |= answers or {}

    async def main() -> T:
        await venue.start()
        options: dict[str, object] = {"clock": time, "timeout": 5}
        keys = {"key": KEY, "secret": SECRET}
        venue_adapter: Any = adapter(
            AccountSpec("main", "ccxt", "swap", currency, venue.address, options, keys, exchange="deribit", watch=watch)
        )
        try:
            return await talk(venue_adapter)
        finally:
            await venue_adapter.close()
            await venue.stop()

    return time.run(main()), venue


def order(**more: Any) -> OrderRequest:
    return OrderRequest("kswa1", PERPETUAL, "sell", "long", D(5000), **({"reduce_only": True} | more))


def test_an_inverse_perpetual_is_counted_in_dollars_and_valued_in_coins() -> None:
    """5,000 USD at 50,000 are 0.1 BTC; a contract is one dollar, and a lot is ten."""
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [LONG]})
    assert (seen.quality, seen.equity, seen.free, seen.maintenance_margin) == ("ok", D("2.5"), D("1.9"), D("0.3"))
    (held,) = seen.positions
    assert (held.symbol, held.side, held.contracts, held.notional) == (PERPETUAL, "long", 5000, D("0.1"))
    assert (held.mark_price, held.liquidation_price, held.unrealized_pnl) == (50000, 20000, D("0.004"))
    rule = next(it for it in seen.instruments if it.symbol == PERPETUAL)
    assert (rule.contract_size, rule.inverse, rule.amount_step, rule.min_amount) == (1, True, 10, 10)
    assert seen.position_mode == "one_way"


def test_an_option_is_counted_in_coins_of_its_underlying() -> None:
    """Short 3 calls on one bitcoin each: 3 BTC, not an inverse contract of 3 dollars."""
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [SHORT_CALL]})
    (held,) = seen.positions
    assert (held.symbol, held.side, held.contracts, held.notional) == (OPTION, "short", 3, 3)
    rule = next(it for it in seen.instruments if it.symbol == OPTION)
    assert (rule.contract_size, rule.inverse) == (1, False)


def test_an_account_of_one_currency_has_the_positions_that_settle_in_it() -> None:
    """Without cross collateral the margin of a position in USDC is another account's money."""
    other = LONG | {"instrument_name": "BTC_USDC-PERPETUAL", "size": 0.2, "size_currency": 0.2}
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [LONG, other]})
    assert [it.symbol for it in seen.positions] == [PERPETUAL]


def _perpetual(**more: Any) -> dict[str, Any]:
    """A long of 5,000 USD that was bought at 40,000, with the mark at 50,000."""
    return LONG | {"average_price": 40000.0, "mark_price": 50000.0, "settlement_price": 0.0, **more}


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        # Before the first settlement the profit is 5,000 × (1 ÷ 40,000 − 1 ÷ 50,000) = 0.025 BTC.
        (_perpetual(floating_profit_loss=0.025), D(40000)),
        # It was settled at 50,000: what was unrealised is in the balance, and the average price is still 40,000.
        (_perpetual(floating_profit_loss=0.0, settlement_price=50000.0), D(50000)),
        # Settled at 46,000, and more was bought since at 48,000: 0.0073 BTC are measured from neither of the two.
        # 1 ÷ (1 ÷ 50,000 + 0.0073 ÷ 5,000) = 46,598.32…
        (_perpetual(floating_profit_loss=0.0073, settlement_price=46000.0), D("46598.32")),
        # Unknown without the profit, and where it contradicts the prices: 1 ÷ (1 ÷ 50,000 − 0.025 ÷ 5,000) = 66,667.
        (_perpetual(floating_profit_loss=None, settlement_price=46000.0), None),
        (_perpetual(floating_profit_loss=-0.025, settlement_price=46000.0), None),
    ],
)
def test_the_entry_price_is_the_one_from_which_profit_is_unrealised(
    row: Mapping[str, Any], entry: Decimal | None
) -> None:
    """At 08:00 unrealised profit becomes balance, and the entry price becomes the mark; equity and size stay."""
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [row]})
    (held,) = seen.positions
    assert (held.entry_price is None) is (entry is None)
    assert entry is None or abs(held.entry_price - entry) < D("0.01")


def test_a_short_of_a_linear_perpetual_counts_from_its_settlement_too() -> None:
    """Short 0.2 at 60,000, settled at 55,000, and the mark at 50,000: 1,000 USDC since then."""
    row = LONG | {
        "instrument_name": "BTC_USDC-PERPETUAL", "direction": "sell", "size": -0.2, "average_price": 60000.0,
        "mark_price": 50000.0, "settlement_price": 0.0, "floating_profit_loss": 1000.0,
    }  # fmt: skip
    summary = SUMMARY | {"currency": "USDC", "equity": 9000.0, "balance": 8000.0}
    answers = {"private/get_positions": [row], "private/get_account_summaries": {"summaries": [summary]}}
    seen, _ = run(lambda venue: venue.snapshot(), answers, currency="USDC")
    assert (seen.positions[0].entry_price, seen.unrealized) == (55000, 1000)


def test_with_cross_collateral_totals_are_in_the_accounts_currency() -> None:
    """125,000 USD in total at 50,000 USD a bitcoin: 2.5 BTC. A position in USDC has no value stated in BTC."""
    crossed = {**SUMMARY, "cross_collateral_enabled": True, "margin_model": "cross_sm", "total_equity_usd": 125000.0,
               "total_maintenance_margin_usd": 5000.0, "total_initial_margin_usd": 10000.0}  # fmt: skip
    other = LONG | {"instrument_name": "BTC_USDC-PERPETUAL", "size": 0.2, "size_currency": 0.2}
    answers = {
        "private/get_account_summaries": {"summaries": [crossed, {**crossed, "currency": "USDC", "equity": 1.0}]},
        "private/get_positions": [LONG, other],
        "public/get_index_price": {"index_price": 50000.0},
    }
    seen, venue = run(lambda venue: venue.snapshot(), answers)
    assert (seen.equity, seen.maintenance_margin, seen.margin_used) == (D("2.5"), D("0.1"), None)
    assert [(it.symbol, it.notional, it.unrealized_pnl) for it in seen.positions] == [
        (PERPETUAL, D("0.1"), D("0.004")),
        (LINEAR, None, None),
    ]
    assert {it["currency"] for it in venue.asked("private/get_user_trades_by_currency_and_time")} == {"BTC", "USDC"}


def test_a_currency_missing_from_the_summaries_is_unknown_and_not_zero() -> None:
    """An account in ETH, which the summaries do not contain."""
    seen, _ = run(lambda venue: venue.snapshot(), currency="ETH")
    assert (seen.quality, seen.equity, "ETH" in seen.reason) == ("malformed", None, True)


def test_stops_are_among_the_orders_with_label_trigger_and_reduce_only() -> None:
    """A stop has a trigger at the mark of 45,000 and no price; a limit order of ours has its label."""
    limit = ORDER | {"order_type": "limit", "order_state": "open", "filled_amount": 0.0, "price": 55000.0}
    seen, _ = run(lambda venue: venue.open_orders(), {"private/get_open_orders": [limit, STOP]})
    one, two = seen
    assert (one.id, one.client_order_id, one.price, one.trigger_price, one.amount) == (
        "BTC-1",
        "kswa1",
        55000,
        None,
        5000,
    )
    assert (two.id, two.trigger_price, two.price, two.type, two.reduce_only) == (
        "SLIB-1",
        45000,
        None,
        "stop_market",
        True,
    )


def test_an_order_is_sent_in_dollars_with_its_label_and_returns_its_filled_amount() -> None:
    """Deribit accepts orders by GET: the label is our client order id, and the order is reduce-only."""
    found, venue = run(lambda venue: venue.submit(order()), {"private/sell": {"order": ORDER, "trades": []}})
    assert (found.state, found.filled, found.average_price, found.fee) == ("filled", 5000, 50000, D("0.00005"))
    (asked,) = venue.asked("private/sell")
    assert (asked["label"], asked["amount"], asked["type"], asked["reduce_only"]) == ("kswa1", "5000", "market", "true")


def test_a_restored_stop_is_triggered_by_the_mark() -> None:
    """A sale when the mark falls is a stop; its price is text, because ccxt accepts nothing else."""
    restored = order(trigger_price=D(45000), trigger_when="falls")
    found, venue = run(lambda venue: venue.submit(restored), {"private/sell": {"order": STOP | {"label": "kswa1"}}})
    (asked,) = venue.asked("private/sell")
    assert (asked["type"], asked["trigger_price"], asked["trigger"]) == ("stop_market", "45000", "mark_price")
    assert (found.id, found.state, found.filled) == ("SLIB-1", "open", 0)


def test_an_order_is_found_by_its_label_and_absent_where_the_list_is_empty() -> None:
    """A stop and the order that it sent have the same label: the newest one is its outcome."""
    old = STOP | {"label": "kswa1", "creation_timestamp": NOW - 1}
    found, venue = run(lambda v: v.find_order(PERPETUAL, "kswa1"), {"private/get_order_state_by_label": [ORDER, old]})
    assert (found.id, found.state, found.filled) == ("BTC-1", "filled", 5000)
    assert venue.asked("private/get_order_state_by_label") == [{"currency": "BTC", "label": "kswa1"}]
    found, _ = run(lambda venue: venue.find_order(PERPETUAL, "kswa1"))
    assert found is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (10009, "insufficient_margin"),
        (11030, "other"),
        (10012, "market_closed"),
        (10002, "below_minimum"),
        (10016, "above_maximum"),
        (10007, "price_band"),
        (10003, "blocked_by_order"),  # order_overlap: it would trade with an order of the same account
        (10014, "blocked_by_order"),  # too many open orders
        (11035, "blocked_by_order"),  # no_more_triggers
        (11022, "above_maximum"),
        (10039, "insufficient_margin"),
        (13503, "market_closed"),
        (11098, "permission"),  # account_locked
        (13004, "permission"),
        (13009, "permission"),
        (13021, "permission"),
    ],
)
def test_a_rejected_order_has_its_reason(code: int, reason: RejectReason) -> None:
    """Nothing was executed: "RPC Error Codes" of Deribit's documentation."""
    assert _sent(code) == (OrderRejectedError, reason)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10028, RateLimitedError),
        (11051, VenueDownError),
        (10041, VenueDownError),
        (11094, FateUnknownError),
        (13008, FateUnknownError),  # "invalid input or internal failure"
        (13028, FateUnknownError),  # "not responding or processing the response takes too long"
        (13666, FateUnknownError),  # cancelled by another request: before or after it was accepted is not stated
        (10066, RateLimitedError),
    ],
)
def test_other_errors_are_classified_by_what_is_known_of_the_order(code: int, kind: type[VenueError]) -> None:
    """After an internal server error the status of an order sent by GET is unknown: that GET changes something."""
    assert _sent(code)[0] is kind


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (99999, "timed_out", FateUnknownError),
        (99999, "system_maintenance", FateUnknownError),
        (99999, "no", OrderRejectedError),
        (10009, "not_enough_funds, try again later", OrderRejectedError),
    ],
)
def test_an_unknown_code_is_classified_by_its_text(code: int, text: str, kind: type[VenueError]) -> None:
    """After a timeout the order may exist. A known code keeps its meaning whatever its text."""
    assert _sent(code, text)[0] is kind


def _sent(code: int, text: str = "said so") -> tuple[type[VenueError], RejectReason | None]:
    async def talk(venue: Any) -> VenueError:
        with pytest.raises(VenueError) as answers:
            await venue.submit(order())
        return answers.value

    error, _ = run(talk, {"private/sell": error_reply(code, text=text)})
    return type(error), getattr(error, "reason", None)


@pytest.mark.parametrize("code", [10004, 10010, 11044])
def test_cancelling_an_order_that_is_gone_is_no_error(code: int) -> None:
    """Not found, closed, or no longer open."""
    run(lambda venue: venue.cancel(PERPETUAL, "BTC-1"), {"private/cancel": error_reply(code)})


def test_fills_and_flows_have_their_causes() -> None:
    """A liquidated taker is this account where it took; half a bitcoin is deposited; a trade's entry is no flow."""
    trade = {"trade_id": "T-1", "instrument_name": "BTC-PERPETUAL", "direction": "sell", "amount": 100.0,
             "price": 50000.0, "fee": 0.000001, "fee_currency": "BTC", "order_id": "BTC-9", "timestamp": NOW,
             "liquidity": "T", "profit_loss": -0.01}  # fmt: skip
    rows = [trade | {"liquidation": "T"}, trade | {"trade_id": "T-2", "liquidation": "M"}]
    logs = [
        {"id": 1, "type": "deposit", "change": 0.5, "currency": "BTC", "timestamp": NOW},
        {"id": 2, "type": "trade", "change": -0.1, "currency": "BTC", "timestamp": NOW},
    ]
    answers = {
        "private/get_user_trades_by_currency_and_time": {"trades": rows, "has_more": False},
        "private/get_transaction_log": {"logs": logs, "continuation": None},
    }
    seen, _ = run(lambda venue: venue.snapshot(), answers | {"private/get_positions": [LONG]})
    assert [(it.id, it.cause, it.realized_pnl, it.fee) for it in seen.fills] == [
        ("T-1", "liquidation", D("-0.01"), D("0.000001")),
        ("T-2", "trade", D("-0.01"), D("0.000001")),
    ]
    (flow,) = seen.flows
    assert (flow.kind, flow.amount, flow.currency, flow.at) == ("deposit", D("0.5"), "BTC", START + timedelta(0))


def test_a_keys_rights_are_its_scopes() -> None:
    """Of two keys the one with our id counts: it may read, trade and withdraw."""
    scopes = "account:read trade:read_write wallet:read_write block_trade:none"
    keys = [
        {"client_id": "another", "max_scope": "account:read"},
        {"client_id": KEY, "max_scope": scopes, "ip_whitelist": ["192.0.2.1"]},
    ]
    seen, _ = run(lambda venue: venue.inspect(), {"private/list_api_keys": keys})
    rights = seen.rights
    assert (rights.read, rights.trade, rights.withdraw, rights.bound_to_addresses) == (True, True, True, True)


# Numbers that would silently be misread


@pytest.mark.parametrize(
    "more",
    [
        {"size": None}, {"size": True}, {"size": "NaN"}, {"size": -5000.0}, {"direction": None}, {"direction": "zero"},
        {"direction": "BUY"}, {"direction": "sell"},
    ],
    ids=str,
)  # fmt: skip
def test_a_position_whose_size_and_direction_disagree_is_unknown(more: Mapping[str, Any]) -> None:
    """ccxt reads every direction except `buy` as short; a size of `true` is not a number of contracts."""
    for answers in (LONG | more, {name: it for name, it in LONG.items() if name not in more}):
        seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [answers]})
        assert (seen.quality, seen.positions) == ("malformed", None)
        assert "BTC-PERPETUAL" in seen.reason


def test_an_instrument_with_only_a_resting_order_is_no_position() -> None:
    """Deribit lists it with a size of 0 and the direction `zero`."""
    empty = LONG | {"size": 0.0, "direction": "zero", "open_orders_margin": 0.1}
    seen, _ = run(lambda venue: venue.snapshot(), FLAT | {"private/get_positions": [empty]})
    assert (seen.quality, seen.positions, seen.margin_used) == ("ok", (), None)


FLAT: Mapping[str, Any] = {
    "private/get_account_summaries": {"summaries": [SUMMARY | {"initial_margin": 0.1, "maintenance_margin": 0.0}]},
}
"""No position, and orders that hold 0.1 BTC of initial margin; orders add nothing to the maintenance margin."""


def test_order_margin_does_not_contradict_a_flat_account() -> None:
    """With portfolio margin orders are also part of the maintenance margin."""
    portfolio = SUMMARY | {"initial_margin": 0.1, "maintenance_margin": 0.05, "margin_model": "segregated_pm"}
    for answers in (FLAT, {"private/get_account_summaries": {"summaries": [portfolio]}}):
        seen, _ = run(lambda venue: venue.snapshot(), answers)
        assert (seen.quality, seen.positions, seen.margin_used) == ("ok", (), None)
    held, _ = run(lambda venue: venue.snapshot())
    assert (held.quality, held.positions) == ("malformed", None), "0.3 BTC maintain something"


def test_position_margin_is_separated_from_order_margin() -> None:
    """0.6 BTC in total, 0.15 of it held by orders."""
    rows = [LONG | {"open_orders_margin": 0.1}, SHORT_CALL | {"open_orders_margin": 0.05}]
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": rows})
    assert seen.margin_used == D("0.45")
    seen, _ = run(lambda venue: venue.snapshot(), {"private/get_positions": [LONG]})
    assert seen.margin_used is None


@pytest.mark.parametrize("model", ["cross_pm", "cross_sm"])
def test_the_margin_model_alone_shows_that_an_account_has_cross_collateral(model: str) -> None:
    """125,000 USD at 50,000 are 2.5 BTC; the bitcoins alone are 1."""
    summary = SUMMARY | {"margin_model": model, "total_equity_usd": 125000.0, "equity": 1.0, "balance": 1.0}
    del summary["cross_collateral_enabled"]
    answers = {"private/get_account_summaries": {"summaries": [summary]}, "private/get_positions": [LONG],
            "public/get_index_price": {"index_price": 50000.0}}  # fmt: skip
    seen, _ = run(lambda venue: venue.snapshot(), answers)
    assert (seen.quality, seen.equity) == ("ok", D("2.5"))


@pytest.mark.parametrize(
    "more",
    [
        {"cross_collateral_enabled": None, "margin_model": "new"}, {"margin_model": "cross_pm"},
        {"cross_collateral_enabled": 1}, {"cross_collateral_enabled": "false"},
    ],
    ids=str,
)  # fmt: skip
def test_an_account_with_uncertain_cross_collateral_has_no_equity(more: Mapping[str, Any]) -> None:
    """No field states it, or two fields contradict each other."""
    answers = {"private/get_account_summaries": {"summaries": [SUMMARY | more]}, "private/get_positions": [LONG]}
    seen, _ = run(lambda venue: venue.snapshot(), answers)
    assert (seen.quality, seen.equity) == ("malformed", None)
    assert "cross collateral" in seen.reason


@pytest.mark.parametrize("least", ["nonsense", None, True, {}, []], ids=str)
def test_an_unreadable_instrument_rule_is_unknown_and_leaves_the_rest_known(least: object) -> None:
    """Without a step no exact amount can be ordered, which an order reports; the position is known."""
    listed = [INSTRUMENTS[0] | {"min_trade_amount": least}, *INSTRUMENTS[1:]]
    seen, _ = run(
        lambda venue: venue.snapshot(), {"public/get_instruments": listed, "private/get_positions": [LONG]}
    )  # fmt: skip
    assert (seen.quality, [it.contracts for it in seen.positions]) == ("ok", [5000])
    rule = next(it for it in seen.instruments if it.symbol == PERPETUAL)
    assert (rule.amount_step, rule.min_amount) == (None, None)


def test_a_futures_combo_is_no_instrument_for_closing() -> None:
    """Its price is a difference, so it is neither linear nor inverse; the account holds its legs."""
    combo = _instrument("BTC-FS-26DEC25_PERP", "future_combo", {"contract_size": 10.0, "min_trade_amount": 10.0,
                                                               "tick_size": 0.5})  # fmt: skip
    answers = {"public/get_instruments": [*INSTRUMENTS, combo], "private/get_positions": [LONG]}
    seen, _ = run(lambda venue: venue.snapshot(), answers)
    assert not [it for it in seen.instruments if "FS" in it.symbol]


@pytest.mark.parametrize(("currency", "fee"), [("BTC", D("0.00005")), ("USDC", None)])
def test_a_fee_in_a_coin_other_than_the_accounts_currency_is_unknown(currency: str, fee: Decimal | None) -> None:
    """Deribit charges 0.00005 BTC; in an account counted in USDC this is not 0.00005 USDC."""
    answers = {"private/get_order_state_by_label": [ORDER], "private/buy": {"order": ORDER}}
    found, _ = run(lambda venue: venue.find_order(PERPETUAL, "kswa1"), answers, currency)
    assert found is not None
    assert found.fee == fee


TICKER = {
    "instrument_name": "BTC-PERPETUAL", "best_bid_price": 50000.0, "best_ask_price": 50000.5, "last_price": 50750.0,
    "mark_price": 50001.0, "index_price": 49990.0, "timestamp": NOW, "min_price": 49250.0, "max_price": 50750.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("ticker", "reference", "limit", "index"),
    [
        (TICKER, D(50000), D("0.015"), D(49990)),
        ({**TICKER, "min_price": None}, None, None, D(49990)),
        (error_reply(10028), None, None, None),
    ],
    ids=["stated", "half of it", "no ticker"],
)
def test_a_watched_symbol_has_the_price_limits_of_its_ticker(
    ticker: Any, reference: Decimal | None, limit: Decimal | None, index: Decimal | None
) -> None:
    """49,250 to 50,750 are 1.5% around 50,000; without the ticker the prices are those of the summary."""
    row = {"instrument_name": "BTC-PERPETUAL", "bid_price": 50000.0, "ask_price": 50000.5, "last": 50750.0,
           "mark_price": 50001.0, "creation_timestamp": NOW}  # fmt: skip
    answers = {"public/get_book_summary_by_currency": [row], "public/ticker": ticker, "private/get_positions": [LONG]}
    seen, _ = run(lambda adapter: adapter.snapshot(), answers, watch=(PERPETUAL,))
    (price,) = seen.watched or ()
    assert (price.symbol, price.last_price, price.mark_price) == (PERPETUAL, D(50750), D(50001))
    assert (price.reference_price, price.price_limit, price.index_price) == (reference, limit, index)
