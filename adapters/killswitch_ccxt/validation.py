"""What an Account document can request of each exchange, checked without ccxt."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from killswitch.model.fitting import Misfit, WrittenAccount, missing_credentials
from killswitch.model.words import Market


def misfits(account: WrittenAccount) -> Iterator[Misfit]:
    """All misfits of an account. For an exchange that only ccxt knows, the name alone is checked."""
    if account.exchange is None:
        yield Misfit(
            ("exchange",),
            "the adapter ccxt needs an exchange, by its name in ccxt",
            "add one, as in `exchange: binanceusdm`; `ksctl venues list` has those with a dialect of their own",
        )
        return
    offered = OFFERED.get(account.exchange)
    if offered is None:
        yield from _unknown(account.exchange, names_of_ccxt())
        return
    yield from misfits_of(account, account.exchange, offered)


def misfits_of(account: WrittenAccount, exchange: str, offered: Offered) -> Iterator[Misfit]:
    """All misfits of an account at an exchange with this offer."""
    yield from _market(account, exchange, offered)
    yield from _environment(account, exchange, offered)
    if offered.currencies is not None and account.currency not in offered.currencies:
        yield Misfit(
            ("currency",),
            f"{exchange} has no accounts in {account.currency} here",
            f"write {' or '.join(offered.currencies)}",
        )
    yield from _credentials(account, exchange, offered)


def not_installed() -> Misfit | None:
    """What to install where ccxt is missing."""
    if find_spec("ccxt") is not None:
        return None
    return Misfit(("adapter",), "ccxt is not installed", "pip install '.[ccxt]' in a clone of Killswitch")


def not_installed_text(error: ImportError) -> str:
    """The message where ccxt cannot be imported."""
    return f"ccxt is not installed ({error}); install it with pip install '.[ccxt]' in a clone of Killswitch"


def names_of_ccxt() -> frozenset[str]:
    """The exchanges of the installed ccxt, by its files: an import takes seconds. Empty where ccxt is missing."""
    try:
        found = find_spec("ccxt")
        folders = (found.submodule_search_locations if found is not None else None) or ()
        files = [file for folder in folders for file in os.listdir(folder)]  # noqa: PTH208 - pathlib is slower to start
    except (OSError, ValueError):  # packed into one file, or put there without a spec
        return frozenset()
    return frozenset(file[:-3] for file in files if file.endswith(".py") and not file.startswith("_"))


def _unknown(exchange: str, names: Collection[str]) -> Iterator[Misfit]:
    if not names or exchange in names:
        return
    close = get_close_matches(exchange, sorted({*OFFERED, *names}), 1)
    suggestion = f"did you mean `{close[0]}`? " if close else ""
    fix = f"{suggestion}`ksctl venues list` has those with a dialect of their own"
    yield Misfit(("exchange",), f"ccxt knows no exchange called `{exchange}`", fix)


def _market(account: WrittenAccount, exchange: str, offered: Offered) -> Iterator[Misfit]:
    if account.market in offered.markets:
        return
    others = " or ".join(f"`exchange: {name}`" for name in exchanges_with_market(exchange, account.market))
    here = " or ".join(f"`market: {each}`" for each in offered.markets)
    yield Misfit(
        ("market",),
        f"{exchange} has no market {account.market} here; it has {', '.join(offered.markets)}",
        f"write {others}, where {account.market} is, or {here}" if others else f"write {here}",
    )


def _environment(account: WrittenAccount, exchange: str, offered: Offered) -> Iterator[Misfit]:
    wanted = account.environment
    if wanted in offered.environments:
        return
    others = [each for each in offered.environments if each != "production"]
    known = ", ".join(others) or "neither sandbox nor demo"
    instead = f"write `{others[0]}: true` in its place, or " if others else ""
    yield Misfit((wanted,), f"{exchange} has no {wanted}; it has {known}", f"{instead}take `{wanted}` out")


def _credentials(account: WrittenAccount, exchange: str, offered: Offered) -> Iterator[Misfit]:
    """Without any credentials only public requests are possible, which is no mistake."""
    names = tuple(offered.credentials)
    written = account.credentials
    missing = [name for name in names if name not in written] if written else []
    for unknown in written:
        if unknown in names:
            continue
        suggestion = _nearest_missing(unknown, missing, offered)
        if suggestion is not None:
            missing.remove(suggestion)
        fix = f"did you mean `{suggestion}`?" if suggestion is not None else "take it out"
        yield Misfit(
            ("credentials", unknown),
            f"credentials of {exchange} are {', '.join(names)}; unknown: {unknown}",
            fix,
            at_key=True,
        )
    if missing:
        yield missing_credentials(exchange, names, missing)


def _nearest_missing(unknown: str, missing: Collection[str], offered: Offered) -> str | None:
    """The missing name that an unknown one probably means: by ccxt's name of it, or by similarity."""
    by_ccxt = [name for name in missing if offered.credentials[name] == unknown]
    return next(iter(by_ccxt or get_close_matches(unknown, missing, 1)), None)


KEY_AND_SECRET: Final[Mapping[str, str]] = MappingProxyType({"key": "apiKey", "secret": "secret"})
WITH_PASSPHRASE: Final[Mapping[str, str]] = MappingProxyType({**KEY_AND_SECRET, "passphrase": "password"})
WALLET: Final[Mapping[str, str]] = MappingProxyType({"wallet_address": "walletAddress", "private_key": "privateKey"})


class Offered(Struct, frozen=True):
    """What an exchange offers. `venue`: its operator, since some venues are several exchanges in ccxt."""

    venue: str
    markets: tuple[Market, ...]
    environments: tuple[str, ...] = ("production", "sandbox")
    credentials: Mapping[str, str] = KEY_AND_SECRET
    """Name in an Account document → name in ccxt. All are needed."""
    currencies: tuple[str, ...] | None = None
    """Possible currencies of an account; None where there is no fixed list."""
    keeps_apart: bool = False
    """Whether an account covers only the positions of its own settlement currency, because wallets are separate."""


OFFERED: Final[Mapping[str, Offered]] = {
    "binanceusdm": Offered("binance", ("swap", "future"), ("production", "demo")),
    "binancecoinm": Offered("binance", ("swap", "future"), ("production", "demo")),
    "binance": Offered("binance", ("spot", "margin"), ("production", "sandbox", "demo")),
    "bybit": Offered("bybit", ("swap", "future", "spot"), ("production", "sandbox", "demo")),
    "bitget": Offered(
        "bitget",
        ("swap", "future"),
        ("production", "sandbox", "demo"),
        WITH_PASSPHRASE,
        ("USDT", "USDC"),
        keeps_apart=True,
    ),
    "kraken": Offered("kraken", ("spot", "margin"), ("production",)),
    "krakenfutures": Offered("kraken", ("swap", "future")),
    "mexc": Offered("mexc", ("swap",), ("production",), keeps_apart=True),
    "okx": Offered("okx", ("swap", "future", "spot"), credentials=WITH_PASSPHRASE),
    "deribit": Offered("deribit", ("swap", "future"), keeps_apart=True),
    "hyperliquid": Offered("hyperliquid", ("swap",), credentials=WALLET),
}


def exchanges_with_market(exchange: str, market: str) -> tuple[str, ...]:
    """Exchanges of the same venue that have the market."""
    here = OFFERED.get(exchange)
    if here is None:
        return ()
    same = [name for name, each in OFFERED.items() if name != exchange and each.venue == here.venue]
    return tuple(name for name in same if market in OFFERED[name].markets)
