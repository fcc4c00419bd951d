"""From a decision to the work of one account: what is journaled with it, and what each order will be called."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from hashlib import blake2b

from killswitch.closing.life import Line, PositionKey
from killswitch.closing.reports import finite
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.store import JournalEntry

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLAIN_ID = re.compile(r"[0-9a-z]{20}")


def client_order_id(decision_id: str, intent_index: int, attempt: int) -> str:
    """The name of an order before it is sent: 31 characters of [a-z0-9], the same after every restart.

    `intent_index` and `attempt` count up to 36⁴ and 36⁵. ValueError beyond.
    """
    digest = decision_id
    if not _PLAIN_ID.fullmatch(decision_id):
        digest = blake2b(decision_id.encode(), digest_size=10).hexdigest()
    return f"ks{digest}{_base36(intent_index, 4)}{_base36(attempt, 5)}"


def _base36(number: int, width: int) -> str:
    if not 0 <= number < 36**width:
        raise ValueError(f"{number} does not fit into {width} digits")
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def planned_entries(
    decision: Decision, *, snapshot: Snapshot | None = None, accounts: Collection[str] | None = None
) -> tuple[JournalEntry, ...]:
    """The `planned` entries that are committed with `decision`: one for each position, one for an account's cancels.

    None for a decision that only observes, and none for accounts outside `accounts` (those armed; None is all).
    `snapshot`, the one that was decided on, gives the marks against which slippage is counted later.
    """
    if decision.mode == "observe" or decision.kind == "reset":
        return ()
    entries = [
        _planned(decision, line, None if snapshot is None else _position(snapshot, line))
        for account in _accounts(decision)
        for line in lines_of(decision, account)
    ]
    with_lines = {entry.account for entry in entries}
    entries += [
        JournalEntry(decision=decision.id, kind="planned", at=decision.as_of, account=account)
        for account in dict.fromkeys(cancel.account for cancel in decision.cancels)
        if account not in with_lines
    ]
    return tuple(entry for entry in entries if accounts is None or entry.account in accounts)


def lines_of(decision: Decision, account: str) -> list[Line]:
    """One line for each position of `account` that the decision reduces, in order of rank.

    Several intents on one position are one order that was split at the venue's maximum.
    """
    lines: dict[PositionKey, Line] = {}
    for index, intent in enumerate(decision.intents):
        if intent.account != account:
            continue
        line = lines.get((intent.symbol, intent.position_side))
        if line is None:
            lines[intent.symbol, intent.position_side] = Line(
                decision=decision.id,
                account=account,
                symbol=intent.symbol,
                position_side=intent.position_side,
                side=intent.side,
                target=intent.target,
                decided=intent.contracts,
                largest=intent.contracts,
                reduce_only=intent.reduce_only,
                rank=intent.rank,
                index=index,
            )
        else:
            line.decided += intent.contracts
            line.largest = max(line.largest, intent.contracts)
            line.target = min(line.target, intent.target)
    return sorted(lines.values(), key=lambda line: (line.rank, line.index))


def _accounts(decision: Decision) -> Sequence[str]:
    return list(dict.fromkeys(intent.account for intent in decision.intents))


def _planned(decision: Decision, line: Line, position: Position | None) -> JournalEntry:
    data: dict[str, str | None] = {"contracts": str(line.decided), "target": str(line.target)}
    if position is not None:
        data |= marked(position)
    return JournalEntry(
        decision=decision.id,
        kind="planned",
        at=decision.as_of,
        account=line.account,
        symbol=line.symbol,
        position_side=line.position_side,
        data=data,
    )


def _position(snapshot: Snapshot, line: Line) -> Position | None:
    for account in snapshot.accounts:
        if account.account == line.account:
            for position in account.positions or ():
                if position.key == line.key:
                    return position
    return None


def marked(position: Position) -> dict[str, str | None]:
    """The mark, and the account currency that one contract moves when the mark doubles; absent where unknown."""
    mark, notional, contracts = finite(position.mark_price), finite(position.notional), finite(position.contracts)
    if mark is None or notional is None or contracts is None or contracts <= Decimal(0):
        return {}
    return {"mark": str(mark), "value": str(notional / contracts)}
