"""What an Account document asks that Alpaca does not have: what `settings` refuses, told from the text alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from killswitch.model.fitting import Misfit, WrittenAccount
from killswitch.model.words import Market

MARKETS: Final[tuple[Market, ...]] = ("equity", "spot")
CREDENTIALS: Final = ("key", "secret")
"""All are needed, for prices too."""


def not_installed() -> Misfit | None:
    """What to install where there is no alpaca-py."""
    if find_spec("alpaca") is not None:
        return None
    return Misfit(("adapter",), "alpaca-py is not installed", "pip install '.[alpaca]' in a clone of Killswitch")


def misfits(account: WrittenAccount) -> Iterator[Misfit]:
    """Every one of them."""
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
        each = ", ".join(f"`{name}: 'env:NAME'`" for name in missing)
        yield Misfit(
            ("credentials",), f"credentials of Alpaca are {', '.join(CREDENTIALS)}; missing: {', '.join(missing)}",
            f"add {each}, naming where the secret is",
        )  # fmt: skip
