"""The markets, environments and credentials of each exchange: one table for the dialects and `ksctl validate`."""

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

HEAVY = ("ccxt", "aiohttp", "killswitch.model.decision", "killswitch_ccxt.dialect")
NO_CCXT = f"[name for name in {HEAVY} if name in sys.modules]"


def account(
    exchange: str | None = "okx", market: str = "swap", currency: str = "USDT", *,
    environment: str = "production", credentials: tuple[str, ...] = (),
) -> WrittenAccount:  # fmt: skip
    return WrittenAccount(exchange, market, currency, environment, credentials)  # type: ignore[arg-type]  # literals by the caller


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
def test_a_dialect_has_the_markets_environments_and_credentials_of_its_exchange(
    exchange: str, markets: set[str], environments: set[str], credentials: set[str]
) -> None:
    """Expected values are from the venues' documentation, by the name of each dialect."""
    dialect = dialect_of(exchange)
    assert (set(dialect.markets), set(dialect.environments)) == (markets, environments)
    assert set(dialect.credentials) == credentials


def test_every_dialect_is_in_the_table() -> None:
    """A missing dialect would count as an exchange that only ccxt knows."""
    assert set(OFFERED) == set(MODULES)


@pytest.mark.parametrize("exchange", sorted(OFFERED))
def test_validation_and_adapter_reject_the_same_accounts(exchange: str) -> None:
    """For each market, environment, currency and credentials: validation reports exactly those that cannot start."""
    markets = ("swap", "future", "spot", "margin", "equity")
    environments = ("production", "sandbox", "demo")
    given: tuple[tuple[str, ...], ...] = (
        (), ("key", "secret"), ("key", "secret", "passphrase"), ("wallet_address", "private_key"), ("secret",),
    )  # fmt: skip
    for market, environment, currency, names in itertools.product(markets, environments, ("USDT", "BTC"), given):
        written = account(exchange, market, currency, environment=environment, credentials=names)
        spec = AccountSpec(
            "main", "ccxt", market, currency, None, {}, dict.fromkeys(names, "x"), exchange=exchange,
            environment=environment,  # type: ignore[arg-type]  # one of the three
        )  # fmt: skip
        try:
            adapter(spec)
        except ValueError:
            is_rejected = True
        else:
            is_rejected = False
        assert bool(family.misfits(written)) == is_rejected, written


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
def test_a_missing_market_is_searched_under_the_venues_other_names(
    exchange: str, market: str, others: tuple[str, ...]
) -> None:
    """The venue's other exchange names are searched; a name that only begins alike (Binance US) is another venue."""
    assert exchanges_with_market(exchange, market) == others


def test_an_unknown_credential_name_is_matched_to_the_one_it_means() -> None:
    """A name from ccxt or a typing error; a credential that is then still missing is reported once."""
    found = family.misfits(account(credentials=("apiKey", "sercet")))
    assert [(each.key, each.at_key, each.fix) for each in found] == [
        (("credentials", "apiKey"), True, "did you mean `key`?"),
        (("credentials", "sercet"), True, "did you mean `secret`?"),
        (("credentials",), False, "add `passphrase: 'env:NAME'`, where NAME is the variable with the secret"),
    ]
    (odd,) = family.misfits(account("bybit", credentials=("key", "secret", "passphrase")))
    assert (odd.message, odd.fix) == ("credentials of bybit are key, secret; unknown: passphrase", "take it out")


def test_an_exchange_without_a_dialect_is_checked_by_name_only() -> None:
    """Its markets and credentials are not checked: only ccxt itself knows them."""
    pytest.importorskip("ccxt")
    assert family.misfits(account("bitfinex", "equity", credentials=("anything",))) == []
    (found,) = family.misfits(account("bitfinx"))
    assert (found.key, found.message) == (("exchange",), "ccxt knows no exchange called `bitfinx`")
    assert found.fix.startswith("did you mean `bitfinex`?")


def test_the_names_from_ccxts_files_are_its_exchanges() -> None:
    """Every file there is an exchange."""
    ccxt = pytest.importorskip("ccxt")
    assert validation.names_of_ccxt() == set(ccxt.exchanges)


@pytest.mark.parametrize("gone", [None, ValueError("ccxt.__spec__ is None")])
def test_without_ccxt_no_exchange_name_is_rejected(gone: ValueError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may be valid; an exchange that has a dialect is still checked against the table."""

    def find(name: str) -> None:
        assert name == "ccxt"
        if gone is not None:
            raise gone

    monkeypatch.setattr(validation, "find_spec", find)
    assert family.misfits(account("binanceusdtm")) == []
    (found,) = family.misfits(account("mexc", "spot"))
    assert found.fix == "write `market: swap`"


def test_validation_imports_no_client() -> None:
    """Editors validate at every save."""
    program = (
        "import sys; from killswitch.model.fitting import WrittenAccount; from killswitch_ccxt.family import family;"
        "counts = [len(family.misfits(WrittenAccount(exchange, 'equity', 'USDT', 'production', ())))"
        " for exchange in ('okx', 'no-such-exchange-at-all')];"
        f"print(counts[0], {NO_CCXT})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"
