"""Options of an Account document: what adapters refuse in them, and that no message shows a value."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from killswitch.model.venue import AccountSpec
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt import adapter as ccxt
from killswitch_paper import adapter as paper

SECRET = "hunter2-hunter2"
KEYS = {"key": "k", "secret": "s"}


def _spec(
    adapter: str, options: Mapping[str, object], market: str = "swap", exchange: str | None = None
) -> AccountSpec:
    currency, endpoint = ("USD", None) if adapter == "alpaca" else ("USDT", "http://127.0.0.1:1")
    return AccountSpec("main", adapter, market, currency, endpoint, dict(options), KEYS, exchange=exchange)


@pytest.mark.parametrize(
    "options",
    [
        {"ccxt": {"apiKey": SECRET}}, {"ccxt": {"secret": SECRET}}, {"ccxt": {"nested": {"password": SECRET}}},
        {"ccxt": {"list": [{"privateKey": SECRET}]}}, {"ccxt": {"uid": SECRET}},
    ],
)  # fmt: skip
def test_a_credential_among_the_options_of_ccxt_is_refused(options: Mapping[str, object]) -> None:
    """They are passed on unread: the message names the place and the way out, and not the value."""
    with pytest.raises(ValueError, match=r"ccxt\..* is a credential; write it under `credentials`") as refused:
        ccxt(_spec("ccxt", options, exchange="bybit"))
    assert SECRET not in str(refused.value)


def test_other_options_of_ccxt_and_assets_with_odd_names_are_accepted() -> None:
    """KEY and TOKEN are coins."""
    options = {"ccxt": {"recvWindow": 5000, "watchPositions": {"depth": 1}}, "unpriced": {"KEY": "5", "TOKEN": "1"}}
    ccxt(_spec("ccxt", options, exchange="bybit"))


@pytest.mark.parametrize(
    ("factory", "spec"),
    [
        (ccxt, _spec("ccxt", {"timeout": SECRET}, exchange="bybit")),
        (ccxt, _spec("ccxt", {"unpriced": {"XYZ": SECRET}}, exchange="bybit")),
        (ccxt, _spec("ccxt", {"tier": SECRET}, "spot", exchange="kraken")),
        (alpaca, _spec("alpaca", {"timeout": SECRET}, "equity")),
        (alpaca, _spec("alpaca", {"data_feed": {"secret": SECRET}}, "equity")),
        (paper, _spec("paper", {"timeout": SECRET})),
        (paper, _spec("paper", {"market": SECRET})),
    ],
)
def test_the_message_about_a_wrong_option_does_not_show_its_value(factory: object, spec: AccountSpec) -> None:
    """A secret in the wrong place would be in a terminal and in a log."""
    with pytest.raises(ValueError, match=next(iter(spec.options))) as refused:
        factory(spec)  # type: ignore[operator] # one of the three
    assert SECRET not in str(refused.value)
    assert SECRET not in str(refused.value.__cause__)


@pytest.mark.parametrize("timeout", [0, -1, True, "NaN", "1e400"])
def test_a_timeout_is_a_number_above_zero(timeout: object) -> None:
    """Of every exchange, as at Alpaca and on paper."""
    with pytest.raises(ValueError, match="timeout of account main must be seconds above zero"):
        ccxt(_spec("ccxt", {"timeout": timeout}, exchange="bybit"))
