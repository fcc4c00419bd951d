"""Creation of ccxt's clients: class, credentials, options and endpoints of one account."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from killswitch.model.fitting import positive_option
from killswitch.model.venue import AccountSpec, VenueDownError
from killswitch_ccxt.response_capture import CapturingClient, LimitUses, limit_exact_numbers, with_own_decimal_context
from killswitch_ccxt.traits import Exchange
from killswitch_ccxt.validation import not_installed_text

_SILENT: Final = logging.Logger("ccxt", logging.CRITICAL + 1)
"""Logger for ccxt, which logs the headers of every request with keys at its finest level. It is in no logger hierarchy.
"""
PING_INTERVAL = 20_000
"""Milliseconds between two pings on a stream, so that a quiet account does not look disconnected."""


def timeout_of(spec: AccountSpec) -> float:
    """Timeout of an answer, in seconds."""
    return float(positive_option(spec, "timeout", 10, "seconds"))


def create_client(
    spec: AccountSpec, dialect: type[Exchange], clock: Callable[[], datetime] | None, used: dict[str, int],
    limits: LimitUses,
) -> Any:  # fmt: skip
    """A client for the event loop that captures answers. `clock` dates requests; `used` and `limits` receive the
    venue's counts.

    VenueDownError where ccxt is not installed, or lacks the exchange or its environment.
    """
    base = _class_of(dialect.exchange)
    kind = type(base.__name__, (CapturingClient, base), {"ks_dialect": dialect})
    client = _configured(kind, spec, dialect)
    client.ks_clock, client.ks_used, client.ks_limits = clock, used, limits
    if getattr(client, "streaming", None) is not None:
        client.streaming = {**client.streaming, "keepAlive": PING_INTERVAL}
    return client


def create_synchronous_client(spec: AccountSpec, dialect: type[Exchange]) -> Any:
    """A client for a thread, which captures nothing. VenueDownError as in `create_client`."""
    return _configured(_class_of(dialect.exchange, synchronous=True), spec, dialect)


def _configured(kind: Any, spec: AccountSpec, dialect: type[Exchange]) -> Any:
    # Without credentials only public requests are possible.
    credentials = {dialect.credentials[name]: str(value) for name, value in spec.credentials.items()}
    client = kind({**credentials, "enableRateLimit": False, "timeout": int(timeout_of(spec) * 1000)})
    # Numbers stay exactly as the venue wrote them. ccxt parses some of them again, and ignores a Decimal.
    client.number = str
    client.decimal_to_precision = with_own_decimal_context(client.decimal_to_precision)
    client.logger = _SILENT
    client.has = {**client.has, "fetchCurrencies": False}
    user_options = spec.options.get("ccxt")
    for options in (dialect.client_options(spec), user_options if isinstance(user_options, Mapping) else {}):
        client.options = {**client.options, **_merged(client.options, options)}
    try:
        if spec.environment == "sandbox":
            client.set_sandbox_mode(True)
        elif spec.environment == "demo":
            client.enable_demo_trading(True)
    except Exception as error:
        raise VenueDownError(
            f"{dialect.exchange} has no {spec.environment} that ccxt can reach; remove it, or set an endpoint"
        ) from error
    if spec.endpoint is not None:
        _replace_endpoint(client.urls["api"], spec.endpoint, streams=False)
    if spec.endpoint_ws is not None:
        _replace_endpoint(client.urls["api"], spec.endpoint_ws, streams=True)
    return client


def _class_of(exchange: str, *, synchronous: bool = False) -> Any:
    try:
        streaming = importlib.import_module("ccxt.pro")
        plain = importlib.import_module("ccxt" if synchronous else "ccxt.async_support")
    except ImportError as error:
        raise VenueDownError(not_installed_text(error)) from error
    limit_exact_numbers()
    found = (not synchronous and getattr(streaming, exchange, None)) or getattr(plain, exchange, None)
    if found is None:
        raise VenueDownError(f"ccxt knows no exchange called {exchange}")
    return found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with dictionaries that are in both merged."""
    return {
        name: {**old[name], **value} if isinstance(value, Mapping) and isinstance(old.get(name), Mapping) else value
        for name, value in new.items()
    }


def _replace_endpoint(urls: MutableMapping[str, Any], endpoint: str, *, streams: bool) -> None:
    """Replace scheme and host of every URL by `endpoint`; the paths remain."""
    for name, value in urls.items():
        if isinstance(value, MutableMapping):
            _replace_endpoint(value, endpoint, streams=streams)
        elif isinstance(value, str) and value.startswith(("ws://", "wss://") if streams else ("http://", "https://")):
            urls[name] = endpoint.rstrip("/") + urlsplit(value).path
