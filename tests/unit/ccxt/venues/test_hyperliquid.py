"""Hyperliquid through the adapter, on answers typed from its documents."""

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
    told = {
        "coin": coin, "szi": size, "entryPx": "95000.0", "positionValue": value, "unrealizedPnl": "12.5",
        "leverage": {"type": "cross", "value": 20}, "liquidationPx": None, "marginUsed": "2500.0",
    }  # fmt: skip
    return {"type": "oneWay", "position": {**told, **more}}


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
    """An adapter that gets these answers by the type of the question, and what it asked for."""

    def __init__(self, *exchange: Any, wallet: str = MASTER, options: dict[str, object] | None = None, **told: Any):
        self.told: dict[str, Any] = {
            "metaAndAssetCtxs": META, "perpDexs": [None], "clearinghouseState": STATE, "frontendOpenOrders": FRONT,
            "userFillsByTime": [], "userFunding": [], "userNonFundingLedgerUpdates": [], "userAbstraction": "default",
            "allMids": {"BTC": "100000.0"}, "spotMeta": {"tokens": [], "universe": []}, "extraAgents": [],
            "exchangeStatus": {"time": 1_708_622_400_000, "specialStatuses": None}, **told,
        }  # fmt: skip
        self.exchange = list(exchange)
        self.asked: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        keys = {"wallet_address": wallet, "private_key": PRIVATE}
        time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
        more: dict[str, object] = {"ccxt": {"replay": str(uuid4())}, "clock": time, **(options or {})}
        self._spec = AccountSpec("main", "ccxt", "swap", "USDC", None, more, keys, exchange="hyperliquid")

    def run(self, deed: Callable[[Any], Awaitable[Any]], time: VirtualTime | None = None) -> Any:
        return asyncio.run(self.beside(deed)) if time is None else time.run(self.beside(deed))

    async def beside(self, deed: Callable[[Any], Awaitable[Any]]) -> Any:
        """In a loop that runs already."""
        made: Any = adapter(self._spec)

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            asked = json.loads(body)
            if url.endswith("/exchange"):
                self.sent.append(asked)
                answer = self.exchange.pop(0) if self.exchange else self.told["exchange"](asked)
                if isinstance(answer, Exception):
                    raise answer
            else:
                self.asked.append(asked)
                answer = self.told[asked["type"]]
                answer = answer(asked) if callable(answer) else answer
            text = json.dumps(answer)
            course = client.CURRENT_CALL.get()
            course.method, course.sent_requests = method, course.sent_requests + 1
            made._client.ccxt.on_rest_response(200, "OK", url, method, {}, text, {}, None)
            made._client.ccxt.handle_errors(200, "OK", url, method, {}, text, answer, headers, body)
            return json.loads(text)

        made._client.ccxt.fetch = fetch
        try:
            return await deed(made)
        finally:
            await made.close()


def said(*statuses: Any) -> dict[str, Any]:
    return {"status": "ok", "response": {"type": "order", "data": {"statuses": list(statuses)}}}


def order(**more: Any) -> OrderRequest:
    return OrderRequest(CLOID, BTC, more.pop("side", "sell"), "long", D("0.5"), reduce_only=True, **more)


def test_a_snapshot_is_one_answer_of_the_clearing_house() -> None:
    """Notional and mark are the venue's own; a row without size is no position; margin in use is told."""
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


def test_a_minute_in_which_everything_moves_stays_inside_the_weights() -> None:
    """1200 a minute for the address: 2 for a state, 20 for a list. What is declared is what it takes, at most."""
    time, ticks = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC)), iter(range(10_000))

    def state(asked: dict[str, Any]) -> Any:
        odd = next(ticks) % 2
        summary = {**STATE["marginSummary"], "totalRawUsd": str(-36890 - odd)}  # type: ignore[dict-item] # a mapping
        return {**STATE, "marginSummary": summary, "assetPositions": [position("BTC", f"0.{5 + odd}", "50000.0")]}

    venue = TypedAnswers(clearinghouseState=state, options={"clock": time})

    async def minute(made: Any) -> Any:
        for _ in range(60):
            assert (await made.snapshot()).reason is None
            await asyncio.sleep(1)
        return next(it.units for it in made.traits.costs if it.call == "snapshot")

    declared = venue.run(minute, time)
    cheap = {"clearinghouseState", "exchangeStatus"}
    weight = sum(2 if it["type"] in cheap else 20 for it in venue.asked)
    assert weight <= declared * 60 <= 1200, weight


def test_a_unified_account_has_no_worth_that_the_venue_tells() -> None:
    """Its money is in the spot wallet too: unknown, and why."""
    seen = TypedAnswers(userAbstraction="unifiedAccount").run(lambda made: made.snapshot())
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)
    assert "the account is unified (unifiedAccount)" in seen.reason


def test_margin_without_positions_is_not_believed() -> None:
    """One of the two is wrong."""
    seen = TypedAnswers(clearinghouseState={**STATE, "assetPositions": []}).run(lambda made: made.snapshot())
    assert (seen.quality, seen.positions) == ("malformed", None)


def test_a_market_order_is_a_limit_that_takes_at_once() -> None:
    """A sell at most 5% below the middle of 100,000, with its name in hex; nothing else is signed with the key."""
    venue = TypedAnswers(said({"filled": {"totalSz": "0.5", "avgPx": "99990.5", "oid": 77}}))
    told = venue.run(lambda made: made.submit(order()))
    assert (told.id, told.state, told.filled, told.average_price) == ("77", "filled", D("0.5"), D("99990.5"))
    (sent,) = venue.sent
    assert sent["action"] == {
        "type": "order", "grouping": "na",
        "orders": [{"a": 0, "b": False, "p": "95000", "s": "0.5", "r": True, "t": {"limit": {"tif": "Ioc"}},
                    "c": CLOID}],
    }  # fmt: skip
    assert set(sent["signature"]) == {"r", "s", "v"}


def test_orders_of_every_kind_are_told_as_what_became_of_them() -> None:
    """Half filled and taking at once: at its end. Resting: open. A stop waits for the mark with a bound of its own."""
    half = said({"filled": {"totalSz": "0.2", "avgPx": "99000", "oid": 78}})
    rests = said({"resting": {"oid": 79}})
    venue = TypedAnswers(half, rests, rests)

    async def deed(made: CcxtVenue) -> Any:
        return (
            await made.submit(order(type="limit", price=D(99_000), time_in_force="ioc")),
            await made.submit(order(type="limit", price=D(120_000))),
            await made.submit(order(trigger_price=D(90_000), trigger_when="falls")),
        )

    told = venue.run(deed)
    assert [(it.state, it.filled, it.id) for it in told] == [
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
    """And no more decimals than six less those of a size; whole numbers are always taken."""
    assert allowed_price(D(price), decimals) == D(allowed)


def test_a_price_that_the_venue_would_refuse_is_not_sent() -> None:
    """A bound that was decided is not rounded away."""
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
def test_a_sentence_in_a_status_has_one_meaning(sentence: str, kind: type[Exception], reason: str | None) -> None:
    """Sentences come with the asset behind them: "Error responses" of Hyperliquid's documents."""
    with pytest.raises(kind) as caught:
        TypedAnswers(said({"error": sentence})).run(lambda made: made.submit(order()))
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
def test_a_refusal_of_the_whole_request_has_one_meaning(
    sentence: str, kind: type[Exception], reason: str | None
) -> None:
    """`status: err`: nothing of it was done."""
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
def test_an_order_is_found_by_its_name(word: str, left: str, state: str, filled: str) -> None:
    """Many words for an end; what was filled is what is not left."""
    venue = TypedAnswers(orderStatus=order_status(word, left))
    found = venue.run(lambda made: made.find_order(BTC, CLOID))
    assert (found.id, found.state, found.amount, found.filled) == ("77", state, D("0.5"), D(filled))
    assert {"type": "orderStatus", "user": MASTER, "oid": CLOID} in venue.asked


def test_a_name_that_the_venue_does_not_know_is_no_order() -> None:
    """`unknownOid`."""
    assert TypedAnswers(orderStatus={"status": "unknownOid"}).run(lambda made: made.find_order(BTC, CLOID)) is None
    odd = TypedAnswers(orderStatus=order_status("dreaming", "0"))
    with pytest.raises(VenueError, match="unknown value 'dreaming'"):
        odd.run(lambda made: made.find_order(BTC, CLOID))


def test_an_order_that_is_gone_is_no_error_when_it_is_cancelled() -> None:
    """Said in the venue's one sentence for all such cases."""
    gone = said({"error": "Order was never placed, already canceled, or filled. asset=0"})
    venue = TypedAnswers(gone)
    venue.run(lambda made: made.cancel(BTC, "91"))
    assert venue.sent[0]["action"] == {"type": "cancel", "cancels": [{"a": 0, "o": 91}]}


def test_the_timer_is_scheduled_ahead_and_taken_back_without_a_time() -> None:
    """At least five seconds ahead; ccxt's own way of stopping it would set it to now."""
    done = {"status": "ok", "response": {"type": "default"}}
    venue = TypedAnswers(done, done)

    async def deed(made: Any) -> None:
        await made.arm_dead_man(2.0, [])
        await made.disarm_dead_man([])

    venue.run(deed)
    armed, stopped = (it["action"] for it in venue.sent)
    assert armed == {"type": "scheduleCancel", "time": 1_708_622_400_000 + 5000}
    assert stopped == {"type": "scheduleCancel"}


def test_the_key_tells_by_its_address_what_it_may_do() -> None:
    """The account's own key may do everything; an agent's may trade until it expires; any other nothing."""

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


def test_a_vault_is_read_and_traded_for_in_its_own_name() -> None:
    """The key is the leader's; the account is the vault."""
    vault = "0x3333333333333333333333333333333333333333"
    venue = TypedAnswers(said({"resting": {"oid": 79}}), options={"vault": vault})

    async def deed(made: Any) -> None:
        await made.snapshot()
        await made.submit(order(type="limit", price=D(120_000)))

    venue.run(deed)
    assert {it["user"] for it in venue.asked if "user" in it} == {vault}
    assert venue.sent[0]["vaultAddress"].removeprefix("0x") == vault.removeprefix("0x")


def test_fills_tell_what_caused_them() -> None:
    """Liquidations of ours, and being deleveraged; fees as they were paid."""
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
    """What the perpetuals' wallet got is positive."""

    def moved(**delta: Any) -> Any:
        return ledger_flow({"time": 1708622398623, "hash": "0xabc", "delta": delta}, MASTER)

    told = [
        moved(type="deposit", usdc="100.0"),
        moved(type="withdraw", usdc="50.0", fee="1.0", nonce=1),
        moved(type="accountClassTransfer", usdc="7.0", toPerp=True),
        moved(type="accountClassTransfer", usdc="7.0", toPerp=False),
        moved(type="internalTransfer", usdc="3.0", user="0xother", destination=MASTER.upper(), fee="1.0"),
        moved(type="subAccountTransfer", usdc="4.0", user=MASTER, destination="0xother"),
        moved(type="vaultWithdraw", netWithdrawnUsd="9.0", requestedUsd="10.0"),
    ]
    assert [(it.kind, it.amount) for it in told] == [
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
def test_an_entry_of_a_kind_that_nobody_heard_of_does_not_hide_the_others(
    delta: dict[str, str], amount: str | None
) -> None:
    """It is told with the sign that it says, its kind in its id; without USDC in it, it is left out."""
    rows = [
        {"time": 1708622398623, "hash": "0xabc", "delta": {"type": "brandNew", **delta}},
        {"time": 1708622398624, "hash": "0xdef", "delta": {"type": "deposit", "usdc": "100.0"}},
    ]
    seen = TypedAnswers(userNonFundingLedgerUpdates=rows).run(lambda made: made.snapshot())
    new = [] if amount is None else [("0xabc/1708622398623/brandNew", "transfer", D(amount))]
    deposit = ("0xdef/1708622398624/deposit", "deposit", D(100))
    assert [(it.id, it.kind, it.amount) for it in seen.flows] == [*new, deposit]


def test_two_accounts_share_rules_and_an_hour_later_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second account, and the first one after its rules were renewed, read and close as the first did."""
    time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
    shared: dict[str, object] = {"clock": time, "ccxt": {"replay": str(uuid4())}}
    one, other = TypedAnswers(options=shared), TypedAnswers(said({"resting": {"oid": 79}}), options=shared)

    async def fresh(self: Any) -> Any:
        made = client_factory.create_synchronous_client(self._spec, self._dialect)
        made.fetch = lambda url, method="GET", headers=None, body=None: one.told[json.loads(body)["type"]]
        made.load_markets(True)
        renewed.append(made)
        return made

    renewed: list[Any] = []
    monkeypatch.setattr(client.Client, "fresh_rules", fresh)

    async def both(made: CcxtVenue) -> Any:
        first = await made.snapshot()
        return first, await other.beside(then)

    async def then(made: Any) -> Any:
        seen = [await made.snapshot()]
        for _ in range(3):
            await asyncio.sleep(3601)
            seen.append(await made.snapshot())
            await made._rules.wait_for_renewal()
        told = await made.submit(order(type="limit", price=D(120_000)))
        return seen, told, made._client.ccxt.markets

    first, (seen, told, used) = one.run(both, time)
    assert [(it.quality, it.reason) for it in (first, *seen)] == [("ok", None)] * 5
    assert len(renewed) == 3
    assert used is renewed[-1].markets  # handed on, and not asked for again
    assert told.id == "79"


def test_funding_is_a_flow() -> None:
    """Paid is negative."""
    row = {"time": 1708622398623, "hash": "0x0", "delta": {"type": "funding", "coin": "BTC", "usdc": "-3.625"}}
    seen = TypedAnswers(userFunding=[row]).run(lambda made: made.snapshot())
    assert [(it.kind, it.amount, it.currency) for it in seen.flows] == [("funding", D("-3.625"), "USDC")]


@pytest.mark.parametrize("lost", [False, True])
def test_a_position_is_closed_once(tmp_path: Path, lost: bool) -> None:
    """Also where the order was filled and its answer never came: it is asked about by its name."""
    time = VirtualTime(datetime.fromtimestamp(1_708_622_400, UTC))
    filled: dict[str, str] = {}

    def exchange(asked: dict[str, Any]) -> Any:
        (sent,) = asked["action"]["orders"]
        assert not filled
        filled[sent["c"]] = sent["s"]
        return RequestTimeout("no answer") if lost else said({"filled": {"totalSz": "0.5", "avgPx": "1", "oid": 77}})

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


# Numbers that would be read wrong in silence


def deal(**more: Any) -> dict[str, Any]:
    """A sale of 0.2 BTC that closes a part of a long."""
    told = {
        "coin": "BTC", "px": "100000.0", "sz": "0.2", "side": "A", "time": 1708622398623, "startPosition": "0.5",
        "dir": "Close Long", "closedPnl": "1000.0", "hash": "0x" + "0" * 64, "oid": 91, "crossed": True, "fee": "9.0",
        "tid": 118906512037719, "feeToken": "USDC",
    }  # fmt: skip
    return {**told, **more}


def fills_of(*rows: Any) -> Any:
    return TypedAnswers(userFillsByTime=list(rows)).run(lambda made: made.snapshot())


def test_what_a_fill_realised_and_of_which_position_is_told() -> None:
    """1,000 USDC before the fee of 9, of the long; what turns a short round closed that one."""
    seen = fills_of(deal(), deal(tid=2, side="B", dir="Short > Long", closedPnl="-5.0"), deal(tid=3, dir="Settlement"))
    assert [(it.realized_pnl, it.fee, it.position_side) for it in seen.fills] == [
        (1000, 9, "long"), (-5, 9, "short"), (1000, 9, None),
    ]  # fmt: skip
    assert (seen.fills[0].id, seen.fills[0].order, seen.fills[0].amount, seen.fills[0].symbol) == (
        "118906512037719", "91", D("0.2"), BTC,
    )  # fmt: skip


def test_fills_that_nobody_traded_are_several() -> None:
    """All of them are numbered 0; two of one moment differ in what was held before."""
    seen = fills_of(deal(tid=0), deal(tid=0, startPosition="0.3"), deal(tid=0))
    assert len(seen.fills) == 2


@pytest.mark.parametrize(
    "more",
    [{"side": "C"}, {"side": None}, {"dir": "Open Long"}, {"time": None}, {"sz": "-0.2"}, {"px": None}, {"coin": None}],
    ids=str,
)
def test_a_fill_that_makes_no_sense_makes_the_fills_unknown(more: dict[str, Any]) -> None:
    """A side that is neither is no buy, and a fill without a time is not left out."""
    seen = fills_of(deal(tid=2), deal(**more))
    assert (seen.quality, seen.fills) == ("ok", None)
    assert seen.reason.startswith("fills: ")


def test_fills_of_the_spot_wallet_are_not_the_accounts() -> None:
    """What is held there is not among its positions."""
    seen = fills_of(deal(coin="@107", dir="Sell"), deal(coin="PURR/USDC", dir="Sell", tid=2))
    assert seen.fills == ()


@pytest.mark.parametrize(
    "name", ["frontendOpenOrders", "userFillsByTime", "userFunding", "userNonFundingLedgerUpdates"]
)
def test_a_list_that_is_null_is_not_an_empty_one(name: str) -> None:
    """Orders, fills and flows are unknown then, and why is said."""
    answers: dict[str, Any] = {name: None}
    seen = TypedAnswers(**answers).run(lambda made: made.snapshot())
    part = {"frontendOpenOrders": "orders", "userFillsByTime": "fills"}.get(name, "flows")
    assert (seen.quality, getattr(seen, part)) == ("ok", None)
    assert f"{part}: " in seen.reason


@pytest.mark.parametrize(
    "more", [{"side": "C"}, {"side": None}, {"sz": "0.4"}, {"isTrigger": None}, {"origSz": "0"}, {"oid": None}], ids=str
)
def test_an_order_that_makes_no_sense_makes_the_orders_unknown(more: dict[str, Any]) -> None:
    """A side that is neither is no buy."""
    seen = TypedAnswers(frontendOpenOrders=[FRONT[0] | more]).run(lambda made: made.snapshot())
    assert (seen.quality, seen.orders) == ("ok", None)


@pytest.mark.parametrize(("coin", "asset"), [("@107", 10107), ("PURR/USDC", 10000)])
def test_an_order_in_a_spot_market_can_be_cancelled(coin: str, asset: int) -> None:
    """By the market's number from 10,000 on. Without it, its cancel failed, and the whole close ended as blocked."""
    venue = TypedAnswers(said("success"), frontendOpenOrders=[FRONT[0] | {"coin": coin, "reduceOnly": False}])

    async def deed(made: Any) -> Any:
        (resting,) = await made.open_orders()
        await made.cancel(resting.symbol, resting.id)
        return resting

    assert venue.run(deed).symbol == coin
    assert [it["action"] for it in venue.sent] == [{"type": "cancel", "cancels": [{"a": asset, "o": 91}]}]
