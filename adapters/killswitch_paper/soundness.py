"""What an answer of the paper server says that cannot be: it fits the format, and is wrong all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

from msgspec import Struct, structs

from killswitch.model.magnitude import LONGEST, readable
from killswitch.model.snapshot import AccountSnapshot, Balance, Flow

_SIGNED: Final = frozenset({"equity", "free", "unrealized", "unrealized_pnl", "realized_pnl", "fee", "wallet", "cost"})
_MODES: Final = frozenset({"one_way", "hedge", None})


def fault_of(answer: object) -> str | None:
    """The first thing that cannot be; None where there is none."""
    return next(_faults(answer), None)


def _faults(answer: object) -> Iterator[str]:
    if isinstance(answer, AccountSnapshot) and answer.quality == "ok":
        yield from _of_account(answer)
    if isinstance(answer, Struct):
        may_owe = isinstance(answer, Balance | Flow)
        for name, value in structs.asdict(answer).items():
            if isinstance(value, Decimal):
                if not readable(value) or (value < 0 and name not in _SIGNED and not (may_owe and name == "amount")):
                    yield f"{name} is {str(value)[:LONGEST]}"
            elif isinstance(value, Struct | tuple | dict):
                yield from _faults(value)
    elif isinstance(answer, dict):
        yield from _each(answer.values())
    elif isinstance(answer, tuple):
        yield from _each(answer)


def _each(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from _faults(value)


def _of_account(account: AccountSnapshot) -> Iterator[str]:
    if account.equity is None or account.positions is None:
        yield "it gives no equity or no positions"
    if account.position_mode not in _MODES:
        yield f"{account.position_mode!r} is no position mode"
    if account.positions == () and account.margin_used:
        yield f"margin of {account.margin_used} is in use, and there are no positions"
