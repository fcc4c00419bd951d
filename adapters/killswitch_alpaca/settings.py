"""Settings of an account at Alpaca, parsed from its `Account` document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from killswitch.model.fitting import (
    Misfit,
    WrittenAccount,
    check_option_names,
    clock_option,
    missing_credentials,
    positive_option,
    text_option,
)
from killswitch.model.venue import AccountSpec
from killswitch.model.words import Market

LIVE, PAPER, DATA = "https://api.alpaca.markets", "https://paper-api.alpaca.markets", "https://data.alpaca.markets"
OPTIONS = ("data_feed", "extended_band", "proxy", "requests_per_minute", "suspend_trade", "timeout")
"""Keys that `options` of an Account may have here."""
REQUESTS_PER_MINUTE = 200
"""Request allowance of an account, unless Alpaca has granted more."""


class AlpacaSettings(Struct, frozen=True):
    """Addresses (without a slash at the end), keys, timeouts and limits of one account.

    `timeout` is in seconds, for a whole request from connecting to the end of its answer; `extended_band` is a fraction
    of the price.
    """

    spec: AccountSpec
    """The account as configured."""
    market: Market
    trading: str
    data: str
    stream: str
    key: str
    secret: str
    timeout: float
    extended_band: Decimal
    data_feed: str | None
    requests_per_minute: int
    proxy: str | None
    now: Callable[[], datetime]

    def __repr__(self) -> str:
        """Without the keys, which a log or a traceback would otherwise contain."""
        return f"AlpacaSettings(account={self.spec.account!r}, trading={self.trading!r})"


def read_settings(spec: AccountSpec) -> AlpacaSettings:
    """Parse the document. Raises ValueError, with the key to change, for an invalid one."""
    where = f"account {spec.account}"
    written = tuple(name for name, secret in spec.credentials.items() if secret)
    for misfit in misfits(WrittenAccount(spec.exchange, spec.market, spec.currency, spec.environment, written)):
        raise ValueError(f"{where}: {misfit.message}; {misfit.fix}")
    check_option_names(spec, "Alpaca", OPTIONS)
    own_trading = PAPER if spec.environment == "sandbox" else LIVE
    trading = _address(where, "endpoint", spec.endpoint, ("http", "https")) or own_trading
    stream = _address(where, "endpoint_ws", spec.endpoint_ws, ("ws", "wss")) or _stream_of(trading)
    limit = positive_option(spec, "requests_per_minute", REQUESTS_PER_MINUTE)
    band = positive_option(spec, "extended_band", Decimal("0.01"))
    if band >= 1:
        raise ValueError(f"option extended_band of {where} must be a fraction below 1, such as 0.01")
    return AlpacaSettings(
        spec=spec,
        market="spot" if spec.market == "spot" else "equity",
        trading=trading,
        data=_address(where, "endpoint", spec.endpoint, ("http", "https")) or DATA,
        stream=stream,
        key=spec.credentials["key"],
        secret=spec.credentials["secret"],
        timeout=float(positive_option(spec, "timeout", Decimal(8))),
        extended_band=band,
        data_feed=text_option(spec, "data_feed"),
        requests_per_minute=max(1, int(limit)),
        proxy=_proxy(where, text_option(spec, "proxy")),
        now=clock_option(spec) or (lambda: datetime.now(UTC)),
    )


def _address(where: str, key: str, address: str | None, schemes: tuple[str, ...]) -> str | None:
    if address is None:
        return None
    parts = urlsplit(address)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{where}: {key} must be {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
    return address.rstrip("/")


def _proxy(where: str, written: str | None) -> str | None:
    """The address of the proxy; one without a scheme is spoken to by HTTP."""
    address = f"http://{written}" if written is not None and "://" not in written else written
    return _address(where, "option proxy", address, ("http", "https"))


def _stream_of(trading: str) -> str:
    """The stream is at /stream of the trading API's host."""
    return f"ws{trading.removeprefix('http')}/stream"


MARKETS: Final[tuple[Market, ...]] = ("equity", "spot")
CREDENTIALS: Final = ("key", "secret")
"""Required credentials, also for prices."""


def misfits(account: WrittenAccount) -> Iterator[Misfit]:
    """Everything in the document that Alpaca does not support."""
    if account.exchange not in (None, "alpaca"):
        yield Misfit(
            ("exchange",), f"the adapter alpaca has no exchange {account.exchange}: it has one venue",
            "take `exchange` out", at_key=True,
        )  # fmt: skip
    if account.market not in MARKETS:
        yield Misfit(
            ("market",), f"Alpaca has no market {account.market} here; it has {', '.join(MARKETS)}",
            "write `market: equity` (stocks, ETFs and crypto) or `market: spot`",
        )  # fmt: skip
    if account.environment == "demo":
        yield Misfit(
            ("demo",), "Alpaca has no demo; it has sandbox, its paper accounts", "write `sandbox: true` in its place"
        )
    missing = [name for name in CREDENTIALS if name not in account.credentials]
    if missing:
        yield missing_credentials("Alpaca", CREDENTIALS, missing)
