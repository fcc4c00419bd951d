"""Lock breaches: risk that the orders of others open in an account while its trading lock is on disk.

A lock only asks bots to stop. What they open nevertheless shows at the venue: a position that is larger than at its
least since the lock was written, and fills on its side. Deposits, interest, deliveries and transfers are no fills, and
what our own hedges and conversions open is subtracted. A lock of one side or symbol is breached there only, and that of
a strategy that shares its accounts by its own part only (`own_breach`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Position, Side, Snapshot, WrittenLock
from killswitch.model.store import DamagedStateError
from killswitch.planning.locked_books import LockedAccount, followed, is_unknown, may_be_older, opened, sizes_of
from killswitch.planning.orders.hedge_legs import base_units_of
from killswitch.planning.own_breach import followed_own, held_against, own_book, sharing_strategy, unowned_growth
from killswitch.planning.spot_routes import asset_paid_by
from killswitch.render.formats import instant, money
from killswitch.valuation.ownership import AccountOwnership
from killswitch.valuation.position_measures import ZERO, base_of, merge_rows
from killswitch.valuation.scope_view import Instruments, PnlKey, ScopeView

BreachAnswer = Literal["page", "cancel", "close"]


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


def breach_key(key: PnlKey, strategy: str | None) -> str:
    """The key of the alert of a breach on this position, or on a strategy's part of it."""
    account, symbol, side = key
    return f"breach/{account}/{symbol}/{side}" + ("" if strategy is None else f"/{strategy}")


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
    strategy: str | None = None
    """The strategy whose part of the account's position `row` is; None: `row` is all of it."""
    against: Decimal = ZERO
    """The contracts that others hold against that part, so that they cannot be closed."""

    @property
    def key(self) -> PnlKey:
        return (self.account.account, *self.row.key)

    @property
    def alert_key(self) -> str:
        return breach_key(self.key, self.strategy)

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
        whose = "" if self.strategy is None else f"the strategy {self.strategy} on "
        orders = "orders that rested before the lock" if self.by_resting else "a bot or a person that does not obey it"
        text = (
            f"{whose}{name} is locked since {instant(lock.since)}, and {self.more} {row.symbol} {row.side} "
            f"({money(self.value(self.more), self.account.currency)}) were opened since by {orders}; "
            f"the least under the lock was {self.least}"
        )
        if self.hedging:
            part = "It lowers" if not self.excess else f"{self.hedging} of it lower"
            text += f". {part} the net exposure in {base_of(row.symbol)} and stay{'s' * (not self.excess)} open"
        if self.excess and self.answer != "page":
            what = "closes it again" if self.answer == "close" else "cancels entries"
            text += f". The stage {what} (on_breach: {self.answer}); stop the bot"
        if self.against:
            text += f". {self.against} are not closable: others hold against them"
        return Alert(
            self.alert_key,
            "page",
            f"lock breached: {text}",
            NoticeGroup(lock.policy, lock.scope, "warning", row.symbol),
            over=f"lock breach: what was opened of {row.symbol} {row.side} on {name} under the lock is closed",
            measure=(self.more,),
        )


class LockBreaches:
    """The accounts under a written lock, and what others have opened there."""

    def __init__(self, answer_to: Callable[[WrittenLock], BreachAnswer] = lambda _: "page") -> None:
        """`answer_to`: what answers a breach of a lock."""
        self._answer_to = answer_to
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

    def alerts(self, besides: Collection[str] = ()) -> Alerts:
        """A page for each position that was enlarged under a lock, as of the last snapshot.

        `besides`: the keys of those in whose place another alert is.
        """
        breaches = (breach.alert for breach in self.found if breach.alert_key not in besides)
        found = {each.key: each for each in (*breaches, *self._growth)}
        return Alerts(tuple(found.values()), self._unknown)

    def acted(self, decisions: Iterable[Decision]) -> None:
        """Remember what our own decisions open."""
        self._openings += own_openings(decisions)

    def observe(
        self,
        snapshot: Snapshot,
        instruments: Instruments = {},  # noqa: B006 - it is never changed
        ownership: Mapping[str, AccountOwnership] = {},
    ) -> bool:
        """Compare the locked accounts with their books; whether anything was found or is unknown.

        `ownership`: account → the owners in it, by which a strategy's part is compared.
        """
        if not (snapshot.locks or self._books):
            return False
        accounts = {each.account: each for each in snapshot.accounts}
        books: dict[tuple[str, str], LockedAccount] = {}
        found: list[LockBreach] = []
        unknown: dict[str, None] = {}
        growth: list[Alert] = []
        for lock in snapshot.locks:
            of_lock: list[LockBreach] = []
            parts: dict[str, AccountSnapshot] = {}
            for name in lock.accounts:
                account, book, owned = accounts.get(name), self._books.get((lock.decision, name)), ownership.get(name)
                strategy = sharing_strategy(lock, owned)
                if account is None or is_unknown(account):
                    unknown[f"breach/{name}"] = None
                elif book is not None or not may_be_older(account, lock):
                    if strategy is None or owned is None:
                        part, openings = account, self._openings
                        book = opened(lock, part) if book is None else followed(book, part, lock)
                    else:
                        part, openings = parts.setdefault(name, own_book(account, owned, strategy)), ()
                        book = followed_own(book, account, part, owned, strategy, lock)
                        if part.positions is None:
                            unknown[f"breach/{name}"] = None
                            growth += unowned_growth(book, account, owned, strategy, lock)
                    of_lock += (_of_strategy(each, account, strategy) for each in _breaches(book, part, lock, openings))
                    growth += _unexplained_growth(book, part, lock, openings) if book.is_blind else ()
                if book is not None:
                    books[lock.decision, name] = book
            of_lock = [replace(each, answer=self._answer_to(lock)) for each in of_lock]
            found += _with_hedging(of_lock, snapshot, instruments, parts) if of_lock else ()
        self._books, self.found, self._unknown = books, tuple(found), tuple(unknown)
        self._growth = tuple(growth)
        return bool(found or unknown or self._growth)


def _of_strategy(breach: LockBreach, account: AccountSnapshot, strategy: str | None) -> LockBreach:
    """A breach in a strategy's part of the account, whose equity is that of the account."""
    if strategy is None:
        return breach
    against = held_against(account, breach.key, breach.more)
    return replace(breach, account=account, strategy=strategy, against=against)


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
    if is_unknown(account):
        return
    own = _own_under(lock, account, openings)
    converted, fed = _converted(own), {each.asset for each in own}
    least = {(each.symbol, each.side): each.least for each in book.positions}
    for (symbol, side), size in sizes_of(account).items():
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


def _with_hedging(
    found: Sequence[LockBreach], snapshot: Snapshot, instruments: Instruments, parts: Mapping[str, AccountSnapshot]
) -> Iterator[LockBreach]:
    """The breaches of one lock, with what of each lowers the net exposure in its base asset.

    The net is that of all accounts of the lock, or of a strategy's `parts` of them, without what others opened. Where a
    leg is unknown, nothing hedges.
    """
    lock = found[0].under
    accounts = [parts.get(each.account, each) for each in snapshot.accounts if each.account in lock.accounts]
    is_known = len(accounts) == len(lock.accounts) and not any(map(is_unknown, accounts))
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
