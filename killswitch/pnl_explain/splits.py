"""Splits and redenominations: the size of a position and its price change inversely, and nothing is traded.

The earlier snapshot is restated, so that sizes, marks and entry prices are comparable with the later one. A split has
a round ratio: a power of ten for coins and contracts. Other ratios are trades or transfers: −20% of the price and +25%
of the size is a deposit that refills a loss. Shares split by other ratios, too, which a deposit can imitate: their
splits count only if the venue reports a corporate action; without one the change stays unexplained, and pending.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Balance, Position
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of

ROUNDED = Decimal("0.001")
"""The tolerance of the ratio of sizes, which venues round to their steps."""
REAL_MOVE = Decimal("0.25")
"""The maximum price move in the same interval apart from the split."""
_LARGEST_POWER = 9
_SHARE_RATIOS = (Decimal("1.5"), Decimal("2.5"), Decimal("1.25"), Decimal(4) / 3)
"""Further ratios, besides n:1 and 1:n."""


def restated_for_splits(
    before: AccountSnapshot,
    after: AccountSnapshot,
    traded: Collection[str],
    noise: Decimal,
    reported: Collection[str] = (),
) -> AccountSnapshot:
    """`before` in the units of `after`; itself if no position was split.

    `traded`: the symbols with fills in the interval. `noise`: n, in the account's currency. `reported`: the shares with
    a corporate action.
    """
    ratios = {}
    for one, other in _untraded(before, after, traded):
        if after.market == "equity":
            ratio = _share_ratio(one, other) if one.symbol in reported else None
        else:
            ratio = _split_ratio(one, other)
            ratio = None if ratio is None or _is_paid(before, after, base_of(one.symbol), noise) else ratio
        if ratio is not None:
            ratios[one.symbol] = ratio
    return _restated(before, ratios) if ratios else before


def may_be_share_split(before: AccountSnapshot, after: AccountSnapshot, traded: Collection[str]) -> bool:
    """Whether shares changed in size and price as a split without a corporate action would."""
    if after.market != "equity":
        return False
    return any(_share_ratio(one, other) is not None for one, other in _untraded(before, after, traded))


def split_symbols(before: AccountSnapshot, after: AccountSnapshot, traded: Collection[str]) -> Iterator[str]:
    """The symbols whose position changed in size and price as by a split, whether or not the venue reports one.

    It is for returns of prices: money is restated only for splits that are certain, see `restated_for_splits`.
    """
    ratio_of = _share_ratio if after.market == "equity" else _split_ratio
    return (one.symbol for one, other in _untraded(before, after, traded) if ratio_of(one, other) is not None)


def is_redenominated(ratio: Decimal, before: Decimal, after: Decimal) -> bool:
    """Whether a contract that is `ratio` times as large has the same value: its price moved inversely, apart from what
    a market moves in the same interval."""
    return abs(after * ratio / before - 1) <= REAL_MOVE and abs(after / before - 1) > abs(after * ratio / before - 1)


def _untraded(
    before: AccountSnapshot, after: AccountSnapshot, traded: Collection[str]
) -> Iterator[tuple[Position, Position]]:
    """The positions of both snapshots without fills, of symbols with a single one."""
    first, second = _held(before), _held(after)
    for symbol, one in first.items():
        other = second.get(symbol, [])
        if symbol not in traded and len(one) == len(other) == 1:
            yield one[0], other[0]


def _share_ratio(one: Position, other: Position) -> Decimal | None:
    """The ratio of a split of shares that both positions look like, else None."""
    before, after = one.mark_price, other.mark_price
    if one.side != other.side or one.contracts == other.contracts or before is None or after is None:
        return None
    if not (sane(before) and sane(after)) or min(before, after) <= ZERO:
        return None
    grown = other.contracts / one.contracts
    whole = round(grown if grown > 1 else 1 / grown)
    ratios = (*_SHARE_RATIOS, Decimal(whole), 1 / Decimal(max(whole, 1)))
    ratio = min(ratios, key=lambda each: abs(each - grown))
    # cash replaces what is not a whole share
    is_round = ratio != 1 and abs(other.contracts - one.contracts * ratio) < 1
    left = abs(after * ratio / before - 1)  # of the price's move, apart from the split; a transfer moves no price
    return ratio if is_round and left <= REAL_MOVE and left < abs(after / before - 1) else None


def _held(account: AccountSnapshot) -> dict[str, list[Position]]:
    found: dict[str, list[Position]] = {}
    for position in account.positions or ():
        if position.contracts:
            found.setdefault(position.symbol, []).append(position)
    return found


def _split_ratio(one: Position, other: Position) -> Decimal | None:
    """The power of ten by which the size grew while the price fell, else None."""
    if one.side != other.side or one.mark_price is None or other.mark_price is None:
        return None
    if not (sane(one.mark_price) and sane(other.mark_price)) or one.mark_price <= ZERO:
        return None
    grown = other.contracts / one.contracts
    power = round(grown.log10())
    ratio = Decimal(10) ** power
    if power == 0 or abs(power) > _LARGEST_POWER or abs(grown / ratio - 1) > ROUNDED:
        return None
    return ratio if abs(other.mark_price * ratio / one.mark_price - 1) <= REAL_MOVE else None


def _is_paid(before: AccountSnapshot, after: AccountSnapshot, asset: str, noise: Decimal) -> bool:
    """Whether the holding of another asset moved, which may have paid for the difference in size."""
    if before.market not in HOLDINGS:
        return False
    then, now = _amounts(before), _amounts(after)
    prices = {each.asset: each.price for each in (*(before.balances or ()), *(after.balances or ()))}
    for name in (then.keys() | now.keys()) - {asset}:
        price = Decimal(1) if name == after.currency else prices.get(name)
        moved = now.get(name, ZERO) - then.get(name, ZERO)
        if moved and (price is None or not sane(price) or abs(moved * price) > noise):
            return True
    return False


def _amounts(account: AccountSnapshot) -> dict[str, Decimal]:
    found = {each.asset: each.amount if each.wallet is None else each.wallet for each in account.balances or ()}
    return {asset: amount for asset, amount in found.items() if sane(amount)}


def _restated(account: AccountSnapshot, ratios: dict[str, Decimal]) -> AccountSnapshot:
    positions = tuple(_split(each, ratios.get(each.symbol)) for each in account.positions or ())
    assets = {base_of(symbol): ratio for symbol, ratio in ratios.items()} if account.market in HOLDINGS else {}
    balances = account.balances and tuple(_split_balance(each, assets.get(each.asset)) for each in account.balances)
    return replace(account, positions=positions, balances=balances)


def _split(position: Position, ratio: Decimal | None) -> Position:
    if ratio is None:
        return position
    prices = ("entry_price", "mark_price", "index_price", "last_price", "bid", "ask", "liquidation_price")
    found = {name: value / ratio for name in prices if (value := getattr(position, name)) is not None}
    return replace(position, contracts=position.contracts * ratio, **found)


def _split_balance(balance: Balance, ratio: Decimal | None) -> Balance:
    if ratio is None:
        return balance
    amounts = ("amount", "wallet", "equity")
    found = {name: value * ratio for name in amounts if (value := getattr(balance, name)) is not None}
    if balance.price is not None:
        found["price"] = balance.price / ratio
    return replace(balance, **found)
