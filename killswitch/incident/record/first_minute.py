"""What a person needs in the first minute: the worst position, resting orders, the next stage, whom to call.

Everything is a text, because a message, a runbook and a report show the same. What is unknown is named with its
reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from killswitch.incident.record.document import REFERENCED, Person
from killswitch.incident.record.source_places import LadderStage, TriggerText
from killswitch.model.decision import Decision
from killswitch.model.effects import Cancels, sizes_of, tag_of
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.scopes.trigger_status import TriggerStatus
from killswitch.render.formats import count_of, listed, money, number
from killswitch.signals.catalogue import BY_NAME

MOST_CURRENCIES = 3
"""The most currencies of which the worst position is named."""
MOST_CONTACTS = 2
"""The most contacts in the first lines of a message; the runbook lists all of them."""
NOBODY = "nobody: the policy set names no contact"


def worst_text(scope: str, accounts: Sequence[AccountSnapshot] | None) -> str:
    """Return the position of the scope with the largest unrealised loss, in each currency.

    `accounts`: those of the scope; None where no snapshot was read. A strategy owns a part of positions, so the worst
    one of its accounts is not known to be its own.
    """
    if accounts is None:
        return "unknown: no snapshot was read"
    kind, _, name = scope.partition("/")
    if kind == "strategy":
        return f"unknown: {scope} owns a part of its accounts' positions"
    unread = [each.account for each in accounts if each.positions is None]
    found: dict[str, list[tuple[Decimal, AccountSnapshot, Position]]] = {}
    unpriced = 0
    for account in accounts:
        for row in account.positions or ():
            if not row.contracts or (kind == "symbol" and row.symbol != name):
                continue
            if row.unrealized_pnl is None:
                unpriced += 1
            else:
                found.setdefault(account.currency, []).append((row.unrealized_pnl, account, row))
    worst = [min(each, key=lambda one: one[0]) for _, each in sorted(found.items())[:MOST_CURRENCIES]]
    parts = [_position_text(*each) for each in worst if each[0] < 0]
    if found and not parts:
        parts = ["no position is at a loss"]
    doubts = [f"positions of {listed(unread)} unknown"] if unread else []
    doubts += [f"{count_of(unpriced, 'position')} without a known P&L"] if unpriced else []
    if not parts:
        return f"unknown: {'; '.join(doubts)}" if doubts else "no position is open"
    return "; ".join((*parts, *(f"not counted: {each}" for each in doubts)))


def net_text(net: Decimal | None, currency: str | None = None) -> str:
    """Return a net exposure with its side in words: `long 25,830.83`; `unknown` for None."""
    side = "" if not net else "long " if net > 0 else "short "
    return f"{side}{money(None if net is None else abs(net), currency)}"


def _position_text(pnl: Decimal, account: AccountSnapshot, row: Position) -> str:
    size = f"{row.contracts.normalize():f} {row.symbol} {row.side} on {account.account}"
    notional = "" if row.notional is None else f" of {money(abs(row.notional))} notional"
    return f"{size}, {money(pnl, account.currency)} unrealised{notional}"


def resting_text(decision: Decision, accounts: Sequence[AccountSnapshot] | None) -> str:
    """Return how many orders rest on the accounts of the scope, and how many of them the decision cancels."""
    if accounts is None:
        return "unknown: no snapshot was read"
    unread = [each.account for each in accounts if each.orders is None]
    orders = [order for each in accounts for order in each.orders or ()]
    doubts = f"orders of {listed(unread)} unknown" if unread else ""
    if not orders:
        return f"unknown: {doubts}" if unread else "no order rests"
    conditional = sum(each.trigger_price is not None for each in orders)
    count = sizes_of(decision.effects)[tag_of(Cancels)]
    parts = [
        f"{count_of(len(orders), 'order')} on {listed(sorted({each.account for each in accounts if each.orders}))}",
        f"{conditional} of them stops or other conditional ones" if conditional else "none of them conditional",
        f"{count} to be cancelled now" if count else "none cancelled by this decision",
        *((doubts,) if doubts else ()),
    ]
    return ", ".join(parts)


def contacts_text(contacts: Sequence[Person]) -> str:
    """Return the first contacts with their roles and how they are reached, the readable ones first."""
    if not contacts:
        return NOBODY
    readable = sorted(contacts, key=lambda each: each.reach.startswith(REFERENCED))
    shown = [f"{each.name} ({each.role}): {each.reach}" for each in readable[:MOST_CONTACTS]]
    more = len(contacts) - len(shown)
    return "; ".join(shown) + (f"; {more} more in the runbook" if more else "")


def next_stage_text(
    level: int,
    ladder: Sequence[LadderStage],
    texts: Mapping[str, TriggerText],
    statuses: Iterable[TriggerStatus] = (),
    equity: Decimal | None = None,
    currency: str | None = None,
) -> str:
    """Return the stage above `level` with its thresholds, and how far each of them is.

    `statuses`: the triggers after the newest tick; without them no distance is known. `equity` turns the distance of a
    fall into money: with a fall f from the peak P, equity = P(1 − f), so d more of the fall cost d × equity ÷ (1 − f).
    """
    above = next((each for each in ladder if each.level > level), None)
    if above is None:
        return "no stage is above this one"
    known = {each.name: each for each in statuses}

    def shown(name: str) -> str:
        text = texts.get(name)
        what = name if text is None or not text.threshold else f"{name} {text.threshold}"
        far = _distance(known.get(name), text, equity, currency)
        return f"{what} ({far})"

    parts = [" or ".join(map(shown, above.any_of)), " and ".join(map(shown, above.all_of))]
    return f"level {above.level} {above.stage} follows at {', and '.join(part for part in parts if part)}"


def _distance(
    observed: TriggerStatus | None, text: TriggerText | None, equity: Decimal | None, currency: str | None
) -> str:
    """Return how far a trigger is from true: `2.10% away, 2,150.00 USDT`."""
    if observed is None:
        return "how far is unknown"
    if observed.held:
        return "true now" if observed.confirmed else "true now, not confirmed yet"
    if observed.headroom is None or observed.headroom[0] is None or observed.value is None:
        return f"how far is unknown: {observed.unknown_because or 'it is an expression'}"
    nearest = observed.headroom[0]
    least = "" if observed.headroom[0] == observed.headroom[1] else "at least "
    if nearest <= 0:
        return f"may be reached already: {observed.unknown_because or 'its value is partly known'}"
    away = f"{least}{number(nearest, observed.unit)} away"
    amount = _in_money(observed, text, equity)
    return away if amount is None or least else f"{away}, {money(amount, currency)}"


def _in_money(observed: TriggerStatus, text: TriggerText | None, equity: Decimal | None) -> Decimal | None:
    """Return the distance of a fall in money; None where the trigger measures none, or a part is unknown."""
    signal = None if text is None or text.signal is None else BY_NAME.get(text.signal)
    if signal is None or not (signal.is_loss_size and signal.unit == "fraction") or equity is None:
        return None
    if observed.value is None or observed.headroom is None or observed.value[0] != observed.value[1]:
        return None
    fall, left = observed.value[0], observed.headroom[0]
    if fall is None or left is None or fall >= 1:
        return None
    return Decimal(str(left)) * equity / (1 - Decimal(str(fall)))
