"""Drills of a set, and of a live one: what it may open, and which approvals let it, decided from what was read.

A live drill opens the smallest order that the venue accepts, in a symbol in which the account holds nothing, and only
while nothing else goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, Decimal
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.model.snapshot import AccountSnapshot, Instrument
from killswitch.operations.status import StoreStatus
from killswitch.planning.rounding import NOT_OPENING
from killswitch.policy.loader import load
from killswitch.policy.schema.drill import DrillDocument, LivePosition
from killswitch.source.approval_rules import ApprovedChange, CountedApprovals, Given, count_drill_approvals

MARKETS: Final = ("swap", "future")
"""The markets of live drills: where the venue itself keeps a closing order from opening the other side."""
ABOVE_MINIMUM: Final = Decimal("1.02")
"""The smallest notional is exceeded by this factor, because the price moves between the check and the order."""


class RefusedDrillError(Exception):
    """A live drill may not begin; `reasons` has every cause, and nothing was sent."""

    def __init__(self, drill: str, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"the live drill {drill} was not begun, and nothing was sent: {'; '.join(self.reasons)}")


class LiveOrder(Struct, frozen=True):
    """The order that a live drill opens its position with: always a purchase, in contracts."""

    account: str
    symbol: str
    amount: Decimal


def find_drill(documents: Sequence[Path], name: str) -> DrillDocument:
    """Return the drill of this name in the documents at or below the paths. ValueError if there is none."""
    found = {each.metadata.name: each for each in drills_at(documents)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none; add a document of kind Drill"
        raise ValueError(f"the set has no Drill named {name}; it has {known}")
    return found[name]


def drills_at(documents: Sequence[Path]) -> list[DrillDocument]:
    """Return every drill in the documents at or below the paths."""
    models = (each.model for each in load(list(documents)).documents)
    return [each for each in models if isinstance(each, DrillDocument)]


def drill_digest(document: DrillDocument) -> str:
    """The digest of a drill as it is declared: an approval is void once anything in it is edited."""
    return f"sha256:{sha256(document.model_dump_json().encode()).hexdigest()}"


def drill_subject(document: DrillDocument) -> str:
    """What an approval of a live drill names. ValueError for a drill that is not live."""
    live = document.spec.live
    if live is None:
        raise ValueError(f"{document.metadata.name} is no live drill: it needs no approval")
    return f"{document.metadata.name}: at most {live.most.normalize():f} {live.symbol} on {live.account}"


def drill_approvals(
    document: DrillDocument, place: tuple[str, str | None, str | None], given: Given, author: str
) -> CountedApprovals:
    """Count the approvals of a live drill: as many different people as a loosening needs, none of whom runs it.

    `place`: the name of the source, its ref and its path, as statements have them.
    """
    source, ref, path = place
    change = ApprovedChange(
        source=source, ref=ref, path=path, base=None, result=drill_digest(document), verdict="NEITHER"
    )
    return count_drill_approvals(drill_subject(document), change, given, author)


def why_not_now(
    status: StoreStatus, live: LivePosition, policy_set: str, *, is_continued: bool = False
) -> Iterator[str]:
    """Yield why a live drill may not begin with a runner in this state; nothing where it may.

    `policy_set`: the digest of the documents of the drill. In others the account may be one that the runner does not
    watch, on which nobody would close the position. `is_continued`: it only ends what an earlier run left, which a lock
    or a stage does not forbid.
    """
    view = status.view
    if status.runner.liveness != "alive" or view is None:
        yield f"no runner is alive on the store that would close the position ({status.runner.why})"
        return
    if policy_set != view.policy_set:
        yield "the documents at --policies are not those that the runner has in force: give the folder that it runs"
    account = next((each for each in view.accounts if each.account == live.account), None)
    if account is None:
        yield f"the runner watches no account {live.account}"
    elif not account.armed:
        yield f"the runner is not armed for {live.account}: run it with --live, and write `execution: live`"
    if account is not None and account.market not in MARKETS:
        yield f"{live.account} is a {account.market} account: reduce-only orders are of {' and '.join(MARKETS)} alone"
    if is_continued:
        return
    for lock in status.locks:
        if lock.locked and (lock.ordered or lock.stale):
            yield f"{lock.scope or lock.file} is locked: {lock.reason}"
    for machine in view.machines:
        if machine.level and machine.mode == "enforce":
            yield f"{machine.stage} of {machine.policy} is in force on {machine.scope}: reset it first"
    for closing in status.closings:
        yield f"the close {closing.decision} is in progress on {closing.account}"


def opening_order(account: AccountSnapshot, live: LivePosition) -> LiveOrder | tuple[str, ...]:
    """Return the smallest order that opens the drill's position, or why there is none.

    A held position of the symbol, or a resting order in it, is refused: the drill would hedge or enlarge it.
    """
    reasons = tuple(_not_opened(account, live))
    if reasons:
        return reasons
    rules = next((each for each in account.instruments or () if each.symbol == live.symbol), None)
    price = next((each for each in account.watched or () if each.symbol == live.symbol), None)
    amount = _smallest(live, rules, None if price is None else price.mark_price or price.last_price)
    return amount if isinstance(amount, tuple) else LiveOrder(live.account, live.symbol, amount)


def _not_opened(account: AccountSnapshot, live: LivePosition) -> Iterator[str]:
    if account.quality != "ok":
        yield f"{live.account} cannot be read: {account.reason or account.quality}"
        return
    if account.positions is None:
        yield f"the positions of {live.account} are unknown"
    for held in account.positions or ():
        if held.symbol == live.symbol and held.contracts:
            yield (
                f"{live.account} holds {held.contracts.normalize():f} contracts {held.side} of {live.symbol}: a live "
                "drill touches no position that is not its own; name a symbol that is not traded"
            )
    if account.orders is None:
        yield f"the resting orders of {live.account} are unknown"
    for order in account.orders or ():
        if order.symbol == live.symbol:
            yield f"order {order.id} rests in {live.symbol} on {live.account}: name a symbol that is not traded"


def _smallest(live: LivePosition, rules: Instrument | None, mark: Decimal | None) -> Decimal | tuple[str, ...]:
    """The smallest amount of a purchase in contracts, in whole steps, at most the declared `most`."""
    if rules is None or rules.amount_step is None or rules.amount_step <= 0:
        return (f"the venue's rules of {live.symbol} are unknown, so that the smallest order is",)
    if rules.state in NOT_OPENING:
        return (f"{live.symbol} is {rules.state} at the venue",)
    least = max(rules.min_amount or Decimal(0), rules.amount_step)
    if rules.min_notional:
        unit = rules.contract_size if rules.inverse or mark is None else (rules.contract_size or Decimal(1)) * mark
        if unit is None or (mark is None and not rules.inverse):
            return (f"the price of {live.symbol} is unknown, and the venue has a smallest notional",)
        least = max(least, rules.min_notional * ABOVE_MINIMUM / unit)
    amount = (least / rules.amount_step).to_integral_value(rounding=ROUND_CEILING) * rules.amount_step
    if amount > live.most:
        most = f"{Decimal(live.most).normalize():f}"
        return (f"the smallest order in {live.symbol} is {amount.normalize():f} contracts, above `most: {most}`",)
    return amount
