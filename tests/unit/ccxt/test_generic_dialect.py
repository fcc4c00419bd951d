"""The generic dialect can watch any exchange of ccxt; it states missing capabilities and invents nothing."""

from __future__ import annotations

from typing import Any

import pytest

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from killswitch_ccxt.family import family
from killswitch_ccxt.venues import MODULES, dialect_of
from tests.conformance.typed_generic import generic

NAMES = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip


def _spec(exchange: str | None, market: str = "swap", **more: object) -> AccountSpec:
    return AccountSpec("main", "ccxt", market, "USDT", None, {}, {}, exchange=exchange, **more)  # type: ignore[arg-type] # as named


def test_an_exchange_without_a_dialect_uses_the_generic_one() -> None:
    """Its rate limits are those of ccxt; it offers no batches, timers and whole-book closes."""
    venue = adapter(_spec("htx"))
    traits = venue.traits
    assert traits.limits
    assert (venue.batches, venue.close_book, venue.dead_man, venue.listen) == (None, None, None, None)


def test_an_unknown_exchange_name_is_rejected_with_the_nearest_known_one() -> None:
    """A typing error is found before anything starts."""
    with pytest.raises(ValueError, match="did you mean binanceusdm"):
        adapter(_spec("binanceusmd"))


def test_an_account_without_an_exchange_is_rejected_with_an_example() -> None:
    """ccxt supports a hundred venues; the account must name one."""
    with pytest.raises(ValueError, match="exchange: binanceusdm"):
        adapter(_spec(None))


def test_credentials_are_checked_against_those_of_the_exchange() -> None:
    """Missing and misspelt names are reported before the first request."""
    bad = AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {"key": "k", "secrte": "s"}, exchange="bybit")
    with pytest.raises(ValueError, match="unknown: secrte"):
        adapter(bad)


def test_an_unknown_option_is_rejected() -> None:
    """A misspelt timeout would have no effect."""
    with pytest.raises(ValueError, match="no option tiemout, did you mean timeout"):
        adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, {"tiemout": 3}, {}, exchange="bybit"))
    adapter(
        AccountSpec("main", "ccxt", "swap", "USDT", None, {"close_all": True, "ccxt": {"x": 1}}, {}, exchange="mexc")
    )


@pytest.mark.parametrize("exchange", MODULES)
def test_every_dialect_lists_every_capability_in_the_same_order(exchange: str) -> None:
    """The tables of two venues can be compared row by row; a capability that is only partly there has a note."""
    dialect = dialect_of(exchange)
    assert tuple(each.name for each in dialect.capabilities) == NAMES
    assert [each.name for each in dialect.capabilities if each.can == "partly" and not each.note] == []


@pytest.mark.parametrize("exchange", MODULES)
def test_the_capabilities_and_traits_of_a_dialect_agree(exchange: str) -> None:
    """A batch in the table is a batch in the traits; so are timers, streams and whole-book closes."""
    dialect = dialect_of(exchange)
    can = {each.name: each.can for each in dialect.capabilities}
    assert (can["batch orders"] != "no") == (dialect.batch > 1)
    assert (can["dead man"] != "no") == (dialect.dead_man is not None)
    assert (can["push"] != "no") == bool(dialect.streams)
    assert (can["close book"] == "yes") == dialect.traits_for(_spec(exchange, dialect.markets[0])).whole_book
    assert (dialect.submit_batch is not None) == (dialect.batch > 1)
    assert (dialect.close_book is not None) == (can["close book"] != "no")
    assert (dialect.arm_dead_man is not None, dialect.disarm_dead_man is not None) == (
        dialect.dead_man is not None,
    ) * 2
    assert (can["sandbox"] == "yes") == ("sandbox" in dialect.environments)
    assert (can["demo"] == "yes") == ("demo" in dialect.environments)
    for market in dialect.markets:
        traits = dialect.traits_for(_spec(exchange, market))
        allowed = {limit.name: limit.allowed for limit in traits.limits}
        assert all(cost.units + cost.each <= allowed[cost.limit] for cost in traits.costs)
        assert traits.limits
        assert {"snapshot", "submit", "cancel", "find_order"} <= {cost.call for cost in traits.costs}


def test_the_plugin_lists_every_dialect_and_has_bars_of_any_exchange() -> None:
    """The listing contains exactly the dialects; bars need none."""
    assert [each.exchange for each in family.listings()] == list(MODULES)
    assert family.history("htx") is not None
    assert family.history("no-such-exchange") is None
    bitfinex = family.listing("bitfinex")
    assert bitfinex is not None
    assert bitfinex.tried.startswith("not tested")
    assert family.listing("no-such-exchange") is None


def test_a_market_that_the_venue_has_under_another_exchange_name_is_suggested() -> None:
    """Binance's futures are two separate exchanges in ccxt; a market that no exchange has gets no such hint."""
    with pytest.raises(ValueError, match=r"binance has no market swap here; it has spot, margin; write "
                                         r"`exchange: binanceusdm` or `exchange: binancecoinm`"):  # fmt: skip
        adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="binance"))
    with pytest.raises(ValueError, match=r"okx has no market equity here; it has [a-z, ]*; write `market: swap`"):
        adapter(AccountSpec("main", "ccxt", "equity", "USDT", None, {}, {}, exchange="okx"))


@pytest.mark.parametrize("part", ["available", "locked"])
def test_a_negative_amount_at_an_unexamined_exchange_is_unreadable(part: str) -> None:
    """It is no borrowed holding: how the exchange writes debts is unknown."""
    harness = generic()
    first, second = harness.typed.answers["GET /api/v4/spot/accounts"]

    async def main() -> AccountSnapshot:
        def change(question: str, answer: Any) -> Any:
            return [first | {part: "-0.5"}, second] if question == "GET /api/v4/spot/accounts" else answer

        venue = await harness.connect(change)
        try:
            return await venue.snapshot()
        finally:
            await venue.close()

    seen = harness.run(main())
    assert (seen.quality, seen.positions) == ("malformed", None)
    assert "BTC is -0." in str(seen.reason)
