"""Each limit of an entry: at its bound, beyond it, without what it needs, and not declared."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from killswitch.graph.limits import WindowRule
from killswitch.limits.checks import CHECKS
from killswitch.limits.question import OrderAsked, Reason
from killswitch.limits.view import DayState
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.snapshot import Balance, Health, WatchedPrice
from killswitch.signals.sessions import TradingSession
from tests.unit.limits.gates import (
    BTC,
    ETH,
    NOW,
    START,
    answer,
    asks,
    band,
    day,
    gate_account,
    held,
    judged,
    limits,
    moment,
    resting,
    seconds,
    share,
    sizes,
    usdt,
)
from tests.worlds import rules

BUY, LIMIT = asks("buy", "1"), asks("buy", "1", type="limit", price=Decimal(100))
UNPRICED = {"watched": ()}
BOUGHT = resting("a", "buy", "15")
FEES = day(fees=Decimal(1), fee_rate=Decimal("0.001"))


def so_far(**more: Any) -> DayState:
    known: dict[str, Any] = {"loss": Decimal(0), "trades": 0, "fees": Decimal(0)}
    return DayState("2024-01-01", START, Decimal(10000), **(known | more))


def at(price: str, side: str = "buy", amount: str = "1") -> OrderAsked:
    return asks(side, amount, type="limit", price=Decimal(price))


SESSION = TradingSession("day", "UTC", 0, 2 * HOUR, ("mon",))
SHUT = replace(SESSION, opens=3 * HOUR, closes=4 * HOUR)
WINDOW = WindowRule(to_micros(NOW), to_micros(NOW) + 1, "the venue moves")


@pytest.mark.parametrize(
    ("rule", "more", "order", "reason"),
    [
        ({"banned": ("ETH",)}, {}, BUY, None),
        ({"banned": ("BTC",)}, {}, BUY, "banned_symbol"),
        ({"banned": (BTC,)}, {}, BUY, "banned_symbol"),
        ({"sessions": (SESSION,)}, {}, BUY, None),
        ({"sessions": (SHUT,)}, {}, BUY, "session"),
        ({"sessions": (SHUT, SESSION)}, {}, BUY, None),
        ({"maintenance_in": (SESSION,)}, {}, BUY, "maintenance"),
        ({"maintenance": (WINDOW,)}, {}, BUY, "maintenance"),
        ({"maintenance": (replace(WINDOW, begins=WINDOW.begins + 1, ends=WINDOW.ends + 1),)}, {}, BUY, None),
        # the venue's own rules
        ({}, {}, asks("buy", "0.0005"), "amount_step"),
        ({}, {"instruments": [rules(BTC, min_amount="2")]}, BUY, "minimum"),
        ({}, {"instruments": [rules(BTC, min_notional="101")]}, BUY, "minimum"),
        ({}, {"instruments": [rules(BTC, min_notional="100")]}, BUY, None),
        ({}, {"instruments": []}, BUY, "amount_step"),
        # the price against the mark of 100
        ({"price_band": band("0.02")}, {}, at("102"), None),
        ({"price_band": band("0.02")}, {}, at("102.1"), "price_band"),
        ({"price_band": band("0.02")}, {}, at("97.9", "sell"), "price_band"),
        ({"price_band": band("0.02")}, {}, BUY, None),
        ({"price_band": band("0.02")}, UNPRICED, at("100"), "price_band"),
        # one order: 100 USDT a contract, at the worse of the mark and its price
        ({"order_size": sizes(usdt("500"))}, {}, asks("buy", "5"), None),
        ({"order_size": sizes(usdt("500"))}, {}, asks("buy", "5.001"), "order_size"),
        ({"order_size": sizes(usdt("500"))}, {}, at("101", amount="5"), "order_size"),
        ({"order_size": sizes(usdt("500"))}, {}, at("90", amount="5"), None),
        ({"order_size": sizes(usdt("500"))}, UNPRICED, BUY, "order_size"),
        ({"order_size": sizes(replace(usdt("5"), currency="BTC"))}, UNPRICED, asks("buy", "5"), None),
        ({"order_size": sizes(replace(usdt("5"), currency="BTC"))}, {}, asks("buy", "6"), "order_size"),
        ({"order_size": sizes(replace(usdt("5"), currency="ETH"))}, {}, asks("buy", "6"), None),
        ({"order_size": sizes(share("0.05"))}, {}, asks("buy", "5"), None),
        ({"order_size": sizes(share("0.05"))}, {}, asks("buy", "6"), "order_size"),
        ({"order_size": sizes(share("0.05"))}, {"equity": None}, BUY, "order_size"),
        ({"order_size": sizes(usdt("1"), symbols=("ETH",))}, {}, BUY, None),
        # a position at worst
        ({"position_size": sizes(usdt("2000"))}, {"held": ("long", "10")}, asks("buy", "10"), None),
        ({"position_size": sizes(usdt("2000"))}, {"held": ("long", "10")}, asks("buy", "10.001"), "position_size"),
        ({"position_size": sizes(usdt("1500"))}, {"held": ("long", "10")}, asks("sell", "20"), "position_size"),
        ({"position_size": sizes(usdt("2000"))}, {"held": ("long", "10")}, asks("sell", "20"), None),
        ({"position_size": sizes(usdt("2000"))}, {"orders": (BOUGHT,)}, asks("buy", "6"), "position_size"),
        ({"position_size": sizes(usdt("2000"))}, {"orders": (replace(BOUGHT, side="sell"),)}, asks("buy", "6"), None),
        # the account
        ({"gross": usdt("1500")}, {"held": ("long", "10"), "other": "4"}, asks("buy", "1"), None),
        ({"gross": usdt("1500")}, {"held": ("long", "10"), "other": "4"}, asks("buy", "1.001"), "gross"),
        ({"leverage": Decimal(1)}, {"held": ("long", "90")}, asks("buy", "10"), None),
        ({"leverage": Decimal(1)}, {"held": ("long", "90")}, asks("buy", "11"), "leverage"),
        ({"leverage": Decimal(1)}, {"equity": "0"}, BUY, "leverage"),
        ({"leverage": Decimal(1)}, {"equity": None}, BUY, "leverage"),
        ({"concentration": share("0.1")}, {"held": ("long", "9"), "other": "50"}, BUY, None),
        ({"concentration": share("0.1")}, {"held": ("long", "9")}, asks("buy", "2"), "concentration"),
        ({"free_margin": usdt("900")}, {"free": "1000"}, BUY, None),
        ({"free_margin": usdt("901")}, {"free": "1000"}, BUY, "free_margin"),
        ({"free_margin": usdt("1")}, {"free": None}, BUY, "free_margin"),
        ({"free_margin": usdt("980")}, {"free": "1000", "held": ("long", "1"), "lever": "5"}, BUY, None),
        # the day
        ({"day": day(loss=share("0.02"))}, {"day": so_far(loss=Decimal("199.9"))}, BUY, None),
        ({"day": day(loss=share("0.02"))}, {"day": so_far(loss=Decimal(200))}, BUY, "day_loss"),
        ({"day": day(loss=usdt("50"))}, {"day": so_far(loss=None, why="no flows")}, BUY, "day_loss"),
        ({"day": day(loss=usdt("50"))}, {"day": None}, BUY, "day_loss"),
        ({"day": day(trades=5)}, {"day": so_far(trades=4)}, BUY, None),
        ({"day": day(trades=5)}, {"day": so_far(trades=5)}, BUY, "day_trades"),
        ({"day": day(trades=5)}, {"day": so_far(trades=4), "orders": (resting("a", "buy", "1"),)}, BUY, "day_trades"),
        ({"day": day(trades=5)}, {"day": so_far(trades=None)}, BUY, "day_trades"),
        ({"day": FEES}, {"day": so_far(fees=Decimal("0.9"))}, BUY, None),
        ({"day": FEES}, {"day": so_far(fees=Decimal("0.91"))}, BUY, "day_fees"),
        ({"day": FEES}, {"day": so_far(fees=None)}, BUY, "day_fees"),
        # the venue
        ({"latency": 50_000}, {"health": Health(latency_ms=50.0)}, BUY, None),
        ({"latency": 50_000}, {"health": Health(latency_ms=51.0)}, BUY, "latency"),
        ({"latency": 50_000}, {"health": Health()}, BUY, "latency"),
        ({"spread": Decimal("0.002")}, {}, BUY, None),
        ({"spread": Decimal("0.0019")}, {}, BUY, "spread"),
        ({"spread": Decimal("0.01")}, UNPRICED, BUY, "spread"),
    ],
)  # fmt: skip
def test_an_entry_at_a_limit_passes_and_beyond_it_does_not(
    rule: dict[str, Any], more: dict[str, Any], order: OrderAsked, reason: str | None
) -> None:
    """What is unknown denies, too."""
    known = dict(more)
    positions = [held(*known.pop("held"), leverage=Decimal(known.pop("lever", "1")))] if "held" in known else []
    positions += [held("short", known.pop("other"), ETH)] if "other" in known else []
    found = answer(gate_account(*positions, rule=limits(**rule), **known), order)
    assert (None if found.allowed else found.reason) == reason
    assert found.text


@pytest.mark.parametrize("rule", [{"leverage": Decimal(1)}, {"gross": usdt("1")}, {"banned": ("BTC",)}])
def test_what_only_reduces_passes_every_limit(rule: dict[str, Any]) -> None:
    """A bounded exit of any size, and a plain one of the position."""
    seen = gate_account(held("long", "500"), rule=limits(**rule), equity="1")
    assert answer(seen, asks("sell", "500")).reason == "exit"
    assert answer(seen, asks("sell", "0.00001", reduce_only=True)).reason == "exit"


def test_every_limit_is_compared_and_the_first_is_the_reason() -> None:
    """The answer lists what was compared, what denies, what is unknown, and what is not declared."""
    rule = limits(order_size=sizes(usdt("50")), leverage=Decimal("0.001"), latency=1, spread=Decimal("0.01"))
    found = answer(gate_account(rule=rule, health=Health()), BUY)
    assert found.reason == "order_size"
    assert found.denied_by == ("order_size", "leverage", "latency")
    assert [(each.limit, each.missing) for each in found.unknown] == [("latency", "the venue's answer time")]
    assert found.checked == ("amount_step", "minimum", "order_size", "leverage", "spread")
    everything = {*found.checked, *found.not_configured, *(each.limit for each in found.unknown)}
    assert everything == {name for name, _ in CHECKS}


def test_the_checks_are_in_the_order_of_the_reasons() -> None:
    """The documented order is that of the words, too."""
    words = get_args(Reason)
    assert [words.index(name) for name, _ in CHECKS] == sorted(words.index(name) for name, _ in CHECKS)


def test_orders_per_minute_count_what_the_gate_has_allowed_and_are_unknown_at_first() -> None:
    """Two in 60 seconds, exits included; a gate that has run for less than a minute does not know."""
    seen = gate_account(held("long", "10"), rule=limits(orders_per_minute=2))
    one = judged(seen, asks("sell", "1", reduce_only=True))
    two = judged(seen, BUY, before=one.reservations, name="q2")
    assert two.verdict.allowed
    assert answer(seen, BUY, before=two.reservations, name="q3").reason == "orders_per_minute"
    later = gate_account(held("long", "10"), rule=limits(orders_per_minute=2, stale_after=100_000_000))
    assert answer(later, BUY, before=two.reservations, name="q3", at=moment(NOW + seconds(60))).allowed
    young = answer(seen, BUY, at=moment(started_at=NOW - seconds(59)))
    assert (young.reason, young.unknown[0].limit) == ("orders_per_minute", "orders_per_minute")


def test_the_margin_of_what_is_reserved_is_taken_off_until_a_read_shows_it() -> None:
    """1,000 free, 800 to be left: one purchase of 100 and another pass, a third does not."""
    seen = gate_account(rule=limits(free_margin=usdt("800")), free="1000")
    one = judged(seen, BUY)
    two = judged(seen, BUY, before=one.reservations, name="q2")
    assert two.verdict.allowed
    assert answer(seen, BUY, before=two.reservations, name="q3").reason == "free_margin"


def test_values_are_in_the_currency_of_the_account() -> None:
    """A contract quoted in another coin takes that coin's price; without one its value is unknown."""
    pair = "ETH/BTC:BTC"
    rule = limits(order_size=sizes(usdt("500")))
    seen: dict[str, Any] = {
        "instruments": [rules(pair)], "watched": (WatchedPrice(pair, Decimal("0.05")),), "rule": rule,
    }  # fmt: skip
    priced = gate_account(balances=(Balance("BTC", Decimal(1), price=Decimal(10000)),), **seen)
    assert answer(priced, asks("buy", "1", pair)).allowed
    assert answer(priced, asks("buy", "1.001", pair)).reason == "order_size"
    assert answer(gate_account(**seen), asks("buy", "1", pair)).reason == "order_size"


def test_an_inverse_contract_is_valued_by_its_face() -> None:
    """100 contracts of 100 USD at a mark of 10,000 are 1 BTC; a lower price of the order makes them more."""
    pair = "BTC/USD:BTC"
    rule = limits(order_size=sizes(replace(usdt("1"), currency="BTC")))
    seen = gate_account(
        currency="BTC", rule=rule, instruments=[rules(pair, contract_size="100", inverse=True, amount_step="1")],
        watched=(WatchedPrice(pair, Decimal(10000)),),
    )  # fmt: skip
    assert answer(seen, asks("buy", "100", pair)).allowed
    assert answer(seen, asks("buy", "101", pair)).reason == "order_size"
    lower = asks("buy", "100", pair, type="limit", price=Decimal(9900))
    assert answer(seen, lower).reason == "order_size"
