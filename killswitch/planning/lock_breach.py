"""Lock breaches: risk that the orders of others open in an account while its trading lock is on disk.

A lock only asks bots to stop. What they open nevertheless shows at the venue: a position that is larger than at its
least since the lock was written, and fills on its side. Deposits, interest, deliveries and transfers are no fills, and
what our own hedges and conversions open is subtracted. A lock of one side or symbol is breached there only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Position, Side, Snapshot, WrittenLock
from killswitch.model.store import DamagedStateError
from killswitch.planning.orders.hedge_legs import base_units_of
from killswitch.planning.spot_routes import asset_paid_by
from killswitch.render.formats import instant, money
from killswitch.valuation.position_measures import ZERO, base_of, merge_rows
from killswitch.valuation.scope_view import Instruments, PnlKey, ScopeView
from killswitch.valuation.trust import reason_positions_missing, reason_positions_unusable

BreachAnswer = Literal["page", "cancel", "close"]


class LockedPosition(Struct, frozen=True):
    """A position under a lock. Amounts in contracts.

    `least`: its smallest size since the lock was written. `filled`: what fills since then have added on its side.
    """

    symbol: str
    side: Side
    least: Decimal
    filled: Decimal = ZERO


class LockedAccount(Struct, frozen=True):
    """The book of an account since the lock of `decision` was written; it is empty before the first snapshot since."""

    decision: str
    account: str
    positions: tuple[LockedPosition, ...]
    resting: tuple[str, ...]
    """Ids of the orders that rested when the lock was written."""
    observed_at: datetime | None
    """The time of the last snapshot: an account that was not polled repeats it, with its fills."""
    by_resting: bool = True
    """Whether all fills since were of such orders."""
    is_blind: bool = False
    """Whether fills were unknown in a snapshot since, so that nobody knows who enlarged a position."""


class OwnOpening(Struct, frozen=True):
    """What an order of ours opens: a hedge, a conversion on the route of a close, or the holding that a sale pays into.

    `contracts` is None for a conversion and a sale, whose amounts are not known before. `asset`: what the sale pays
    out; no fill of a symbol of that asset shows it.
    """

    at: datetime
    account: str
    symbol: str
    side: Side
    contracts: Decimal | None
    asset: str | None = None


def own_openings(decisions: Iterable[Decision]) -> tuple[OwnOpening, ...]:
    """What these decisions open, each once."""
    found: dict[OwnOpening, None] = {}
    for decision in decisions:
        for intent in decision.intents if decision.mode == "enforce" else ():
            at, account, symbol = decision.as_of, intent.account, intent.symbol
            if intent.purpose == "hedge":
                side: Side = "long" if intent.side == "buy" else "short"
                found[OwnOpening(at, account, symbol, side, intent.contracts)] = None
            elif intent.purpose == "hop":
                found[OwnOpening(at, account, symbol, "long", None)] = None
            if (asset := asset_paid_by(intent)) is not None:
                found[OwnOpening(at, account, symbol, "long", None, asset)] = None
    return tuple(found)


class LockBreach(Struct, frozen=True):
    """What others have opened of a position under a lock: `more` contracts of `row`.

    `hedging`: how many of them lower the net exposure in the base asset over the lock's scope. `answer`: what the stage
    of the lock declares.
    """

    account: AccountSnapshot
    row: Position
    more: Decimal
    under: WrittenLock
    least: Decimal
    by_resting: bool
    hedging: Decimal = ZERO
    answer: BreachAnswer = "page"

    @property
    def key(self) -> PnlKey:
        return (self.account.account, *self.row.key)

    @property
    def excess(self) -> Decimal:
        """The contracts that hedge nothing: what an answer takes back."""
        return self.more - self.hedging

    def value(self, contracts: Decimal) -> Decimal | None:
        """The value of so many of its contracts in the currency of the account; None if it is unknown."""
        return None if self.row.notional is None else self.row.notional * contracts / self.row.contracts

    @property
    def alert(self) -> Alert:
        """The page of it."""
        row, lock, name = self.row, self.under, self.account.account
        orders = "orders that rested before the lock" if self.by_resting else "a bot or a person that does not obey it"
        text = (
            f"{name} is locked since {instant(lock.since)}, and {self.more} {row.symbol} {row.side} "
            f"({money(self.value(self.more), self.account.currency)}) were opened since by {orders}; "
            f"the least under the lock was {self.least}"
        )
        if self.hedging:
            part = "It lowers" if not self.excess else f"{self.hedging} of it lower"
            text += f". {part} the net exposure in {base_of(row.symbol)} and stay{'s' * (not self.excess)} open"
        if self.excess and self.answer != "page":
            what = "closes it again" if self.answer == "close" else "cancels entries"
            text += f". The stage {what} (on_breach: {self.answer}); stop the bot"
        return Alert(
            f"breach/{name}/{row.symbol}/{row.side}",
            "page",
            f"lock breached: {text}",
            NoticeGroup(lock.policy, lock.scope, "warning", row.symbol),
            over=f"lock breach: what was opened of {row.symbol} {row.side} on {name} under the lock is closed",
            measure=(self.more,),
        )


class LockBreaches:
    """The accounts under a written lock, and what others have opened there."""

    def __init__(self, answers: Mapping[tuple[str, str], BreachAnswer] | None = None) -> None:
        """`answers`: policy and stage → what it declares, if that is more than a page."""
        self._answers = answers or {}
        self._books: dict[tuple[str, str], LockedAccount] = {}
        self._stored = self._books
        self._openings: tuple[OwnOpening, ...] = ()
        self.found: tuple[LockBreach, ...] = ()
        """The breaches of the last snapshot."""
        self._unknown: tuple[str, ...] = ()
        self._growth: tuple[Alert, ...] = ()

    def restore(self, blob: bytes | None, past: Iterable[Decision]) -> None:
        """Restore the books of an earlier run, and what its decisions opened; DamagedStateError if they are damaged."""
        self._openings = own_openings(past)
        try:
            books = _DECODER.decode(blob) if blob else ()
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored books of locked accounts cannot be read ({error})") from error
        self._books = self._stored = {(each.decision, each.account): each for each in books}

    def changed(self) -> bytes | None:
        """The books, as JSON; None if they are as at the last call."""
        if self._books == self._stored:
            return None
        self._stored = self._books
        return _ENCODER.encode(tuple(self._books.values()))

    @property
    def alerts(self) -> Alerts:
        """A page for each position that was enlarged under a lock, as of the last snapshot."""
        found = {each.key: each for each in (*(breach.alert for breach in self.found), *self._growth)}
        return Alerts(tuple(found.values()), self._unknown)

    def acted(self, decisions: Iterable[Decision]) -> None:
        """Remember what our own decisions open."""
        self._openings += own_openings(decisions)

    def observe(self, snapshot: Snapshot, instruments: Instruments = {}) -> bool:  # noqa: B006 - it is never changed
        """Compare the locked accounts with their books; whether anything was found or is unknown."""
        if not (snapshot.locks or self._books):
            return False
        accounts = {each.account: each for each in snapshot.accounts}
        books: dict[tuple[str, str], LockedAccount] = {}
        found: list[LockBreach] = []
        unknown: dict[str, None] = {}
        for lock in snapshot.locks:
            of_lock: list[LockBreach] = []
            for name in lock.accounts:
                account, book = accounts.get(name), self._books.get((lock.decision, name))
                if account is None or _is_unknown(account):
                    unknown[f"breach/{name}"] = None
                elif book is not None or not _may_be_older(account, lock):
                    book = _opened(lock, account) if book is None else _followed(book, account, lock)
                    of_lock += _breaches(book, account, lock, self._openings)
                if book is not None:
                    books[lock.decision, name] = book
            answer = self._answers.get((lock.policy, lock.stage or ""), "page")
            of_lock = [replace(each, answer=answer) for each in of_lock]
            found += _with_hedging(of_lock, snapshot, instruments) if of_lock else ()
        self._books, self.found, self._unknown = books, tuple(found), tuple(unknown)
        self._growth = tuple(
            alert
            for lock in snapshot.locks
            for name in lock.accounts
            if (book := books.get((lock.decision, name))) is not None and book.is_blind and name in accounts
            for alert in _unexplained_growth(book, accounts[name], lock, self._openings)
        )
        return bool(found or unknown or self._growth)


def _is_unknown(account: AccountSnapshot) -> bool:
    return (reason_positions_unusable(account) or reason_positions_missing(account)) is not None


def _may_be_older(account: AccountSnapshot, lock: WrittenLock) -> bool:
    """Whether the positions may be older than the lock file."""
    seen = account.positions_as_of or account.observed_at
    return seen is None or seen < lock.since


def _opened(lock: WrittenLock, account: AccountSnapshot) -> LockedAccount:
    """The book of the first snapshot after the lock was written."""
    positions = tuple(LockedPosition(*key, size) for key, size in _sizes(account).items())
    resting = tuple(order.id for order in account.orders or ())
    return LockedAccount(lock.decision, account.account, positions, resting, account.observed_at)


def _followed(book: LockedAccount, account: AccountSnapshot, lock: WrittenLock) -> LockedAccount:
    """The book after a further snapshot. Where a position is smaller than ever, its fills are counted again from 0."""
    if account.observed_at is not None and account.observed_at == book.observed_at:
        return book
    known = {(each.symbol, each.side): each for each in book.positions}
    fills = [fill for fill in account.fills or () if fill.cause == "trade" and fill.at >= lock.since]
    sizes, added = _sizes(account), _added(fills)
    positions = []
    for key in dict.fromkeys((*known, *sizes, *added)):
        before, size = known.get(key, LockedPosition(*key, ZERO)), sizes.get(key, ZERO)
        filled = before.filled + added.get(key, ZERO)
        positions.append(LockedPosition(*key, size) if size < before.least else replace(before, filled=filled))
    opening = [fill for fill in fills if any(sizes.get(key, ZERO) > ZERO for key in _sides(fill))]
    by_resting = book.by_resting and all(fill.order in book.resting for fill in opening)
    is_blind = book.is_blind or account.fills is None
    return replace(
        book, positions=tuple(positions), observed_at=account.observed_at, by_resting=by_resting, is_blind=is_blind
    )


def _sizes(account: AccountSnapshot) -> dict[tuple[str, Side], Decimal]:
    sizes: dict[tuple[str, Side], Decimal] = {}
    for row in account.positions or ():
        sizes[row.key] = sizes.get(row.key, ZERO) + row.contracts
    return sizes


def _sides(fill: Fill) -> tuple[tuple[str, Side], ...]:
    """The position that the fill enlarges, if it is not a reduction of the other side."""
    side: Side = "long" if fill.side == "buy" else "short"
    return ((fill.symbol, side),) if fill.position_side in (None, side) else ()


def _added(fills: Iterable[Fill]) -> dict[tuple[str, Side], Decimal]:
    added: dict[tuple[str, Side], Decimal] = {}
    for fill in fills:
        for key in _sides(fill):
            added[key] = added.get(key, ZERO) + fill.amount
    return added


def _breaches(
    book: LockedAccount, account: AccountSnapshot, lock: WrittenLock, openings: Iterable[OwnOpening]
) -> Iterator[LockBreach]:
    """Each position that fills of others have enlarged beyond its least size since the lock."""
    own = _own_under(lock, account, openings)
    converted = _converted(own)
    rows: dict[tuple[str, Side], Position] = {}
    for row in account.positions or ():
        rows[row.key] = merge_rows(rows[row.key], row) if row.key in rows else row
    for each in book.positions:
        key = (each.symbol, each.side)
        ours = _opened_by_us(own, key)
        held = rows.get(key)
        more = ZERO if held is None else min(held.contracts - each.least, each.filled) - ours
        is_locked = lock.reaches(each.side, each.symbol)
        if held is not None and more > ZERO and is_locked and each.symbol not in converted:
            yield LockBreach(account, held, more, lock, each.least, book.by_resting)


def _own_under(lock: WrittenLock, account: AccountSnapshot, openings: Iterable[OwnOpening]) -> list[OwnOpening]:
    """What we have opened on the account since the lock was written."""
    return [each for each in openings if each.account == account.account and each.at >= lock.since]


def _opened_by_us(own: Iterable[OwnOpening], key: tuple[str, Side]) -> Decimal:
    """The contracts of this symbol and side among them, as far as their amount is known."""
    return sum((each.contracts or ZERO for each in own if (each.symbol, each.side) == key), ZERO)


def _converted(own: Iterable[OwnOpening]) -> set[str]:
    """The symbols on which conversions of ours trade."""
    return {each.symbol for each in own if each.contracts is None and each.asset is None}


def _unexplained_growth(
    book: LockedAccount, account: AccountSnapshot, lock: WrittenLock, openings: Iterable[OwnOpening]
) -> Iterator[Alert]:
    """A page for each position that grew while the account's fills were unknown: it is not known to be a breach.

    What our hedges open is subtracted. A holding that our sales pay into is left out: only fills would show the amount.
    """
    if _is_unknown(account):
        return
    own = _own_under(lock, account, openings)
    converted, fed = _converted(own), {each.asset for each in own}
    least = {(each.symbol, each.side): each.least for each in book.positions}
    for (symbol, side), size in _sizes(account).items():
        more = size - least.get((symbol, side), ZERO) - _opened_by_us(own, (symbol, side))
        if more > ZERO and lock.reaches(side, symbol) and symbol not in converted and base_of(symbol) not in fed:
            text = (
                f"{account.account} is locked since {instant(lock.since)}, and its {symbol} {side} has grown by {more} "
                "since; whether a bot has opened that is unknown: its fills cannot be read. Nothing of it is closed"
            )
            yield Alert(
                f"breach-unknown/{account.account}/{symbol}/{side}", "page", text,
                NoticeGroup(lock.policy, lock.scope, "warning", symbol), measure=(more,),
            )  # fmt: skip


def _with_hedging(found: Sequence[LockBreach], snapshot: Snapshot, instruments: Instruments) -> Iterator[LockBreach]:
    """The breaches of one lock, with what of each lowers the net exposure in its base asset.

    The net is that of all accounts of the lock without what others opened. Where a leg is unknown, nothing hedges.
    """
    lock = found[0].under
    accounts = [each for each in snapshot.accounts if each.account in lock.accounts]
    is_known = len(accounts) == len(lock.accounts) and not any(map(_is_unknown, accounts))
    view = ScopeView(to_micros(snapshot.as_of), snapshot.scheduled, accounts, instruments, None)
    nets: dict[str, Decimal | None] = {base_of(each.row.symbol): ZERO if is_known else None for each in found}
    for account, position in view.positions():
        base = base_of(position.symbol)
        if (net := nets.get(base)) is not None:
            size = base_units_of(view, account, position)
            nets[base] = None if size is None else net + size
    opened = [(each, _base_units(view, each)) for each in found]
    for each, units in opened:
        base = base_of(each.row.symbol)
        if (net := nets[base]) is not None and units is not None:
            nets[base] = net - units
    for each, units in opened:
        base = base_of(each.row.symbol)
        net = nets[base]
        if net is None or not units or units * net >= ZERO:
            yield each
            continue
        lowering = min(abs(units), abs(net))
        nets[base] = net + lowering.copy_sign(units)
        yield replace(each, hedging=each.more * lowering / abs(units))


def _base_units(view: ScopeView, breach: LockBreach) -> Decimal | None:
    """What others opened in base units, negative for a short; None if that is unknown."""
    size = base_units_of(view, breach.account, breach.row)
    return None if size is None else size * breach.more / breach.row.contracts


_DECODER = msgjson.Decoder(tuple[LockedAccount, ...])
_ENCODER = msgjson.Encoder(decimal_format="string")
