"""Ownership: which positions, orders and fills of an account belong to which strategy.

Strategies of one account are distinguished by what their documents declare: the `strategy` that the venue or a
recording states, prefixes of client order ids, and symbols, in this order. What no strategy owns belongs to `NOBODY`.
What cannot be assigned, because the venue does not state what the declaration needs, belongs to `UNKNOWN_OWNER` and is
never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Order, Position, Side
from killswitch.model.words import NOBODY as NOBODY
from killswitch.model.words import UNKNOWN_OWNER as UNKNOWN_OWNER
from killswitch.model.words import StrategyRule as StrategyRule
from killswitch.valuation.position_measures import ZERO, merge_rows

BookKey = tuple[str, Side]
"""(symbol, side): a position as the venue shows it."""


class Traded(Protocol):
    """An order or a fill."""

    @property
    def symbol(self) -> str: ...

    @property
    def client_order_id(self) -> str | None: ...

    @property
    def strategy(self) -> str | None: ...


def owner_of(rules: Sequence[StrategyRule], traded: Traded) -> str:
    """The owner of an order or a fill; `rules` are those of its account."""
    if len(rules) == 1 and rules[0].whole:
        return rules[0].name
    if traded.strategy is not None:
        return owner_named(rules, traded.strategy)
    if traded.client_order_id is not None:
        for rule in rules:
            if traded.client_order_id.startswith(rule.order_prefixes or ("\0",)):
                return rule.name
    declared = owner_of_symbol(rules, traded.symbol)
    if declared is not None:
        return declared
    # absent is unknown: a strategy identified by what the venue does not state here may own it
    cannot_tell = any(rule.named or (rule.order_prefixes and traded.client_order_id is None) for rule in rules)
    return UNKNOWN_OWNER if cannot_tell else NOBODY


def owner_named(rules: Iterable[StrategyRule], named: str) -> str:
    """The strategy with this `strategy` in positions, orders and fills; NOBODY if it is none of ours."""
    return next((rule.name for rule in rules if named in rule.named), NOBODY)


def owner_of_symbol(rules: Iterable[StrategyRule], symbol: str) -> str | None:
    """The strategy that declares the symbol; None if none does."""
    return next((rule.name for rule in rules if symbol in rule.symbols), None)


def resident_of(rules: Sequence[StrategyRule], symbol: str) -> str | None:
    """Who owns what is held in the symbol unless others are seen to trade it: the strategy that declares it.

    NOBODY if no strategy is identified by anything but symbols; None if any of the strategies may own it.
    """
    declared = owner_of_symbol(rules, symbol)
    if declared is not None or any(rule.order_prefixes or rule.named for rule in rules):
        return declared
    return NOBODY


class OwnPart(Struct, frozen=True):
    """An owner's part of a net position: contracts, negative for short, and its average entry price if known."""

    contracts: Decimal
    entry: Decimal | None = None

    @property
    def side(self) -> Side:
        return "long" if self.contracts > ZERO else "short"

    def after(self, change: Decimal, price: Decimal | None) -> OwnPart:
        """The part after a trade of `change` contracts at `price`; the entry is the average by contracts."""
        contracts = self.contracts + change
        if self.contracts * change < ZERO:
            if self.contracts * contracts >= ZERO:
                return OwnPart(contracts, self.entry if contracts else None)
            return OwnPart(contracts, price)
        if not self.contracts:
            return OwnPart(contracts, price)
        if self.entry is None or price is None or not contracts:
            return OwnPart(contracts)
        return OwnPart(contracts, (self.entry * self.contracts + price * change) / contracts)


class OwnProfit(Struct, frozen=True, omit_defaults=True):
    """What an owner has realised in an account, net of fees, as far as known. `unknown`: why not all of it is."""

    amount: Decimal = ZERO
    unknown: str | None = None


class AccountProfits(Struct, omit_defaults=True):
    """The profits of one account by owner, in microseconds of the tick clock.

    `since`: its first snapshot. `read_at`: the last one with fills, to an hour. `unknown`: why nobody's is known.
    """

    since: int
    read_at: int
    owners: dict[str, OwnProfit] = {}
    unknown: str | None = None

    def of(self, owner: str) -> OwnProfit:
        """The profit of the owner; zero if none of its fills was seen."""
        found = self.owners.get(owner, OwnProfit())
        return found if self.unknown is None else replace(found, unknown=self.unknown)


class AccountOwnership(Struct, frozen=True):
    """The owners in one account at one instant.

    `parts`: position → owner → its part; `unknown`: position → why its owners are unknown. `orders`: the owner of each
    resting order, in order; None if orders are unknown. `fills`: that of each fill likewise. `profits`: what each has
    realised, None before the account was read.
    """

    rules: tuple[StrategyRule, ...] = ()
    parts: Mapping[BookKey, Mapping[str, OwnPart]] = {}
    unknown: Mapping[BookKey, str] = {}
    orders: tuple[str, ...] | None = None
    fills: tuple[str, ...] | None = None
    profits: AccountProfits | None = None

    def unowned(self, position: Position) -> tuple[Decimal, Decimal]:
        """Least and greatest contracts of the position, a merged row of the venue, that no strategy owns."""
        if not self.rules:
            return position.contracts, position.contracts
        if position.key in self.unknown:
            return ZERO, position.contracts
        sign = 1 if position.side == "long" else -1
        part = self.parts.get(position.key, {}).get(NOBODY)
        size = ZERO if part is None else min(max(part.contracts * sign, ZERO), position.contracts)
        return size, size

    def held_by(self, owner: str, key: BookKey) -> Decimal | None:
        """The contracts that an owner has of a position, in its direction; None if they are unknown."""
        if key in self.unknown:
            return None
        part = self.parts.get(key, {}).get(owner)
        return ZERO if part is None or part.side != key[1] else abs(part.contracts)

    def reason_unknown(self, strategy: str) -> str | None:
        """Why the positions of the strategy are unknown, or None."""
        rule = next((each for each in self.rules if each.name == strategy), None)
        if rule is None or rule.whole or not self.unknown:
            return None
        own = [why for (symbol, _), why in self.unknown.items() if symbol in rule.symbols]
        others = [why for (symbol, _), why in self.unknown.items() if owner_of_symbol(self.rules, symbol) is None]
        shared = others if rule.order_prefixes or rule.named else []
        return next(iter((*own, *shared)), None)


def strategy_part(account: AccountSnapshot, owned: AccountOwnership, strategy: str) -> AccountSnapshot:
    """The account with only the positions, orders and fills of the strategy, and without an equity.

    A part of a net position has the strategy's own contracts, and its P&L by its own entry; a part against the net
    position is on the other side. What belongs to the whole account (equity, margin, flows) is unknown.
    """
    positions = None
    if account.positions is not None and owned.reason_unknown(strategy) is None:
        rows = merged_rows(account.positions)
        held = (each for each in owned.parts.items() if strategy in each[1] and each[0] in rows)
        found = ((rows[key], parts[strategy]) for key, parts in held)
        positions = tuple(part_of_row(row, part) for row, part in found if part.contracts)
    orders = None
    if account.orders is not None and owned.orders is not None:
        orders = tuple(each for each, owner in zip(account.orders, owned.orders, strict=True) if owner == strategy)
    fills = account.fills and tuple(each for each in account.fills if owner_of(owned.rules, each) == strategy)
    return without_equity(account, positions, orders, fills)


def symbol_part(account: AccountSnapshot, symbol: str) -> AccountSnapshot:
    """The account with only the positions, orders and fills of the symbol, and without an equity."""
    return without_equity(
        account,
        account.positions and tuple(each for each in account.positions if each.symbol == symbol),
        account.orders and tuple(each for each in account.orders if each.symbol == symbol),
        account.fills and tuple(each for each in account.fills if each.symbol == symbol),
    )


def without_equity(
    account: AccountSnapshot,
    positions: tuple[Position, ...] | None,
    orders: tuple[Order, ...] | None,
    fills: object,
) -> AccountSnapshot:
    """A part of the account: balances stay as prices of coins, what belongs to the whole account is unknown."""
    return replace(
        account, positions=positions, orders=orders, fills=fills, equity=None, free=None, margin_used=None,
        maintenance_margin=None, unrealized=None, flows=None,
    )  # fmt: skip


def merged_rows(positions: Iterable[Position]) -> dict[BookKey, Position]:
    """(symbol, side) → its open rows as one position."""
    found: dict[BookKey, Position] = {}
    for row in positions:
        if row.contracts:
            found[row.key] = merge_rows(found[row.key], row) if row.key in found else row
    return found


def part_of_row(row: Position, part: OwnPart) -> Position:
    """A part of the venue's row as a position; the row itself if it is all of it."""
    size, sign = abs(part.contracts), 1 if row.side == "long" else -1
    if part.contracts * sign == row.contracts:
        return row if row.entry_price is not None or part.entry is None else replace(row, entry_price=part.entry)
    notional = None if row.notional is None else abs(row.notional) * size / row.contracts
    return replace(
        row, side=part.side, contracts=size, entry_price=part.entry, notional=notional, margin=None,
        unrealized_pnl=None, liquidation_price=row.liquidation_price if part.side == row.side else None,
        strategy=None,
    )  # fmt: skip
