"""Uncloseable positions: closes that ended short of their target, or are blocked for too long (account down, halt)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.unwinding import HedgeRule
from killswitch.model.decision import Decision
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import (
    ENDED_SHORT,
    IN_PROGRESS,
    AccountSnapshot,
    Closing,
    Instrument,
    Position,
    Residual,
    Side,
)
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.rounding import CLOSED_STATES, reduction
from killswitch.planning.spot_routes import base_of
from killswitch.signals.arguments import HedgeLegs
from killswitch.valuation.position_measures import ZERO, merge_rows
from killswitch.valuation.scope_view import Instruments, PnlKey
from killswitch.valuation.trust import reason_untrusted

OUT_OF_BUDGET = "the request budget is spent"
"""Reason of an account that was not polled because the rest of the request budget is reserved for closing."""


class UncloseablePosition(Struct, frozen=True):
    """`contracts` of a position that `decision` could not close, and why. `position` is the last known one.

    `ended`: its close has ended and will not continue.
    """

    decision: Decision
    account: str
    position: Position
    contracts: Decimal
    why: str
    ended: bool

    @property
    def key(self) -> PnlKey:
        return (self.account, self.position.symbol, self.position.side)


class TickAccounts(Struct, frozen=True):
    """Accounts of this tick, their last good snapshots, and the rules of their symbols. `now` in microseconds."""

    now: int
    accounts: Mapping[str, AccountSnapshot]
    last: Mapping[str, AccountSnapshot]
    instruments: Instruments


Watched = tuple[Closing, Decision, HedgeRule]
"""A close, its decision, and its hedge rule."""


_Waiting = tuple[int, Decimal]
"""Start of the obstacle (microseconds), and the contracts left at the last tick."""


class Obstacles:
    """Tracks what blocks closes, and since when."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, PnlKey], _Waiting] = {}

    def uncloseable(self, watched: Iterable[Watched], world: TickAccounts) -> list[UncloseablePosition]:
        """Positions that cannot be closed: of closes that ended short immediately, of others after the rule's time.

        It must be called at every tick: the time starts again for an obstacle that was absent at the last tick, and for
        a close with progress.
        """
        waiting: dict[tuple[str, PnlKey], _Waiting] = {}
        found: list[UncloseablePosition] = []
        for closing, decision, rule in watched:
            ended = closing.status in ENDED_SHORT
            for left in _left_of(closing, decision):
                why = f"its closing ended {closing.status}" if ended else _obstacle(left, world)
                key = (closing.decision, (left.account, left.symbol, left.position_side))
                if why is None or not sane(left.contracts):
                    continue
                since, before = self._waiting.get(key, (world.now, left.contracts))
                waiting[key] = (world.now if left.contracts < before else since, left.contracts)
                if ended or world.now - waiting[key][0] >= rule.after:
                    found += _still_there(decision, left, (why, ended), world)
        self._waiting = waiting
        return found


def naked_legs(decision: Decision, hedges: Iterable[HedgeLegs], world: TickAccounts) -> Iterator[UncloseablePosition]:
    """The last known legs, on accounts that cannot be read, of hedges whose other legs the decision has closed.

    None while a closed leg is still shown, or its account cannot be read either: then the hedge may still be there.
    """
    closed = {(each.account, each.symbol) for each in decision.intents if each.purpose == "reduce" and not each.target}
    decided = {(each.account, each.symbol) for each in decision.intents}
    for hedge in hedges:
        legs = [(leg.account, leg.symbol) for leg in hedge.legs]
        gone = [leg for leg in legs if leg in closed]
        if not gone or not all(_is_flat(leg, world) for leg in gone):
            continue
        for name, symbol in legs:
            account = world.accounts.get(name)
            is_readable = account is not None and reason_untrusted(account, world.now, None) is None
            for side in () if is_readable or (name, symbol) in decided else _SIDES:
                held = held_by(world.last.get(name), (symbol, side))
                if held is not None and held.contracts > ZERO:
                    why = f"{name} cannot be read, and {gone[0][1]}, the other leg of the hedge {hedge.name}, is closed"
                    yield UncloseablePosition(decision, name, held, held.contracts, why, ended=False)


_SIDES: tuple[Side, ...] = ("long", "short")


def _is_flat(leg: tuple[str, str], world: TickAccounts) -> bool:
    """Whether the account is readable and shows no position in the symbol."""
    account = world.accounts.get(leg[0])
    if account is None or reason_untrusted(account, world.now, None) is not None:
        return False
    return all(held_by(account, (leg[1], side)) is None for side in _SIDES)


def busy_accounts(closings: Iterable[Closing], active: Mapping[str, Collection[PnlKey]]) -> frozenset[str]:
    """Accounts on which a close is in progress. `active`: the positions that each decision closes."""
    busy: set[str] = set()
    for closing in closings:
        positions = active.get(closing.decision)
        if closing.status in IN_PROGRESS and positions:
            busy.update([left.account for left in closing.residual] or [key[0] for key in positions])
    return frozenset(busy)


def held_by(account: AccountSnapshot | None, key: tuple[str, Side]) -> Position | None:
    """The position in the snapshot, rows of several strategies combined; None if there is none."""
    found: Position | None = None
    for row in () if account is None else account.positions or ():
        if row.key == key and sane(row.contracts):
            found = row if found is None else merge_rows(found, row)
    return found


def is_dust(contracts: Decimal, position: Position, account: AccountSnapshot, rules: Instrument | None) -> bool:
    """Whether these contracts of the position are below the venue's minimum."""
    reduce_only = account.market in DERIVATIVES
    found = reduction(replace(position, contracts=contracts), ZERO, rules, reduce_only=reduce_only)
    return found.blocked is not None and not found.parts


def _left_of(closing: Closing, decision: Decision) -> Iterable[Residual]:
    """Contracts not yet closed: the residual of a close that has begun, else everything that was decided."""
    if closing.status != "planned" or closing.residual:
        return closing.residual
    decided: dict[tuple[str, str, Side], Decimal] = {}
    for intent in decision.intents:
        if intent.purpose == "reduce":
            key = (intent.account, intent.symbol, intent.position_side)
            decided[key] = decided.get(key, ZERO) + intent.contracts
    return [Residual(*key, contracts) for key, contracts in decided.items()]


def _obstacle(left: Residual, world: TickAccounts) -> str | None:
    """Why an order for the position cannot reach its market now, or None."""
    account = world.accounts.get(left.account)
    if account is not None and account.quality == "down" and account.reason == OUT_OF_BUDGET:
        return None  # the venue was not polled, and closing continues
    if account is None or reason_untrusted(account, world.now, None) is not None:
        return f"{left.account} cannot be read"
    rules = world.instruments.get((left.account, left.symbol))
    if rules is not None and rules.state in CLOSED_STATES:
        return f"{left.symbol} is {rules.state} at the venue"
    return None


def _still_there(
    decision: Decision, left: Residual, why: tuple[str, bool], world: TickAccounts
) -> Iterator[UncloseablePosition]:
    """The part of the residual that the last snapshot still shows; a position that is gone is not uncloseable.

    Nor is an amount below the venue's minimum, which the close itself reports.
    """
    account = world.last.get(left.account)
    held = _position_of(left, account)
    if account is None or held is None:
        return
    contracts = min(left.contracts, held.contracts)
    rules = world.instruments.get((left.account, held.symbol))
    if contracts > ZERO and not is_dust(contracts, held, account, rules):
        yield UncloseablePosition(decision, left.account, held, contracts, *why)


def _position_of(left: Residual, account: AccountSnapshot | None) -> Position | None:
    """The position of a residual. A holding may be sold on another market than the one it is listed on."""
    held = held_by(account, (left.symbol, left.position_side))
    if held is not None or account is None or account.market != "spot":
        return held
    rows = (row for row in account.positions or () if base_of(row.symbol) == base_of(left.symbol))
    return next((held_by(account, row.key) for row in rows if row.side == left.position_side), None)
