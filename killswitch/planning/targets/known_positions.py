"""The last known positions of every account, and those that an answer of the venue leaves out without explanation.

An incomplete answer, or a page of it that is missing, looks like a position that somebody has closed. A close that is
planned on it would leave the position open, and nothing would try again. So the last known row of such a position is
planned for like a shown one, until enough answers agree that it is gone. Nothing is sold blind by that: the executor
sends an order once the venue shows the position, and accepts that it is gone by the same rule as here.

Fills that add up to the position explain that it is gone, and so does a close of ours on it. Only derivatives are
remembered: an order for a holding that has been withdrawn could sell somebody else's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Fill, Position, Side
from killswitch.valuation.position_measures import HOLDINGS, ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts
from killswitch.valuation.trust import reason_positions_unusable

ENOUGH_ANSWERS: Final = 3
"""Number of answers in a row without a position after which it counts as closed."""
LONG_ENOUGH: Final = 5 * SECOND
"""How long these answers must be apart, in microseconds."""
POSITIONS_LAG: Final = 20 * SECOND
"""How long a venue's positions may lag behind a close of ours that has ended."""

_Key = tuple[str, Side]


class _Missing(Struct, frozen=True):
    """The last row of a position that is missing, the number of answers without it, and the time of the first."""

    position: Position
    answers: int
    since: int

    def is_gone(self, now: int) -> bool:
        return self.answers >= ENOUGH_ANSWERS and now - self.since >= LONG_ENOUGH


class KnownPositions:
    """The last answers of the accounts with usable positions, and what the newest of them leave out."""

    def __init__(self) -> None:
        self.last: dict[str, AccountSnapshot] = {}
        """Account → its last answer with usable positions, on which it is closed while it cannot be read."""
        self._missing: dict[str, dict[_Key, _Missing]] = {}
        self._closing: dict[PnlKey, int] = {}
        """Position → when a close of ours was last seen working on it."""

    def observe(self, facts: SnapshotFacts, closing: Collection[PnlKey]) -> None:
        """Compare the answers of a tick with those before. `closing`: the positions that closes of ours close whole."""
        now = facts.as_of
        if self._closing or closing:
            self._closing = {key: at for key, at in self._closing.items() if now - at <= POSITIONS_LAG}
            self._closing |= dict.fromkeys(closing, now)
        for account in facts.accounts:
            before = self.last.get(account.account)
            if account is before or account.positions is None or (not account.positions and account.margin_used):
                continue
            if facts.of(account).positions_unusable is not None:
                continue
            self.last[account.account] = account
            if before is not None and account.market not in HOLDINGS and not _is_repetition(account, before):
                self._compare(before, account, now)

    def _compare(self, before: AccountSnapshot, account: AccountSnapshot, now: int) -> None:
        missing = self._missing.get(account.account, {})
        if not missing and _keys(before) == _keys(account):
            return
        shown = set(_keys(account))
        gone = {key: _Missing(row, 0, now) for key, row in _rows(before).items() if key not in shown} | missing
        counted = {
            key: replace(each, answers=each.answers + 1)
            for key, each in gone.items()
            if key not in shown and not self._is_explained(account, each.position)
        }
        left = {key: each for key, each in counted.items() if not each.is_gone(now)}
        if left:
            self._missing[account.account] = left
        else:
            self._missing.pop(account.account, None)

    def _is_explained(self, account: AccountSnapshot, position: Position) -> bool:
        if (account.account, *position.key) in self._closing:
            return True
        closed = sum((fill.amount for fill in account.fills or () if _reduces(fill, position)), ZERO)
        return closed >= position.contracts

    def last_held(self, account: str) -> AccountSnapshot | None:
        """The account's last answer with usable positions, with what it leaves out; None if there was none."""
        last = self.last.get(account)
        return None if last is None else self.with_missing(last)

    def missing(self, account: AccountSnapshot, symbol: str | None = None) -> tuple[Position, ...]:
        """The last known rows of what the account's answer leaves out; none of an account that cannot be read.

        One impossible row makes the whole answer unusable: whoever completes it would take the rest of it for read.
        """
        found = self._missing.get(account.account)
        if not found or account.positions is None or reason_positions_unusable(account) is not None:
            return ()
        return tuple(each.position for each in found.values() if symbol in (None, each.position.symbol))

    def with_missing(self, account: AccountSnapshot, symbol: str | None = None) -> AccountSnapshot:
        """The account with the last known rows of what its answer leaves out (in `symbol`); itself without any."""
        rows = self.missing(account, symbol)
        return replace(account, positions=(*_rows(account).values(), *rows)) if rows else account

    def completed(self, view: ScopeView) -> tuple[ScopeView, tuple[str, ...]]:
        """The scope with what answers leave out, and a remark for each account; itself if nothing is missing.

        The part of a strategy is left as it is: whose a missing position was is unknown.
        """
        if not self._missing or (view.part is not None and view.part.kind == "strategy"):
            return view, ()
        symbol = None if view.part is None else view.part.name
        accounts, remarks = [], []
        for account in view.accounts:
            rows = self.missing(account, symbol)
            accounts.append(self.with_missing(account, symbol))
            remarks += [left_out_text(account.account, rows)] if rows else []
        return (view.with_accounts(accounts), tuple(remarks)) if remarks else (view, ())


def _is_repetition(account: AccountSnapshot, before: AccountSnapshot) -> bool:
    """Whether a tick between two polls repeats the answer."""
    return account.observed_at is not None and account.observed_at == before.observed_at


def left_out_text(account: str, rows: Iterable[Position]) -> str:
    """Why a decision is about positions that the account's answer does not show."""
    named = ", ".join(f"{row.side} {row.symbol}" for row in rows)
    return f"{account} leaves out {named} without a fill: closed once it is shown again, unless it stays away"


def _reduces(fill: Fill, position: Position) -> bool:
    is_closing = fill.side == ("sell" if position.side == "long" else "buy")
    return fill.symbol == position.symbol and is_closing and fill.position_side in (None, position.side)


def _keys(account: AccountSnapshot) -> list[_Key]:
    return [row.key for row in account.positions or () if row.contracts > ZERO]


def _rows(account: AccountSnapshot) -> Mapping[_Key, Position]:
    return {row.key: row for row in account.positions or () if row.contracts > ZERO}
