"""Hyperliquid through the adapter, on answers typed from its documentation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ccxt.base.errors import RequestTimeout

from killswitch.model.snapshot import LimitUse
from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import adapter, client, client_factory
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.hyperliquid.rows import allowed_price, ledger_flow
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.desk import closed

D = Decimal
BTC, ETH = "BTC/USDC:USDC", "ETH/USDC:USDC"
CLOID = "0x1234567890abcdef1234567890abcdef"
PRIVATE = "0x" + "1" * 64
OWN = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
"""The address of that private key."""
MASTER = "0x2222222222222222222222222222222222222222"
META = [
    {"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 50}, {"name": "ETH", "szDecimals": 4,
                                                                       "maxLeverage": 50}]},
    [{"markPx": "100000.0", "midPx": "100000.5", "oraclePx": "100001.0", "funding": "0.0000125", "dayNtlVlm": "1",
      "prevDayPx": "99000.0", "openInterest": "10", "impactPxs": ["100000.0", "100001.0"]},
     {"markPx": "4000.0", "midPx": "4000.5", "oraclePx": "4000.0", "funding": "0.0000125", "dayNtlVlm": "1",
      "prevDayPx": "3900.0", "openInterest": "10", "impactPxs": ["4000.0", "4001.0"]}],
]  # fmt: skip


def position(coin: str, size: str, value: str, **more: Any) -> dict[str, Any]:
    row = {
        "coin": coin, "szi": size, "entryPx": "95000.0", "positionValue": value, "unrealizedPnl": "12.5",
        "leverage": {"type": "cross", "value": 20}, "liquidationPx": None, "marginUsed": "2500.0",
    }  # fmt: skip
    return {"type": "oneWay", "position": {**row, **more}}


STATE = {
    "marginSummary": {"accountValue": "13109.48", "totalNtlPos": "54000.0", "totalRawUsd": "-36890.5",
                      "totalMarginUsed": "2700.0"},
    "crossMaintenanceMarginUsed": "675.0", "withdrawable": "10409.48", "time": 1708622398623,
    "assetPositions": [position("BTC", "0.5", "50000.0", liquidationPx="75000.5"), position("ETH", "-1.0", "4000.0"),
                       position("BTC", "0.0", "0.0")],
}  # fmt: skip
FRONT = [
    {"coin": "BTC", "side": "A", "limitPx": "120000.0", "sz": "0.2", "origSz": "0.3", "oid": 91, "cloid": CLOID,
     "timestamp": 1708622398623, "isTrigger": False, "triggerPx": "0.0", "orderType": "Limit", "reduceOnly": True,
     "isPositionTpsl": False},
    {"coin": "BTC", "side": "A", "limitPx": "85500.0", "sz": "0.0", "origSz": "0.0", "oid": 92, "cloid": None,
     "timestamp": 1708622398624, "isTrigger": True, "triggerPx": "90000.0", "orderType": "Stop Market",
     "reduceOnly": True, "isPositionTpsl": True},
]  # fmt: skip


def order_status(word: str, left: str, **more: Any) -> dict[str, Any]:
    order = {"coin": "BTC", "side": "A", "limitPx": "95000.0", "sz": left, "origSz": "0.5", "oid": 77, "cloid": CLOID}
    return {"status": "order", "order": {"order": {**order, **more}, "status": word, "statusTimestamp": 1}}


class TypedAnswers:
    """An adapter that gets these answers by the type of the request, with a record of its requests."""

    def __init__(self, *exchange: Any, wallet: str = MASTER, options: dict[str, object] | None = None, **answers: Any):
        self.answers: dict[str, Any] = {
            "metaAndAssetCtxs": META, "perpDexs": [None], "clearinghouseState": STATE, "frontendOpenOrders": FRONT,
            "userFillsByTime": [], "userFunding": [], "userNonFundingLedgerUpdates": [], "userAbstraction": "default",
            "allMids": {"BTC": "100000.0"}, "spotMeta": {"tokens": [], "universe": []}, "extraAgents": [],
            "exchangeStatus": {"time": 1_708_622_400_000, "specialStatuses": None},
            "userRateLimit": {"cumVlm": "2854574.59", "nRequestsUsed": 2890, "nRequestsCap": 2864574},
            **answers,
        }  # fmt: skip
        self.exchange = list(exchange)
        self.asked: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        keys = {"wallet_address": wallet, "private_key": PRIVATE}
        time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
        more: dict[str, object] = {"ccxt": {"replay": str(uuid4())}, "clock": time, **(options or {})}
        self._spec = AccountSpec("main", "ccxt", "swap", "USDC", None, more, keys, exchange="hyperliquid")

    def run(self, scenario: Callable[[Any], Awaitable[Any]], time: VirtualTime | None = None) -> Any:
        return asyncio.run(self.run_in_loop(scenario)) if time is None else time.run(self.run_in_loop(scenario))

    async def run_in_loop(self, scenario: Callable[[Any], Awaitable[Any]]) -> Any:
        """As `run`, in a loop that is already running."""
        made: Any = adapter(self._spec)

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            asked = json.loads(body)
            if url.endswith("/exchange"):
                self.sent.append(asked)
                answer = self.exchange.pop(0) if self.exchange else self.answers["exchange"](asked)
                if isinstance(answer, Exception):
                    raise answer
            else:
                self.asked.append(asked)
                answer = self.answers[asked["type"]]
                answer = answer(asked) if callable(answer) else answer
            text = json.dumps(answer)
            call = client.CURRENT_CALL.get()
            call.method, call.sent_requests = method, call.sent_requests + 1
            made.client.ccxt.on_rest_response(200, "OK", url, method, {}, text, {}, None)
            made.client.ccxt.handle_errors(200, "OK", url, method, {}, text, answer, headers, body)
            return json.loads(text)

        made.client.ccxt.fetch = fetch
        try:
            return await scenario(made)
        finally:
            await made.close()


def order_answer(*statuses: Any) -> dict[str, Any]:
    return {"status": "ok", "response": {"type": "order", "data": {"statuses": list(statuses)}}}


def order(**more: Any) -> OrderRequest:
    return OrderRequest(CLOID, BTC, more.pop("side", "sell"), "long", D("0.5"), reduce_only=True, **more)


def test_a_snapshot_is_from_one_clearinghouse_state() -> None:
    """Notional and mark are the venue's own; a row of size zero is no position; margin in use is stated."""
    seen = TypedAnswers().run(lambda made: made.snapshot())
    assert (seen.quality, seen.reason, seen.equity, seen.free) == ("ok", None, D("13109.48"), D("10409.48"))
    assert (seen.margin_used, seen.maintenance_margin) == (D("2700.0"), D("675.0"))
    long, short = seen.positions
    assert (long.symbol, long.side, long.contracts, long.mark_price) == (BTC, "long", D("0.5"), D(100_000))
    assert (long.notional, long.liquidation_price, long.leverage) == (D(50_000), D("75000.5"), 20)
    assert (short.symbol, short.side, short.contracts, short.liquidation_price) == (ETH, "short", 1, None)
    limit, stop = seen.orders
    assert (limit.amount, limit.filled, limit.client_order_id, limit.trigger_price) == (D("0.3"), D("0.1"), CLOID, None)
    assert (stop.trigger_price, stop.amount, stop.reduce_only) == (90_000, D("0.5"), True)


def test_constant_change_stays_within_the_weight_limit() -> None:
    """1200 a minute for the address: 2 for a state, 20 for a list. The declared costs are an upper bound of ten
    minutes, in which everything that is ever read is read."""
    time, ticks = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC)), iter(range(10_000))

    def state(asked: dict[str, Any]) -> Any:
        odd = next(ticks) % 2
        summary = {**STATE["marginSummary"], "totalRawUsd": str(-36890 - odd)}  # type: ignore[dict-item] # a mapping
        return {**STATE, "marginSummary": summary, "assetPositions": [position("BTC", f"0.{5 + odd}", "50000.0")]}

    venue = TypedAnswers(clearinghouseState=state, options={"clock": time})

    async def minutes(made: Any) -> Any:
        for _ in range(600):
            assert (await made.snapshot()).reason is None
            await asyncio.sleep(1)
        return next(it.units for it in made.traits.costs if it.call == "snapshot")

    declared = venue.run(minutes, time)
    cheap = {"clearinghouseState", "exchangeStatus"}
    weight = sum(2 if it["type"] in cheap else 20 for it in venue.asked)
    assert weight / 10 <= declared * 60 <= 1200, weight


def test_the_actions_of_the_address_are_read_every_ten_minutes() -> None:
    """2,890 of 2,864,574, in the form of Hyperliquid's documents; an answer without them is unknown, and not unused."""
    time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
    venue = TypedAnswers(options={"clock": time})

    async def hour(made: Any) -> list[Any]:
        found = []
        for _ in range(60):
            found.append((await made.snapshot()).health.limits)
            await asyncio.sleep(60)
        return found

    assert set(venue.run(hour, time)) == {(LimitUse("actions", D(2890), D(2864574)),)}
    assert 6 <= sum(it["type"] == "userRateLimit" for it in venue.asked) <= 7
    silent = TypedAnswers(userRateLimit={}).run(lambda made: made.snapshot())
    assert (silent.quality, silent.health.limits) == ("ok", None)


def test_the_equity_of_a_unified_account_is_unknown() -> None:
    """Its money is in the spot wallet too: the equity is unknown, with a reason."""
    seen = TypedAnswers(userAbstraction="unifiedAccount").run(lambda made: made.snapshot())
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)
    assert "the account is unified (unifiedAccount)" in seen.reason


def test_margin_without_positions_is_malformed() -> None:
    """One of the two must be wrong."""
    seen = TypedAnswers(clearinghouseState={**STATE, "assetPositions": []}).run(lambda made: made.snapshot())
    assert (seen.quality, seen.positions) == ("malformed", None)


def test_a_market_order_is_sent_as_an_immediate_limit_order() -> None:
    """A sell at most 5% below the mid price of 100,000, with its client id in hex; the key signs nothing else."""
    venue = TypedAnswers(order_answer({"filled": {"totalSz": "0.5", "avgPx": "99990.5", "oid": 77}}))
    report = venue.run(lambda made: made.submit(order()))
    assert (report.id, report.state, report.filled, report.average_price) == ("77", "filled", D("0.5"), D("99990.5"))
    (sent,) = venue.sent
    assert sent["action"] == {
        "type": "order", "grouping": "na",
        "orders": [{"a": 0, "b": False, "p": "95000", "s": "0.5", "r": True, "t": {"limit": {"tif": "Ioc"}},
                    "c": CLOID}],
    }  # fmt: skip
    assert set(sent["signature"]) == {"r", "s", "v"}


def test_orders_of_every_kind_are_reported_with_their_outcome() -> None:
    """Half filled and immediate: ended. Resting: open. A stop is triggered by the mark, with its own price bound."""
    half = order_answer({"filled": {"totalSz": "0.2", "avgPx": "99000", "oid": 78}})
    rests = order_answer({"resting": {"oid": 79}})
    venue = TypedAnswers(half, rests, rests)

    async def scenario(made: CcxtVenue) -> Any:
        return (
            await made.submit(order(type="limit", price=D(99_000), time_in_force="ioc")),
            await made.submit(order(type="limit", price=D(120_000))),
            await made.submit(order(trigger_price=D(90_000), trigger_when="falls")),
        )

    reports = venue.run(scenario)
    assert [(it.state, it.filled, it.id) for it in reports] == [
        ("expired", D("0.2"), "78"), ("open", 0, "79"), ("open", 0, "79"),
    ]  # fmt: skip
    kinds = [it["action"]["orders"][0] for it in venue.sent]
    assert [it["t"] for it in kinds] == [
        {"limit": {"tif": "Ioc"}}, {"limit": {"tif": "Gtc"}},
        {"trigger": {"isMarket": True, "triggerPx": "90000", "tpsl": "sl"}},
    ]  # fmt: skip
    assert [it["p"] for it in kinds] == ["99000", "120000", "85500"]


@pytest.mark.parametrize(
    ("price", "decimals", "allowed"),
    [("95000.475", 5, "95000"), ("1234.56", 1, "1234.6"), ("0.0123456", 0, "0.012346"), ("0.00123456", 2, "0.0012"),
     ("123456", 5, "123456")],
)  # fmt: skip
def test_a_price_has_five_significant_digits(price: str, decimals: int, allowed: str) -> None:
    """And at most six decimals less those of a size; integers are always accepted."""
    assert allowed_price(D(price), decimals) == D(allowed)


def test_a_price_that_the_venue_would_reject_is_not_sent() -> None:
    """A decided price bound is not rounded."""
    venue = TypedAnswers()
    with pytest.raises(OrderRejectedError, match=r"99000\.25 is no price that"):
        venue.run(lambda made: made.submit(order(type="limit", price=D("99000.25"))))
    assert venue.sent == []


@pytest.mark.parametrize(
    ("sentence", "kind", "reason"),
    [
        ("Order must have minimum value of $10. asset=0", OrderRejectedError, "below_minimum"),
        ("Reduce only order would increase position. asset=0", OrderRejectedError, "already_flat"),
        ("Insufficient margin to place order. asset=0", OrderRejectedError, "insufficient_margin"),
        ("Order could not immediately match against any resting orders. asset=0", OrderRejectedError, "price_band"),
        ("Post only order would have immediately matched, bbo was 1@2. asset=0", OrderRejectedError, "price_band"),
        ("No liquidity available for market order. asset=0", OrderRejectedError, "price_band"),
        ("Price must be divisible by tick size. asset=0", OrderRejectedError, "other"),
        ("Trading is halted. asset=0", OrderRejectedError, "market_closed"),
        ("Order exceeds maximum position size at current leverage. asset=0", OrderRejectedError, "above_maximum"),
        (
            "Order would cause position to exceed margin tier limit at current leverage",
            OrderRejectedError,
            "above_maximum",
        ),
        ("Order has insufficient spot balance to trade", OrderRejectedError, "insufficient_margin"),
        ("Order would increase open interest too quickly", OrderRejectedError, "above_maximum"),
        ("Internal error. asset=0", FateUnknownError, None),
        ("Something nobody heard of", OrderRejectedError, "other"),
    ],
)
def test_a_status_text_maps_to_one_error(sentence: str, kind: type[Exception], reason: str | None) -> None:
    """The asset follows the text: "Error responses" of Hyperliquid's documentation."""
    with pytest.raises(kind) as caught:
        TypedAnswers(order_answer({"error": sentence})).run(lambda made: made.submit(order()))
    assert getattr(caught.value, "reason", None) == reason
    assert sentence[:20] in str(caught.value)


@pytest.mark.parametrize(
    ("sentence", "kind", "reason"),
    [
        ("User or API Wallet 0x19e7 does not exist.", OrderRejectedError, "permission"),
        ("Must deposit before performing actions. User: 0x19e7", OrderRejectedError, "permission"),
        ("Too many cumulative requests sent (10001 > 10000) for cumulative volume traded $0.", RateLimitedError, None),
        ("Invalid nonce: duplicate nonce 1", VenueDownError, None),
        ("Request timed out", FateUnknownError, None),
    ],
)
def test_a_rejection_of_the_whole_request_maps_to_one_error(
    sentence: str, kind: type[Exception], reason: str | None
) -> None:
    """`status: err`: no part of it was executed."""
    with pytest.raises(VenueError) as caught:
        TypedAnswers({"status": "err", "response": sentence}).run(lambda made: made.submit(order()))
    assert type(caught.value) is kind
    assert getattr(caught.value, "reason", None) == reason


@pytest.mark.parametrize(
    ("word", "left", "state", "filled"),
    [("open", "0.3", "open", "0.2"), ("filled", "0.0", "filled", "0.5"), ("canceled", "0.4", "canceled", "0.1"),
     ("marginCanceled", "0.5", "canceled", "0"), ("reduceOnlyRejected", "0.5", "rejected", "0"),
     ("triggered", "0.5", "open", "0"), ("scheduledCancel", "0.5", "canceled", "0")],
)  # fmt: skip
def test_an_order_is_found_by_its_client_id(word: str, left: str, state: str, filled: str) -> None:
    """Many statuses mean an end; the filled amount is the original less the remaining one."""
    venue = TypedAnswers(orderStatus=order_status(word, left))
    found = venue.run(lambda made: made.find_order(BTC, CLOID))
    assert (found.id, found.state, found.amount, found.filled) == ("77", state, D("0.5"), D(filled))
    assert {"type": "orderStatus", "user": MASTER, "oid": CLOID} in venue.asked


def test_an_unknown_client_id_is_no_order() -> None:
    """`unknownOid`."""
    assert TypedAnswers(orderStatus={"status": "unknownOid"}).run(lambda made: made.find_order(BTC, CLOID)) is None
    odd = TypedAnswers(orderStatus=order_status("dreaming", "0"))
    with pytest.raises(VenueError, match="unknown value 'dreaming'"):
        odd.run(lambda made: made.find_order(BTC, CLOID))


def test_cancelling_an_order_that_is_gone_is_no_error() -> None:
    """The venue has one text for all such cases."""
    gone = order_answer({"error": "Order was never placed, already canceled, or filled. asset=0"})
    venue = TypedAnswers(gone)
    venue.run(lambda made: made.cancel(BTC, "91"))
    assert venue.sent[0]["action"] == {"type": "cancel", "cancels": [{"a": 0, "o": 91}]}


def test_the_timer_is_scheduled_ahead_and_disarmed_without_a_time() -> None:
    """At least five seconds ahead; ccxt's own way of disarming would set it to now."""
    done = {"status": "ok", "response": {"type": "default"}}
    venue = TypedAnswers(done, done)

    async def scenario(made: Any) -> None:
        await made.dead_man.arm(2.0, [])
        await made.dead_man.disarm([])

    venue.run(scenario)
    armed, stopped = (it["action"] for it in venue.sent)
    assert armed == {"type": "scheduleCancel", "time": 1_708_622_400_000 + 5000}
    assert stopped == {"type": "scheduleCancel"}


def test_the_rights_of_a_key_follow_from_its_address() -> None:
    """The account's own key has all rights; an agent's may trade until it expires; any other has none."""

    def rights(**more: Any) -> Any:
        return TypedAnswers(**more).run(lambda made: made.inspect()).rights

    own = rights(wallet=OWN)
    assert (own.trade, own.withdraw, own.transfer) == (True, True, True)
    agents = [{"address": OWN.lower(), "name": "switch", "validUntil": 1_790_000_000_000}]
    agent = rights(extraAgents=agents)
    assert (agent.trade, agent.withdraw, agent.expires_at) == (True, False, datetime.fromtimestamp(1.79e9, UTC))
    unnamed = rights(userRole={"role": "agent", "data": {"user": MASTER}})
    assert (unnamed.trade, unnamed.withdraw) == (True, False)
    stranger = rights(userRole={"role": "missing"})
    assert (stranger.trade, stranger.withdraw) == (False, None)


def test_a_vault_is_read_and_traded_under_its_own_address() -> None:
    """The key is the leader's; the account is the vault."""
    vault = "0x3333333333333333333333333333333333333333"
    venue = TypedAnswers(order_answer({"resting": {"oid": 79}}), options={"vault": vault})

    async def scenario(made: Any) -> None:
        await made.snapshot()
        await made.submit(order(type="limit", price=D(120_000)))

    venue.run(scenario)
    assert {it["user"] for it in venue.asked if "user" in it} == {vault}
    assert venue.sent[0]["vaultAddress"].removeprefix("0x") == vault.removeprefix("0x")


def test_fills_have_their_causes() -> None:
    """Our liquidations, and auto-deleveraging; fees as they were paid."""
    row = {"coin": "BTC", "px": "99000.0", "sz": "0.1", "side": "A", "time": 1708622398623, "oid": 77, "tid": 1,
           "fee": "4.95", "feeToken": "USDC", "dir": "Close Long", "closedPnl": "1.0", "crossed": True}  # fmt: skip
    theirs = {"liquidatedUser": "0xother", "markPx": "1", "method": "market"}
    rows = [
        row,
        {**row, "tid": 2, "liquidation": {**theirs, "liquidatedUser": MASTER}},
        {**row, "tid": 3, "liquidation": theirs},
        {**row, "tid": 4, "dir": "Auto-Deleveraging"},
    ]
    venue = TypedAnswers(userFillsByTime=rows, orderStatus=order_status("filled", "0.0"))
    fills = venue.run(lambda made: made.fills(BTC, CLOID))
    assert [(it.id, it.cause) for it in fills] == [
        ("1", "trade"), ("2", "liquidation"), ("3", "trade"), ("4", "adl"),
    ]  # fmt: skip
    assert (fills[0].amount, fills[0].price, fills[0].fee, fills[0].fee_currency) == (
        D("0.1"), D(99_000), D("4.95"), "USDC",
    )  # fmt: skip


def test_the_ledger_is_read_with_its_signs() -> None:
    """Money into the perpetuals' wallet is positive."""

    def moved(**delta: Any) -> Any:
        return ledger_flow({"time": 1708622398623, "hash": "0xabc", "delta": delta}, MASTER)

    ledger = [
        moved(type="deposit", usdc="100.0"),
        moved(type="withdraw", usdc="50.0", fee="1.0", nonce=1),
        moved(type="accountClassTransfer", usdc="7.0", toPerp=True),
        moved(type="accountClassTransfer", usdc="7.0", toPerp=False),
        moved(type="internalTransfer", usdc="3.0", user="0xother", destination=MASTER.upper(), fee="1.0"),
        moved(type="subAccountTransfer", usdc="4.0", user=MASTER, destination="0xother"),
        moved(type="vaultWithdraw", netWithdrawnUsd="9.0", requestedUsd="10.0"),
    ]
    assert [(it.kind, it.amount) for it in ledger] == [
        ("deposit", 100), ("withdrawal", -51), ("transfer", 7), ("transfer", -7), ("transfer", 3), ("transfer", -4),
        ("transfer", 9),
    ]  # fmt: skip
    assert moved(type="spotTransfer", token="HYPE", amount="1") is None


@pytest.mark.parametrize(
    ("delta", "amount"),
    [
        ({"usdc": "1.5"}, "1.5"), ({"usdc": "-1.5"}, "-1.5"),
        ({"usdc": "2", "user": MASTER, "destination": "0xother", "fee": "0.5"}, "-2.5"),
        ({"token": "USDC", "amount": "3", "user": "0xother", "destination": MASTER}, "3"),
        ({"token": "HYPE", "amount": "3"}, None), ({"usdc": "many"}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_ledger_entry_of_an_unknown_kind_does_not_hide_the_others(delta: dict[str, str], amount: str | None) -> None:
    """It has the sign that it states, and its kind in its id; without USDC in it, it is left out."""
    rows = [
        {"time": 1708622398623, "hash": "0xabc", "delta": {"type": "brandNew", **delta}},
        {"time": 1708622398624, "hash": "0xdef", "delta": {"type": "deposit", "usdc": "100.0"}},
    ]
    seen = TypedAnswers(userNonFundingLedgerUpdates=rows).run(lambda made: made.snapshot())
    new = [] if amount is None else [("0xabc/1708622398623/brandNew", "transfer", D(amount))]
    deposit = ("0xdef/1708622398624/deposit", "deposit", D(100))
    assert [(it.id, it.kind, it.amount) for it in seen.flows] == [*new, deposit]


def test_two_accounts_share_rules_and_their_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second account, and the first one after a renewal of its rules, poll and close as the first did."""
    time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
    shared: dict[str, object] = {"clock": time, "ccxt": {"replay": str(uuid4())}}
    one, other = TypedAnswers(options=shared), TypedAnswers(order_answer({"resting": {"oid": 79}}), options=shared)

    async def fresh(self: Any) -> Any:
        made = client_factory.create_synchronous_client(self._spec, self._dialect)
        made.fetch = lambda url, method="GET", headers=None, body=None: one.answers[json.loads(body)["type"]]
        made.load_markets(True)
        renewed.append(made)
        return made

    renewed: list[Any] = []
    monkeypatch.setattr(client.Client, "fresh_rules", fresh)

    async def both(made: CcxtVenue) -> Any:
        first = await made.snapshot()
        return first, await other.run_in_loop(then)

    async def then(made: Any) -> Any:
        seen = [await made.snapshot()]
        for _ in range(3):
            await asyncio.sleep(3601)
            seen.append(await made.snapshot())
            await made.rules.wait_for_renewal()
        report = await made.submit(order(type="limit", price=D(120_000)))
        return seen, report, made.client.ccxt.markets

    first, (seen, report, used) = one.run(both, time)
    assert [(it.quality, it.reason) for it in (first, *seen)] == [("ok", None)] * 5
    assert len(renewed) == 3
    assert used is renewed[-1].markets  # passed on, not loaded again
    assert report.id == "79"


def test_funding_is_a_flow() -> None:
    """Paid funding is negative."""
    row = {"time": 1708622398623, "hash": "0x0", "delta": {"type": "funding", "coin": "BTC", "usdc": "-3.625"}}
    seen = TypedAnswers(userFunding=[row]).run(lambda made: made.snapshot())
    assert [(it.kind, it.amount, it.currency) for it in seen.flows] == [("funding", D("-3.625"), "USDC")]


@pytest.mark.parametrize("lost", [False, True])
def test_a_position_is_closed_once(tmp_path: Path, lost: bool) -> None:
    """Also where the order was filled and its answer was lost: it is queried by its client id."""
    time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
    filled: dict[str, str] = {}

    def exchange(asked: dict[str, Any]) -> Any:
        (sent,) = asked["action"]["orders"]
        assert not filled
        filled[sent["c"]] = sent["s"]
        return (
            RequestTimeout("no answer")
            if lost
            else order_answer({"filled": {"totalSz": "0.5", "avgPx": "1", "oid": 77}})
        )

    def state(asked: dict[str, Any]) -> Any:
        left = [] if filled else [position("BTC", "0.5", "50000.0")]
        summary = {"accountValue": "13109.48", "totalMarginUsed": "2500.0" if left else "0.0"}
        return {"marginSummary": summary, "withdrawable": "1.0", "assetPositions": left}

    def status(asked: dict[str, Any]) -> Any:
        known = asked["oid"] in filled
        return order_status("filled", "0.0", cloid=asked["oid"]) if known else {"status": "unknownOid"}

    venue = TypedAnswers(
        exchange=exchange, clearinghouseState=state, orderStatus=status, frontendOpenOrders=[], options={"clock": time}
    )
    journal = venue.run(lambda made: closed(made, time, tmp_path), time)
    assert [entry.data.get("status") for entry in journal if entry.kind == "finished"] == ["flat"]
    assert list(filled.values()) == ["0.5"]


# Numbers that would silently be misread


def deal(**more: Any) -> dict[str, Any]:
    """A sale of 0.2 BTC that closes part of a long."""
    row = {
        "coin": "BTC", "px": "100000.0", "sz": "0.2", "side": "A", "time": 1708622398623, "startPosition": "0.5",
        "dir": "Close Long", "closedPnl": "1000.0", "hash": "0x" + "0" * 64, "oid": 91, "crossed": True, "fee": "9.0",
        "tid": 118906512037719, "feeToken": "USDC",
    }  # fmt: skip
    return {**row, **more}


def fills_of(*rows: Any) -> Any:
    return TypedAnswers(userFillsByTime=list(rows)).run(lambda made: made.snapshot())


def test_a_fill_has_its_realised_profit_and_position_side() -> None:
    """1,000 USDC before the fee of 9, of the long; a fill that reverses a short belongs to the short."""
    seen = fills_of(deal(), deal(tid=2, side="B", dir="Short > Long", closedPnl="-5.0"), deal(tid=3, dir="Settlement"))
    assert [(it.realized_pnl, it.fee, it.position_side) for it in seen.fills] == [
        (1000, 9, "long"), (-5, 9, "short"), (1000, 9, None),
    ]  # fmt: skip
    assert (seen.fills[0].id, seen.fills[0].order, seen.fills[0].amount, seen.fills[0].symbol) == (
        "118906512037719", "91", D("0.2"), BTC,
    )  # fmt: skip


def test_fills_without_a_trade_id_are_kept_apart() -> None:
    """All of them have the id 0; two at one moment differ in the position before."""
    seen = fills_of(deal(tid=0), deal(tid=0, startPosition="0.3"), deal(tid=0))
    assert len(seen.fills) == 2


@pytest.mark.parametrize(
    "more",
    [{"side": "C"}, {"side": None}, {"dir": "Open Long"}, {"time": None}, {"sz": "-0.2"}, {"px": None}, {"coin": None}],
    ids=str,
)
def test_an_unreadable_fill_makes_the_fills_unknown(more: dict[str, Any]) -> None:
    """A side that is neither buy nor sell is not read as a buy, and a fill without a time is not left out."""
    seen = fills_of(deal(tid=2), deal(**more))
    assert (seen.quality, seen.fills) == ("ok", None)
    assert seen.reason.startswith("fills: ")


def test_fills_of_the_spot_wallet_do_not_belong_to_the_account() -> None:
    """Spot holdings are not among the account's positions."""
    seen = fills_of(deal(coin="@107", dir="Sell"), deal(coin="PURR/USDC", dir="Sell", tid=2))
    assert seen.fills == ()


@pytest.mark.parametrize(
    "name", ["frontendOpenOrders", "userFillsByTime", "userFunding", "userNonFundingLedgerUpdates"]
)
def test_a_list_that_is_null_is_not_an_empty_one(name: str) -> None:
    """Orders, fills and flows are then unknown, with a reason."""
    answers: dict[str, Any] = {name: None}
    seen = TypedAnswers(**answers).run(lambda made: made.snapshot())
    part = {"frontendOpenOrders": "orders", "userFillsByTime": "fills"}.get(name, "flows")
    assert (seen.quality, getattr(seen, part)) == ("ok", None)
    assert f"{part}: " in seen.reason


@pytest.mark.parametrize(
    "more", [{"side": "C"}, {"side": None}, {"sz": "0.4"}, {"isTrigger": None}, {"origSz": "0"}, {"oid": None}], ids=str
)
def test_an_unreadable_order_makes_the_orders_unknown(more: dict[str, Any]) -> None:
    """A side that is neither buy nor sell is not read as a buy."""
    seen = TypedAnswers(frontendOpenOrders=[FRONT[0] | more]).run(lambda made: made.snapshot())
    assert (seen.quality, seen.orders) == ("ok", None)


@pytest.mark.parametrize(("coin", "asset"), [("@107", 10107), ("PURR/USDC", 10000)])
def test_an_order_in_a_spot_market_can_be_cancelled(coin: str, asset: int) -> None:
    """By the market's number, from 10,000 on. Without it the cancel failed, and the whole close ended as blocked."""
    venue = TypedAnswers(order_answer("success"), frontendOpenOrders=[FRONT[0] | {"coin": coin, "reduceOnly": False}])

    async def scenario(made: Any) -> Any:
        (resting,) = await made.open_orders()
        await made.cancel(resting.symbol, resting.id)
        return resting

    assert venue.run(scenario).symbol == coin
    assert [it["action"] for it in venue.sent] == [{"type": "cancel", "cancels": [{"a": asset, "o": 91}]}]
