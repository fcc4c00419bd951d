"""Assets without a price: when the equity of an account is known nevertheless (ADR 0080).

It is known where an upper bound of each of them is known and all bounds together are small. A bound is the last price
that the venue stated, up to `OLDEST_PRICE` ago, or the value that the Account document declares in `unpriced`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.model.parsing import UnreadableError, decimal, total
from killswitch.model.venue import AccountSpec

UNPRICED_SHARE: Final = Decimal("0.02")
"""Largest value of all assets without a price, as a share of those with one, at which the equity is known."""
OLDEST_PRICE: Final = timedelta(hours=48)
"""For how long the last price of an asset bounds its value."""


class LastPrices(dict[str, tuple[Decimal, datetime]]):
    """The last known price of each symbol or asset, and its time."""

    def recent(self, name: str, now: datetime) -> tuple[Decimal, datetime] | None:
        """The price and its time; None where there was none, or it is too old."""
        found = self.get(name)
        return found if found is not None and now - found[1] <= OLDEST_PRICE else None


class UnpricedAsset(Struct, frozen=True):
    """An amount without a current price.

    `last`: its last price and the time of it; `bound`: an upper bound of its value, None where there is none.
    """

    asset: str
    amount: Decimal
    last: tuple[Decimal, datetime] | None
    bound: Decimal | None

    @property
    def counted_value(self) -> Decimal:
        """The value that counts while the equity is known: at the last price, or zero without one."""
        return Decimal(0) if self.last is None else self.amount * self.last[0]


def unpriced_asset(
    asset: str, amount: Decimal, spec: AccountSpec, last: tuple[Decimal, datetime] | None
) -> UnpricedAsset:
    """An asset with its bound: the last price, else the bound in the Account document. Repaying a debt may cost more
    than a document states, so only a price bounds it."""
    declared = unpriced_bounds(spec).get(asset)
    bound = abs(amount) * last[0] if last is not None else declared if amount > 0 else None
    return UnpricedAsset(asset, amount, last, bound)


def are_small(unpriced: Sequence[UnpricedAsset], priced_value: Decimal) -> bool:
    """Whether all of them together are bounded by a small share of the assets with a price."""
    bound = total(it.bound for it in unpriced)
    return bound is not None and bound <= UNPRICED_SHARE * max(priced_value, Decimal(0))


def remark_on(unpriced: Sequence[UnpricedAsset], spec: AccountSpec, *, cause: str, is_known: bool) -> str | None:
    """The remark on assets without a price, with the `cause`: how they are counted, or why the equity is unknown."""
    if not unpriced:
        return None
    if not is_known:
        each = [
            it.asset if it.bound is None else f"{it.asset} (at most {it.bound.normalize():f} {spec.currency})"
            for it in unpriced
        ]
        return (
            f"{cause} for {', '.join(each)} in {spec.currency}, so the account's equity is unknown; "
            "list assets to leave out in options: {ignore_assets: […]}, "
            "or upper bounds of their value in options: {unpriced: {ASSET: VALUE}}, "
            f"up to {UNPRICED_SHARE:%} in all"
        )
    each = [
        f"{it.asset}, counted as 0 and worth at most {it.bound} {spec.currency}"
        if it.last is None
        else f"{it.asset}, counted at its price {it.last[0]} {spec.currency} of {it.last[1]:%Y-%m-%d %H:%M} UTC"
        for it in unpriced
    ]
    return f"{cause} in {spec.currency} for {'; '.join(each)}"


def ignored_assets(spec: AccountSpec) -> frozenset[str]:
    """Assets that the Account document leaves out of the equity."""
    option = spec.options.get("ignore_assets", ())
    return frozenset(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else frozenset()


def unpriced_bounds(spec: AccountSpec) -> dict[str, Decimal]:
    """Asset → upper bound of the value of all of it, in the account's currency, from the Account document.

    ValueError for an option `unpriced` of another form.
    """
    option = spec.options.get("unpriced", {})
    wrong = ValueError("option unpriced maps assets to the most that all of it is worth, as in unpriced: {PUMP: 250}")
    if not isinstance(option, Mapping):
        raise wrong
    try:
        found = {str(asset): decimal(bound) for asset, bound in option.items()}
    except UnreadableError:
        raise wrong from None
    bounds = {asset: bound for asset, bound in found.items() if bound is not None and bound >= 0}
    if len(bounds) < len(option):
        raise wrong
    return bounds
