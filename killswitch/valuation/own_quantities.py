"""Own quantities: what each strategy holds of a position that several share, folded from the fills.

In one-way mode an account has one net position per symbol, whoever traded it. The parts of the owners add up to it
after every snapshot: while they do not, a fill is missing, and whose the difference is stays unknown. A position that
is held before the first snapshot has unknown owners, unless a strategy declares its symbol, until an operator resets
the scope while it is flat. Where the venue itself splits positions by strategy, its rows count and fills do not.

What nobody's strategy trades leaves the parts as they are and is a part of its own, which may be against theirs. When
such fills (a close of the whole account, a liquidation) make the position flat, no owner has a part of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.instant import HOUR
from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument, Order, Position
from killswitch.model.store import DamagedStateError
from killswitch.model.venue import is_ours
from killswitch.valuation.ownership import (
    NOBODY,
    UNKNOWN_OWNER,
    AccountOwnership,
    AccountProfits,
    BookKey,
    OwnPart,
    StrategyRule,
    merged_rows,
    owner_named,
    owner_of,
    resident_of,
)
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of
from killswitch.valuation.realised_profits import FilledPart, RealisedProfits
from killswitch.valuation.shared_book import (
    SharedBook,
    add_closing_fee,
    begin_where_flat,
    filled_parts,
    settled,
    sum_of,
    unexplained,
    with_resident,
)

NET: Final = "net"
DAY: Final = 24 * HOUR
FILLS_KEPT: Final = 2 * DAY
"""How long the ids of fills are kept: a run reads fills of a day back, by a clock that may be hours behind."""

Net = Mapping[tuple[str, str], Decimal]
"""(symbol, side of the book) → contracts, negative for short."""

OwnersOfClose = Callable[[str, Fill], tuple[str, Sequence[tuple[str, Decimal]]]]
"""(account, a fill of ours) → the decision, and the owners whose parts it closes with the contracts of each; empty:
nobody's."""


class StoredQuantities(Struct):
    """The fold as it is stored. `orders`: account and order id → (owner, last seen). `fills`: account and fill id →
    when it was folded. `closed`: decision, account, symbol and side → (contracts that its orders have closed, when).

    `seen`: the accounts observed so far. `named`: those whose positions the venue splits by strategy. `awaited`: see
    `OwnQuantities`.
    """

    books: list[SharedBook]
    seen: list[str]
    named: list[str]
    orders: dict[str, tuple[str, int]]
    fills: dict[str, int]
    closed: dict[str, tuple[Decimal, int]]
    profits: dict[str, AccountProfits] = {}
    awaited: list[str] = []


_DECODER = msgjson.Decoder(StoredQuantities)
_ENCODER = msgjson.Encoder(decimal_format="string")


class OwnQuantities:
    """The parts of all owners in all accounts; one for a run."""

    def __init__(
        self, rules: Sequence[StrategyRule], owners_of_close: OwnersOfClose = lambda _account, _fill: ("", ())
    ) -> None:
        self.rules = rules
        self._owners_of_close = owners_of_close
        self._books: dict[tuple[str, str, str], SharedBook] = {}
        self._seen: set[str] = set()
        self._named: set[str] = set()
        self._orders: dict[str, tuple[str, int]] = {}
        self._fills: dict[str, int] = {}
        self._closed: dict[str, tuple[Decimal, int]] = {}
        self._now = 0
        self._profits = RealisedProfits()
        self._counts = False
        """Whether the fills of the account that is folded count in profits."""
        self._instruments: Mapping[tuple[str, str], Instrument] = {}
        self._stored: bytes | None = None
        self.awaited: frozenset[str] = frozenset()
        """Decisions whose close is in progress, or of which it is not known yet whether it closed every part."""

    def observe(
        self,
        accounts: Iterable[AccountSnapshot],
        now: int,
        instruments: Mapping[tuple[str, str], Instrument] = MappingProxyType({}),
    ) -> dict[str, AccountOwnership]:
        """Fold the accounts of one snapshot; account → the owners in it. `now` in microseconds.

        `instruments`: the rules of (account, symbol), for what fills of shared positions made.
        """
        if not self.rules:
            return {}
        self._now, self._instruments = now, instruments
        self._orders = {name: each for name, each in self._orders.items() if each[1] > now - DAY}
        self._fills = {name: at for name, at in self._fills.items() if at > now - FILLS_KEPT}
        self._closed = {name: each for name, each in self._closed.items() if each[1] > now - DAY}
        return {account.account: self._with_profits(account, self._of_account(account)) for account in accounts}

    def accept(self, account: str) -> None:
        """An operator's reset: a position of unknown owners that is flat begins at nothing for all of them."""
        for key, book in self._books.items():
            if key[0] == account and book.unknown is not None and not book.held:
                self._books[key] = SharedBook(*key, outside=ZERO)
        self._profits.restart(account, self._now)

    # Storing

    def changed(self) -> bytes | None:
        """The fold as JSON; None if it is as at the last call."""
        if not self.rules:
            return None
        books = [*self._books.values()]
        seen, named = sorted(self._seen), sorted(self._named)
        stored = StoredQuantities(
            books, seen, named, self._orders, self._fills, self._closed, self._profits.accounts, sorted(self.awaited)
        )
        blob = _ENCODER.encode(stored)
        if blob == self._stored:
            return None
        self._stored = blob
        return blob

    def restore(self, blob: bytes | None) -> None:
        """Restore the fold of an earlier run; DamagedStateError if it is damaged."""
        if not blob:
            return
        try:
            stored = _DECODER.decode(blob)
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored own quantities cannot be read ({error})") from error
        self._books = {(each.account, each.symbol, each.side): each for each in stored.books}
        self._seen, self._named, self._stored = set(stored.seen), set(stored.named), blob
        self._orders, self._fills, self._closed = stored.orders, stored.fills, stored.closed
        self._profits, self.awaited = RealisedProfits(stored.profits), frozenset(stored.awaited)

    # One account

    def _of_account(self, account: AccountSnapshot) -> AccountOwnership:
        names = (account.account, account.venue, account.market, account.currency)
        rules = tuple(rule for rule in self.rules if rule.covers(*names))
        orders = None if account.orders is None else tuple(_owner_of_order(rules, each) for each in account.orders)
        for order, owner in zip(account.orders or (), orders or (), strict=True):
            name = f"{account.account}/{order.id}"
            if name not in self._orders or self._orders[name][1] < self._now - HOUR:  # not at every tick: it is stored
                self._orders[name] = (owner, self._now)
        fills = None if account.fills is None else tuple(self._owner_of(account, rules, each) for each in account.fills)
        found = AccountOwnership(rules, orders=orders, fills=fills)
        if account.quality != "ok":
            return found
        self._counts = self._profits.begin(account, self._now)
        if any(row.strategy is not None for row in account.positions or ()):
            self._named.add(account.account)
        is_folded = bool(rules) and not rules[0].whole and account.account not in self._named
        if not is_folded:
            self._count_fills(account, rules)
        if account.positions is None:
            if is_folded:
                self._apply_fills(account, rules, None)
            return found
        if not rules or rules[0].whole:
            owner = rules[0].name if rules else NOBODY
            rows = merged_rows(account.positions)
            return replace(found, parts={key: {owner: _whole_part(row)} for key, row in rows.items()})
        if account.account in self._named:
            return _by_rows(account, found)
        books = self._fold(account, rules)
        self._seen.add(account.account)
        parts: dict[BookKey, Mapping[str, OwnPart]] = {}
        unknown: dict[BookKey, str] = {}
        for key in merged_rows(account.positions):
            book = books[key[0], _book_side(account, key[1])]
            if book.unknown is not None:
                unknown[key] = book.unknown
            else:
                parts[key] = book.parts
        return replace(found, parts=parts, unknown=unknown)

    def _fold(self, account: AccountSnapshot, rules: Sequence[StrategyRule]) -> dict[tuple[str, str], SharedBook]:
        """Apply the account's new fills; (symbol, side) → its book, with what the owners of symbols have of it."""
        net = _net(account)
        self._apply_fills(account, rules, net)
        known = {key[1:]: book for key, book in self._books.items() if key[0] == account.account}
        found: dict[tuple[str, str], SharedBook] = {}
        for key in dict.fromkeys((*net, *known)):
            held, resident, book = net.get(key, ZERO), resident_of(rules, key[0]), known.get(key)
            if book is None:
                is_first = account.account not in self._seen
                book = SharedBook(account.account, *key, outside=held if is_first else ZERO)
                self._books[account.account, *key] = book
                if account.account not in self._seen and held and resident is None:
                    what = f"{abs(held)} {key[0]}"
                    book.unknown = f"it is unknown whose {what} are, which were held at the first snapshot"
            book.held = held
            begin_where_flat(book, resident)
            found[key] = settled(book, resident, is_missing=account.fills is None)
        return found

    def _apply_fills(self, account: AccountSnapshot, rules: Sequence[StrategyRule], net: Net | None) -> None:
        """Apply the new fills; `net` is None while the positions are unknown."""
        is_first = account.account not in self._seen  # the positions of the first snapshot include its fills
        for fill in sorted(account.fills or (), key=lambda each: (each.at, each.id)):
            name = f"{account.account}/{fill.id}"
            if name not in self._fills:  # a pass for another account, and the first poll of a run, repeat them
                self._fills[name] = self._now
                if not is_first:
                    self._apply(account, rules, fill, net)

    def _apply(self, account: AccountSnapshot, rules: Sequence[StrategyRule], fill: Fill, net: Net | None) -> None:
        """Apply one fill to the parts of its owners."""
        side = fill.position_side or NET if _book_side(account, "") != NET else NET
        book = self._books.setdefault(
            (account.account, fill.symbol, side), SharedBook(account.account, fill.symbol, side, outside=ZERO)
        )
        change = fill.amount if fill.side == "buy" else -fill.amount
        if fill.fee is not None and fill.fee_currency == base_of(fill.symbol) and account.market in HOLDINGS:
            change -= fill.fee
        owners = self._owners_of_fill(account, rules, fill, book, abs(change))
        is_forced = fill.cause != "trade" or is_ours(fill.client_order_id)
        is_of_all = is_forced and all(owner == NOBODY for owner, _ in owners)
        self._count(account, rules, fill, owners, book)
        if is_of_all:
            add_closing_fee(book, account, fill, change)
        parts = dict(book.parts)
        for owner, size in owners:
            if owner == UNKNOWN_OWNER:
                what = f"the fill {fill.id} of {fill.amount} {fill.symbol}"
                why = f"it is unknown whose {what} is: the venue states neither its client order id nor its strategy"
                book.unknown = book.unknown or why
            parts[owner] = parts.get(owner, OwnPart(ZERO)).after(size if change > ZERO else -size, fill.price)
        book.parts = {owner: part for owner, part in parts.items() if part.contracts}
        has_resident = resident_of(rules, fill.symbol) is not None
        is_flat = net is not None and not net.get((fill.symbol, side)) and (has_resident or not sum_of(book))
        if is_of_all and is_flat:  # a close of the whole account, or a liquidation, took what everybody owned
            if self._counts:
                everybody = with_resident(book, resident_of(rules, fill.symbol))
                instrument = self._instruments.get((account.account, fill.symbol))
                self._profits.close_all(account, fill.symbol, everybody, book.fees, instrument)
            book.parts, book.outside, book.fees = {}, ZERO, ZERO

    def _count(
        self,
        account: AccountSnapshot,
        rules: Sequence[StrategyRule],
        fill: Fill,
        owners: Sequence[tuple[str, Decimal]],
        book: SharedBook | None,
    ) -> None:
        """Count what the fill made for its owners; `book`: the position before it, None if it is not folded."""
        if not self._counts:
            return
        if any(owner == UNKNOWN_OWNER for owner, _ in owners):
            why = f"it is unknown whose the fill {fill.id} of {fill.amount} {fill.symbol} is"
            told_by_fills = (rule.name for rule in rules if rule.order_prefixes or rule.named)
            self._profits.lose(account.account, (NOBODY, *told_by_fills), why)
        elif book is None:
            why = f"the venue does not state what fill {fill.id} of {fill.symbol} made"
            parts = [FilledPart(owner, size, OwnPart(ZERO), len(owners) == 1, why) for owner, size in owners]
            self._profits.add(account, fill, parts, self._instruments)
        else:
            parts = filled_parts(book, owners, resident_of(rules, fill.symbol))
            self._profits.add(account, fill, parts, self._instruments)

    def _count_fills(self, account: AccountSnapshot, rules: Sequence[StrategyRule]) -> None:
        """Count the new fills of an account whose positions are not folded: one owner's, or split by the venue."""
        for fill in account.fills or ():
            name = f"{account.account}/{fill.id}"
            if name not in self._fills:
                self._fills[name] = self._now
                whole = SharedBook(account.account, fill.symbol, NET)
                owners = [(rules[0].name, fill.amount)] if rules and rules[0].whole else [(NOBODY, fill.amount)]
                if rules and not rules[0].whole:
                    owners = list(self._owners_of_fill(account, rules, fill, whole, fill.amount))
                self._count(account, rules, fill, owners, None)

    def _with_profits(self, account: AccountSnapshot, found: AccountOwnership) -> AccountOwnership:
        """The owners with what each has realised in the account, and why that is unknown now."""
        profits = self._profits.accounts.get(account.account)
        if profits is None:
            return found
        why = profits.unknown
        if account.quality != "ok" or account.fills is None:
            why = why or f"the fills of {account.account} are unknown"
        missing = next(
            (
                f"no fill explains {abs(different)} {key[1]} yet"
                for key, book in self._books.items()
                if key[0] == account.account and (different := unexplained(book))
            ),
            None,
        )
        return replace(found, profits=replace(profits, unknown=why or missing))

    def _owner_of(self, account: AccountSnapshot, rules: Sequence[StrategyRule], fill: Fill) -> str:
        """The owner of a fill, by what it states or by its order, if that was seen resting."""
        owner = owner_of(rules, fill)
        if owner == UNKNOWN_OWNER and fill.order is not None:
            return self._orders.get(f"{account.account}/{fill.order}", (owner, 0))[0]
        return owner

    def _owners_of_fill(
        self, account: AccountSnapshot, rules: Sequence[StrategyRule], fill: Fill, book: SharedBook, size: Decimal
    ) -> Sequence[tuple[str, Decimal]]:
        """The owners of a fill and how many contracts each has of it."""
        if fill.cause == "trade" and not is_ours(fill.client_order_id):
            return [(self._owner_of(account, rules, fill), size)]
        decision, parts = self._owners_of_close(account.account, fill) if fill.cause == "trade" else ("", ())
        if not parts:  # of a single owner, whatever reduces the position reduces its part
            resident = resident_of(rules, fill.symbol)
            owners = {*book.parts, *([] if resident is None else [resident])}
            return [(owners.pop() if len(owners) == 1 else NOBODY, size)]
        before = self.closed(decision, account.account, fill)
        self._closed[_close_name(decision, account.account, fill)] = (before + size, self._now)
        found, left = [], size
        for owner, most in parts:  # in their order, after what earlier fills of the decision have closed
            done = min(before, most)
            part = min(left, most - done)
            before, left = before - done, left - part
            if part > ZERO:
                found.append((owner, part))
        return [*found, (NOBODY, left)] if left else found

    def closed(self, decision: str, account: str, of: Fill | BookKey) -> Decimal:
        """The contracts of a position that the orders of a decision have closed, by their fills."""
        return self._closed.get(_close_name(decision, account, of), (ZERO, 0))[0]


def _close_name(decision: str, account: str, of: Fill | BookKey) -> str:
    symbol, side = of if isinstance(of, tuple) else (of.symbol, "long" if of.side == "sell" else "short")
    return f"{decision}/{account}/{symbol}/{side}"


def _owner_of_order(rules: Sequence[StrategyRule], order: Order) -> str:
    return NOBODY if is_ours(order.client_order_id) else owner_of(rules, order)


def _whole_part(row: Position) -> OwnPart:
    return OwnPart(row.contracts if row.side == "long" else -row.contracts, row.entry_price)


def _by_rows(account: AccountSnapshot, found: AccountOwnership) -> AccountOwnership:
    """The owners by the venue's own rows; a row without a strategy is unknown unless its symbol is declared."""
    parts: dict[BookKey, dict[str, OwnPart]] = {}
    unknown: dict[BookKey, str] = {}
    for row in account.positions or ():
        if not row.contracts:
            continue
        resident = resident_of(found.rules, row.symbol)
        if row.strategy is None and resident is None:
            unknown[row.key] = f"it is unknown whose {row.contracts} {row.symbol} are: the venue states no strategy"
            continue
        owner = owner_named(found.rules, row.strategy) if row.strategy is not None else resident or NOBODY
        of_row, own = _whole_part(row), parts.setdefault(row.key, {})
        own[owner] = OwnPart(own[owner].contracts + of_row.contracts) if owner in own else of_row
    return replace(found, parts={key: each for key, each in parts.items() if key not in unknown}, unknown=unknown)


def _book_side(account: AccountSnapshot, side: str) -> str:
    return side if account.position_mode == "hedge" and account.market not in HOLDINGS else NET


def _net(account: AccountSnapshot) -> dict[tuple[str, str], Decimal]:
    """(symbol, side) → contracts, negative for short."""
    found: dict[tuple[str, str], Decimal] = {}
    for row in account.positions or ():
        key = (row.symbol, _book_side(account, row.side))
        found[key] = found.get(key, ZERO) + (row.contracts if row.side == "long" else -row.contracts)
    return found
