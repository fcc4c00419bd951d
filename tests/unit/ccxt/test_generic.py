"""Any exchange of ccxt can be watched the generic way; what it lacks is said, and nothing is made up."""

from __future__ import annotations

import pytest

from killswitch.model.venue import AccountSpec, traits_of
from killswitch_ccxt import adapter
from killswitch_ccxt.family import family
from killswitch_ccxt.venues import MODULES, dialect_of

NAMES = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip


def _spec(exchange: str | None, market: str = "swap", **more: object) -> AccountSpec:
    return AccountSpec("main", "ccxt", market, "USDT", None, {}, {}, exchange=exchange, **more)  # type: ignore[arg-type] # as named


def test_an_exchange_without_a_dialect_goes_the_generic_way() -> None:
    """Its limits are ccxt's own for it, and batches, timers and whole-book closes are not offered."""
    venue = adapter(_spec("htx"))
    traits = traits_of(venue)
    assert traits.limits
    assert (traits.batch, traits.whole_book, traits.dead_man) == (1, False, None)
    assert not hasattr(venue, "submit_batch")
    assert not hasattr(venue, "listen")


def test_a_name_that_ccxt_does_not_know_is_answered_with_the_nearest() -> None:
    """A typing error is found before anything is started."""
    with pytest.raises(ValueError, match="did you mean binanceusdm"):
        adapter(_spec("binanceusmd"))


def test_an_account_without_an_exchange_says_what_it_needs() -> None:
    """ccxt is a hundred venues; one of them has to be named."""
    with pytest.raises(ValueError, match="exchange: binanceusdm"):
        adapter(_spec(None))


def test_credentials_are_held_against_what_the_exchange_wants() -> None:
    """Missing and misspelt names are told before the first request."""
    bad = AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {"key": "k", "secrte": "s"}, exchange="bybit")
    with pytest.raises(ValueError, match="unknown: secrte"):
        adapter(bad)


def test_an_option_that_nobody_reads_is_refused() -> None:
    """A timeout that is misspelt is a timeout that does not hold."""
    with pytest.raises(ValueError, match="no option tiemout, did you mean timeout"):
        adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, {"tiemout": 3}, {}, exchange="bybit"))
    adapter(
        AccountSpec("main", "ccxt", "swap", "USDT", None, {"close_all": True, "ccxt": {"x": 1}}, {}, exchange="mexc")
    )


@pytest.mark.parametrize("exchange", MODULES)
def test_every_dialect_answers_for_every_capability_in_the_same_order(exchange: str) -> None:
    """The table of one venue can be laid beside that of another; what is only partly there has a note."""
    dialect = dialect_of(exchange)
    assert tuple(each.name for each in dialect.capabilities) == NAMES
    assert [each.name for each in dialect.capabilities if each.can == "partly" and not each.note] == []


@pytest.mark.parametrize("exchange", MODULES)
def test_what_a_dialect_says_of_itself_agrees_with_itself(exchange: str) -> None:
    """A batch in the table is a batch in the traits, and so with timers, streams and whole books."""
    dialect = dialect_of(exchange)
    can = {each.name: each.can for each in dialect.capabilities}
    assert (can["batch orders"] != "no") == (dialect.batch > 1)
    assert (can["dead man"] != "no") == (dialect.dead_man is not None)
    assert (can["push"] != "no") == bool(dialect.streams)
    assert (can["close book"] == "yes") == dialect.whole_book
    assert (can["sandbox"] == "yes") == ("sandbox" in dialect.environments)
    assert (can["demo"] == "yes") == ("demo" in dialect.environments)
    for market in dialect.markets:
        traits = dialect.traits_for(_spec(exchange, market))
        allowed = {limit.name: limit.allowed for limit in traits.limits}
        assert all(cost.units + cost.each <= allowed[cost.limit] for cost in traits.costs)
        assert traits.limits
        assert {"snapshot", "submit", "cancel", "find_order"} <= {cost.call for cost in traits.costs}


def test_the_family_lists_every_dialect_and_knows_bars_of_any_exchange() -> None:
    """What is listed is what was made by name; bars need no dialect."""
    assert [each.exchange for each in family.listings()] == list(MODULES)
    assert family.history("htx") is not None
    assert family.history("no-such-exchange") is None
    bitfinex = family.listing("bitfinex")
    assert bitfinex is not None
    assert bitfinex.tried.startswith("not tested")
    assert family.listing("no-such-exchange") is None


def test_a_market_that_the_venue_has_under_another_name_is_named() -> None:
    """Binance's futures are two exchanges of their own here; of a market that none has nothing more is said."""
    with pytest.raises(ValueError, match=r"binance has no market swap here; it has spot, margin; write "
                                         r"`exchange: binanceusdm` or `exchange: binancecoinm`"):  # fmt: skip
        adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="binance"))
    with pytest.raises(ValueError, match=r"okx has no market equity here; it has [a-z, ]*; write `market: swap`"):
        adapter(AccountSpec("main", "ccxt", "equity", "USDT", None, {}, {}, exchange="okx"))
