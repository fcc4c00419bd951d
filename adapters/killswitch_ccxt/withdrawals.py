"""Which assets cannot be withdrawn, by a venue's list of its coins. It is long, and is read rarely."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, rows_at, value_at
from killswitch.model.snapshot import Withdrawals

INTERVAL = 600.0
"""Seconds between two fetches."""
FIRST_AFTER = 60.0
"""Seconds after the start at which they are fetched first: a start has more urgent requests."""


class CoinList(Struct, frozen=True):
    """A venue's request for its coins, and where the answer states whether each chain lets them out.

    `method`: ccxt's method. `path`: where the rows are. `asset`: the field of the coin's name; None where the rows are
    an object of names. `chains`: the field of the coin's chains; None where each row is a chain.
    `open`, `shut`: the texts of the field `flag`, in lower case, for a chain that does, and that does not.
    """

    method: str
    path: tuple[str, ...]
    asset: str | None
    chains: str | None
    flag: str
    open: Collection[str]
    shut: Collection[str]

    def read(self, answer: Any, code_of: Callable[[str], str], assets: Collection[str]) -> tuple[Withdrawals, ...]:
        """Each of `assets` that the answer states, by name. An asset is suspended if all of its chains are; without one
        whose state is known it is not stated. UnreadableError without rows."""
        found: dict[str, list[bool | None]] = {}
        for name, row in self._rows(answer):
            asset = code_of(name)
            if asset in assets:
                chains = [row] if self.chains is None else rows_at(row, self.chains, what="a coin")
                found.setdefault(asset, []).extend(self._is_open(it) for it in chains)
        stated = ((asset, _is_suspended(flags)) for asset, flags in sorted(found.items()))
        return tuple(Withdrawals(asset, suspended) for asset, suspended in stated if suspended is not None)

    def _rows(self, answer: Any) -> Iterator[tuple[str, Row]]:
        """The rows with the venue's names of the coins."""
        if self.asset is None:
            named = value_at(answer, *self.path)
            if not isinstance(named, Mapping):
                raise UnreadableError("the answer has no coins")
            yield from ((str(name), row) for name, row in named.items() if isinstance(row, Mapping))
        else:
            rows = rows_at(answer, *self.path, what="the answer about coins")
            yield from ((str(row.get(self.asset)), row) for row in rows)

    def _is_open(self, row: Row) -> bool | None:
        text = str(row.get(self.flag)).strip().lower()
        return True if text in self.open else False if text in self.shut else None


def _is_suspended(flags: Collection[bool | None]) -> bool | None:
    """False if one chain is open; True if all are shut; None without any, and if one of them may be open."""
    if any(flags):
        return False
    return None if not flags or None in flags else True
