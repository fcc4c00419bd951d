"""What cannot be closed: ended short of its target, or on an account that nobody can read for too long."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.unwinding import HedgeRule
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Closing, Position, Residual, Side, Snapshot
from killswitch.signals.position import ZERO
from killswitch.signals.soundness import sane
from killswitch.signals.view import PnlKey, distrust

ENDED_SHORT = ("residual", "blocked", "abandoned")
WORKING = ("planned", "closing")


@dataclass(frozen=True, slots=True)
class Stuck:
    """`contracts` of a position that `decision` could not close, and why. `position` is as it was read last."""

    decision: Decision
    account: str
    position: Position
    contracts: Decimal
    why: str

    @property
    def key(self) -> PnlKey:
        return (self.account, self.position.symbol, self.position.side)


class Unreadable:
    """Since when each account has not been readable (microseconds)."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}

    def observe(self, snapshot: Snapshot, now: int) -> None:
        """Take what the snapshot says of every account; one that it does not hold any more is forgotten."""
        doubted = {each.account for each in snapshot.accounts if distrust(each, now, None) is not None}
        self._since = {name: self._since.get(name, now) for name in doubted}

    def for_at_least(self, account: str, now: int, after: int) -> bool:
        """Whether the account has been unreadable for `after` microseconds."""
        return account in self._since and now - self._since[account] >= after

    def __contains__(self, account: str) -> bool:
        return account in self._since


def busy_accounts(closings: Iterable[Closing], active: Mapping[str, Collection[PnlKey]]) -> frozenset[str]:
    """Accounts on which a position is still to be closed. `active`: the positions that each decision is to close."""
    busy: set[str] = set()
    for closing in closings:
        positions = active.get(closing.decision)
        if closing.status in WORKING and positions:
            busy.update([left.account for left in closing.residual] or [key[0] for key in positions])
    return frozenset(busy)


def stuck_in(
    closing: Closing,
    decision: Decision,
    rule: HedgeRule,
    last: Mapping[str, AccountSnapshot],
    unreadable: Unreadable,
    now: int,
) -> Iterator[Stuck]:
    """The positions of one closing that cannot be closed now, as far as they are still there.

    `last` is each account as it was read last. What an account that can be read does not hold any more is not stuck.
    """
    ended = closing.status in ENDED_SHORT
    for left in closing.residual or (_planned(decision) if closing.status in WORKING else ()):
        blind = unreadable.for_at_least(left.account, now, rule.after)
        if not (blind or ended) or not sane(left.contracts):
            continue
        held = _held(left, last)
        contracts = left.contracts if held is None else min(left.contracts, held.contracts)
        if held is not None and contracts > ZERO:
            why = f"{left.account} cannot be read" if blind else f"its closing ended {closing.status}"
            yield Stuck(decision, left.account, held, contracts, why)


def _planned(decision: Decision) -> Iterable[Residual]:
    """What a closing was to close that has not begun: everything that was decided."""
    decided: dict[tuple[str, str, Side], Decimal] = {}
    for intent in decision.intents:
        if intent.purpose == "reduce":
            key = (intent.account, intent.symbol, intent.position_side)
            decided[key] = decided.get(key, ZERO) + intent.contracts
    return [Residual(*key, contracts) for key, contracts in decided.items()]


def _held(left: Residual, last: Mapping[str, AccountSnapshot]) -> Position | None:
    """The position as its account showed it last; None where it showed none."""
    account = last.get(left.account)
    rows = () if account is None else account.positions or ()
    return next((p for p in rows if p.key == (left.symbol, left.position_side) and sane(p.contracts)), None)
