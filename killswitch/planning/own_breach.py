"""The books of strategies that share their accounts, for the breaches of their locks.

A breach of a strategy's lock is what its own fills have added to its own part: what another strategy opens beside it is
none. While the owners are unknown, fills that may be its own are paged, and nothing is closed: they may be an exit, or
another strategy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.alert import Alert, NoticeGroup
from killswitch.model.snapshot import AccountSnapshot, WrittenLock
from killswitch.model.venue import is_ours
from killswitch.planning.locked_books import LockedAccount, followed, opened
from killswitch.planning.reducing import enlarged_by
from killswitch.render.formats import instant
from killswitch.valuation.ownership import UNKNOWN_OWNER, AccountOwnership, merged_rows, strategy_part
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey


def sharing_strategy(lock: WrittenLock, owned: AccountOwnership | None) -> str | None:
    """The strategy whose part of the account the lock is; None if the lock is of all of the account, or of a symbol."""
    kind, _, name = lock.scope.partition("/")
    rules = () if owned is None else owned.rules
    return name if kind == "strategy" and any(rule.name == name and not rule.whole for rule in rules) else None


def own_book(account: AccountSnapshot, owned: AccountOwnership, strategy: str) -> AccountSnapshot:
    """The strategy's part of the account, without the fills of our orders. Positions are None while it is unknown."""
    fills = (
        None
        if account.fills is None or owned.fills is None
        else tuple(
            fill
            for fill, owner in zip(account.fills, owned.fills, strict=True)
            if owner == strategy and not is_ours(fill.client_order_id)
        )
    )
    return replace(strategy_part(account, owned, strategy), fills=fills)


def unowned_fills(
    account: AccountSnapshot, owned: AccountOwnership, strategy: str, lock: WrittenLock
) -> dict[str, Decimal]:
    """Symbol → contracts of fills under the lock that may be the strategy's, where the owners are unknown."""
    symbols = {symbol for symbol, _ in owned.unknown}
    found: dict[str, Decimal] = {}
    for fill, owner in zip(account.fills or (), owned.fills or (), strict=True):
        may_be_own = owner in (UNKNOWN_OWNER, strategy) and not is_ours(fill.client_order_id)
        enlarged = enlarged_by(fill.symbol, fill.side, fill.position_side)
        is_locked = enlarged is not None and fill.at >= lock.since and lock.reaches(enlarged[1], fill.symbol)
        if fill.cause == "trade" and may_be_own and is_locked and fill.symbol in symbols:
            found[fill.symbol] = found.get(fill.symbol, ZERO) + fill.amount
    return found


def unowned_alerts(
    account: AccountSnapshot, owned: AccountOwnership, strategy: str, lock: WrittenLock, traded: Mapping[str, Decimal]
) -> Iterator[Alert]:
    """A page for each symbol of unknown owners in which the locked strategy may have opened something.

    `traded`: what fills that may be its own have traded since the lock. Without fills, every position whose owners are
    unknown is one.
    """
    why = {symbol: text for (symbol, side), text in owned.unknown.items() if lock.reaches(side, symbol)}
    if account.fills is None:
        traded = dict.fromkeys(why, ZERO) | dict(traded)
    for symbol, contracts in traded.items():
        if symbol not in why:
            continue
        what = f"{contracts} {symbol} were traded since, which may be its own" if contracts else f"{symbol} has moved"
        text = (
            f"lock breached, or not: the strategy {strategy} on {account.account} is locked since "
            f"{instant(lock.since)}, and {what}: {why[symbol]}. Nothing of it is closed; look at "
            "the bot, and at the position"
        )
        yield Alert(
            f"breach-owner/{account.account}/{symbol}/{strategy}", "page", text,
            NoticeGroup(lock.policy, lock.scope, "warning", symbol), measure=(contracts,),
        )  # fmt: skip


def followed_own(
    book: LockedAccount | None,
    account: AccountSnapshot,
    part: AccountSnapshot,
    owned: AccountOwnership,
    strategy: str,
    lock: WrittenLock,
) -> LockedAccount:
    """The book of a strategy's `part` of the account after a further snapshot; it begins once that part is known."""
    if part.positions is not None:
        if book is None or book.awaits_owners:
            return opened(lock, part)
        return replace(followed(book, part, lock), unowned={})
    before = opened(lock, part) if book is None else book
    if book is not None and account.observed_at is not None and account.observed_at == book.observed_at:
        return book
    unowned = dict(before.unowned)
    for symbol, contracts in unowned_fills(account, owned, strategy, lock).items():
        unowned[symbol] = unowned.get(symbol, ZERO) + contracts
    if book is None or book.awaits_owners:
        return replace(before, awaits_owners=True, unowned=unowned, observed_at=account.observed_at)
    return replace(followed(book, part, lock), unowned=unowned)


def unowned_growth(
    book: LockedAccount, account: AccountSnapshot, owned: AccountOwnership, strategy: str, lock: WrittenLock
) -> Iterator[Alert]:
    """The pages of what may be the strategy's; without fills only of what has become unknown under the lock."""
    if account.fills is not None or not book.awaits_owners:
        yield from unowned_alerts(account, owned, strategy, lock, book.unowned)


def held_against(account: AccountSnapshot, key: PnlKey, contracts: Decimal) -> Decimal:
    """Of so many contracts of an own part, those that others hold against it, so that they cannot be closed."""
    row = merged_rows(account.positions or ()).get((key[1], "long" if key[2] == "long" else "short"))
    return max(contracts - (ZERO if row is None else row.contracts), ZERO)
