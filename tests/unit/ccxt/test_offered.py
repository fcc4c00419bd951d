"""What an Account can ask of each exchange: one table, which the dialects and `ksctl validate` both go by."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from killswitch.model.fitting import WrittenAccount
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter, validation
from killswitch_ccxt.family import family
from killswitch_ccxt.validation import OFFERED, exchanges_with_market
from killswitch_ccxt.venues import MODULES, dialect_of

NO_CCXT = "[name for name in ('ccxt', 'aiohttp', 'msgspec', 'killswitch_ccxt.dialect') if name in sys.modules]"


def account(
    exchange: str | None = "okx", market: str = "swap", currency: str = "USDT", *,
    environment: str = "production", credentials: tuple[str, ...] = (),
) -> WrittenAccount:  # fmt: skip
    return WrittenAccount(exchange, market, currency, environment, credentials)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exchange", "markets", "environments", "credentials"),
    [
        ("binanceusdm", {"swap", "future"}, {"production", "demo"}, {"key", "secret"}),
        ("binancecoinm", {"swap", "future"}, {"production", "demo"}, {"key", "secret"}),
        ("binance", {"spot", "margin"}, {"production", "sandbox", "demo"}, {"key", "secret"}),
        ("bybit", {"swap", "future", "spot"}, {"production", "sandbox", "demo"}, {"key", "secret"}),
        ("bitget", {"swap", "future"}, {"production", "sandbox", "demo"}, {"key", "secret", "passphrase"}),
        ("kraken", {"spot", "margin"}, {"production"}, {"key", "secret"}),
        ("krakenfutures", {"swap", "future"}, {"production", "sandbox"}, {"key", "secret"}),
        ("mexc", {"swap"}, {"production"}, {"key", "secret"}),
        ("okx", {"swap", "future", "spot"}, {"production", "sandbox"}, {"key", "secret", "passphrase"}),
        ("deribit", {"swap", "future"}, {"production", "sandbox"}, {"key", "secret"}),
        ("hyperliquid", {"swap"}, {"production", "sandbox"}, {"wallet_address", "private_key"}),
    ],
)
def test_a_dialect_offers_what_the_exchange_has(
    exchange: str, markets: set[str], environments: set[str], credentials: set[str]
) -> None:
    """As the venues' pages say it, each dialect by its own name."""
    dialect = dialect_of(exchange)
    assert (set(dialect.markets), set(dialect.environments)) == (markets, environments)
    assert set(dialect.credentials) == credentials


def test_every_dialect_is_in_the_table() -> None:
    """One that was left out would be held for an exchange that only ccxt knows."""
    assert set(OFFERED) == set(MODULES)


@pytest.mark.parametrize("exchange", sorted(OFFERED))
def test_what_is_told_of_a_document_is_what_the_adapter_refuses(exchange: str) -> None:
    """Of every market, system, currency and set of credentials: nothing is told that would start, nor kept quiet."""
    markets = ("swap", "future", "spot", "margin", "equity")
    environments = ("production", "sandbox", "demo")
    given: tuple[tuple[str, ...], ...] = (
        (), ("key", "secret"), ("key", "secret", "passphrase"), ("wallet_address", "private_key"), ("secret",),
    )  # fmt: skip
    for market, environment, currency, names in itertools.product(markets, environments, ("USDT", "BTC"), given):
        written = account(exchange, market, currency, environment=environment, credentials=names)
        spec = AccountSpec(
            "main", "ccxt", market, currency, None, {}, dict.fromkeys(names, "x"), exchange=exchange,
            environment=environment,  # type: ignore[arg-type]
        )  # fmt: skip
        try:
            adapter(spec)
        except ValueError:
            refused = True
        else:
            refused = False
        assert bool(family.misfits(written)) == refused, written


@pytest.mark.parametrize(
    ("exchange", "market", "others"),
    [
        ("binance", "swap", ("binanceusdm", "binancecoinm")),
        ("binanceusdm", "margin", ("binance",)),
        ("kraken", "future", ("krakenfutures",)),
        ("krakenfutures", "spot", ("kraken",)),
        ("mexc", "spot", ()),
        ("binanceus", "swap", ()),
    ],
)
def test_a_market_is_looked_for_at_the_same_venue(exchange: str, market: str, others: tuple[str, ...]) -> None:
    """Under its other names; a name that only begins alike (Binance US) is another venue's."""
    assert exchanges_with_market(exchange, market) == others


def test_an_unknown_name_of_a_credential_is_held_for_the_one_it_stands_for() -> None:
    """By ccxt's word for it, or a slip; what is then still missing is said once."""
    found = family.misfits(account(credentials=("apiKey", "sercet")))
    assert [(each.key, each.at_key, each.fix) for each in found] == [
        (("credentials", "apiKey"), True, "did you mean `key`?"),
        (("credentials", "sercet"), True, "did you mean `secret`?"),
        (("credentials",), False, "add `passphrase: 'env:NAME'`, naming where the secret is"),
    ]
    (odd,) = family.misfits(account("bybit", credentials=("key", "secret", "passphrase")))
    assert (odd.message, odd.fix) == ("credentials of bybit are key, secret; unknown: passphrase", "take it out")


def test_an_exchange_that_only_ccxt_knows_is_known_by_name() -> None:
    """Of its markets and credentials nothing is said: only ccxt itself could tell them."""
    pytest.importorskip("ccxt")
    assert family.misfits(account("bitfinex", "equity", credentials=("anything",))) == []
    (found,) = family.misfits(account("bitfinx"))
    assert (found.key, found.message) == (("exchange",), "ccxt knows no exchange called `bitfinx`")
    assert found.fix.startswith("did you mean `bitfinex`?")


def test_the_names_by_the_files_are_ccxt_s_own() -> None:
    """No file there is anything but an exchange."""
    ccxt = pytest.importorskip("ccxt")
    assert validation.names_of_ccxt() == set(ccxt.exchanges)


@pytest.mark.parametrize("gone", [None, ValueError("ccxt.__spec__ is None")])
def test_without_ccxt_nothing_is_said_of_a_name(gone: ValueError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may well be one; what has a dialect is held to the table all the same."""

    def find(name: str) -> None:
        assert name == "ccxt"
        if gone is not None:
            raise gone

    monkeypatch.setattr(validation, "find_spec", find)
    assert family.misfits(account("binanceusdtm")) == []
    (found,) = family.misfits(account("mexc", "spot"))
    assert found.fix == "write `market: swap`"


def test_telling_it_imports_no_client() -> None:
    """It is asked at every save."""
    program = (
        "import sys; from killswitch.model.fitting import WrittenAccount; from killswitch_ccxt.family import family;"
        "told = [len(family.misfits(WrittenAccount(exchange, 'equity', 'USDT', 'production', ())))"
        " for exchange in ('okx', 'no-such-exchange-at-all')];"
        f"print(told[0], {NO_CCXT})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"
