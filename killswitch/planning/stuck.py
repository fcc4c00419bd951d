"""What cannot be closed: ended short of its target, or out of reach for too long (account down, market halted)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from killswitch.graph.unwinding import HedgeRule
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Closing, Position, Residual, Side
from killswitch.planning.rounding import SHUT
from killswitch.signals.position import ZERO
from killswitch.signals.soundness import sane
from killswitch.signals.view import Instruments, PnlKey, distrust

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


@dataclass(frozen=True, slots=True)
class Seen:
    """This tick's accounts, each as it was read last, and the rules of their symbols. `now` in microseconds."""

    now: int
    accounts: Mapping[str, AccountSnapshot]
    last: Mapping[str, AccountSnapshot]
    instruments: Instruments


Watched = tuple[Closing, Decision, HedgeRule]
"""A closing, the decision that it carries out, and what is to be done about what it cannot close."""


class Obstacles:
    """What stands in the way of closings, and since when."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, PnlKey], int] = {}

    def stuck(self, watched: Iterable[Watched], world: Seen) -> list[Stuck]:
        """The positions that cannot be closed: of closings that ended short at once, of others after a while.

        To be asked at every tick: what was not in the way at the last one begins anew.
        """
        since: dict[tuple[str, PnlKey], int] = {}
        found: list[Stuck] = []
        for closing, decision, rule in watched:
            ended = closing.status in ENDED_SHORT
            for left in closing.residual or (_planned(decision) if closing.status in WORKING else ()):
                why = f"its closing ended {closing.status}" if ended else _obstacle(left, world)
                key = (closing.decision, (left.account, left.symbol, left.position_side))
                if why is not None:
                    since[key] = self._since.get(key, world.now)
                    if ended or world.now - since[key] >= rule.after:
                        found += _still_there(decision, left, why, world.last)
        self._since = since
        return found


def busy_accounts(closings: Iterable[Closing], active: Mapping[str, Collection[PnlKey]]) -> frozenset[str]:
    """Accounts on which a position is still to be closed. `active`: the positions that each decision is to close."""
    busy: set[str] = set()
    for closing in closings:
        positions = active.get(closing.decision)
        if closing.status in WORKING and positions:
            busy.update([left.account for left in closing.residual] or [key[0] for key in positions])
    return frozenset(busy)


def _obstacle(left: Residual, world: Seen) -> str | None:
    """Why an order for the position would not reach its market now, or None."""
    account = world.accounts.get(left.account)
    if account is None or distrust(account, world.now, None) is not None:
        return f"{left.account} cannot be read"
    rules = world.instruments.get((left.account, left.symbol))
    if rules is not None and rules.state in SHUT:
        return f"{left.symbol} is {rules.state} at the venue"
    return None


def _still_there(decision: Decision, left: Residual, why: str, last: Mapping[str, AccountSnapshot]) -> Iterator[Stuck]:
    """What is left of the position by its last reading too; what an account does not hold any more is not stuck."""
    held = _held(left, last)
    if held is None or not sane(left.contracts):
        return
    contracts = min(left.contracts, held.contracts)
    if contracts > ZERO:
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
