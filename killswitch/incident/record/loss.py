"""How much a scope had lost when a decision was made, against its peak, and which side has lost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.incident.record.source_places import TriggerText
from killswitch.model.decision import Attribution, Decision
from killswitch.model.snapshot import AccountSnapshot
from killswitch.render.formats import listed, money
from killswitch.signals.catalogue import BY_NAME

_PLACES = Decimal("1e-8")


class Loss(Struct, frozen=True):
    """The fall of equity from its peak by the triggers of a decision: the largest of them.

    `share` is the least fraction of the peak, and exact unless `is_least`. `over` is the window that contains the peak.
    `before` is the equity at the peak, in units of the decision: deposits and withdrawals since then count in both.
    """

    share: Decimal | None = None
    is_least: bool = False
    over: str | None = None
    before: Decimal | None = None
    amount: Decimal | None = None
    unknown: str | None = None
    """Why the share, or else the amount, is unknown."""


def loss_of(
    decision: Decision, texts: Mapping[str, TriggerText], equity: Decimal | None, unknown: str | None = None
) -> Loss:
    """Return the loss by the triggers of the decision; `texts` by their names.

    `equity` is that of the scope at the decision; `unknown` is why there is none.
    """
    found = [
        (Decimal(each.value[0]), each, text)
        for each in decision.triggers
        if (text := texts.get(each.name)) is not None
        and _is_fall(text)
        and each.value is not None
        and each.value[0] is not None
    ]
    if not found:
        return Loss(unknown=_why_unmeasured(decision))
    share, trigger, text = max(found, key=lambda each: each[0])
    is_least = trigger.value is not None and trigger.value[0] != trigger.value[1]
    if equity is None:
        return Loss(share, is_least, text.window, unknown=unknown or "equity was not known")
    if share >= 1:
        return Loss(share, is_least, text.window, unknown="equity is at or below zero")
    before = (equity / (1 - share)).quantize(_PLACES)
    return Loss(share, is_least, text.window, before, before - equity)


def _is_fall(text: TriggerText) -> bool:
    """Whether the trigger compares the fall of equity as a fraction of an earlier value."""
    signal = None if text.signal is None else BY_NAME.get(text.signal)
    return signal is not None and signal.is_loss_size and signal.unit == "fraction"


_UNMEASURED = {
    "manual": "a close by hand measures no fall from a peak",
    "dead-man": "a close by a dead-man's switch measures no fall from a peak",
    "hedge": "a temporary hedge measures no fall from a peak",
    "breach": "an answer to a lock breach measures no fall from a peak",
}


def _why_unmeasured(decision: Decision) -> str:
    for what in (decision.cause, decision.kind):
        if what in _UNMEASURED:
            return _UNMEASURED[what]
    return "no trigger that fired measures a fall from a peak"


def loss_text(loss: Loss, equity: Decimal | None, currency: str | None, no_equity: str) -> str:
    """Return the loss in per cent and money, with the equity before and now: each unknown one with its reason.

    `no_equity` is why the equity is unknown, if it is.
    """
    now = f"equity {money(equity, currency)} now" if equity is not None else f"equity unknown: {no_equity}"
    if loss.share is None:
        measured = "unknown" if loss.unknown not in _UNMEASURED.values() else "not measured"
        return f"{measured}: {loss.unknown}; {now}"
    over = f" in {loss.over}" if loss.over else " from its peak"
    share = f"{'at least ' if loss.is_least else ''}{loss.share:.2%}{over}"
    if loss.amount is None or loss.before is None:
        return f"{share}, in money unknown; {now}"
    amount = f"{money(loss.amount, currency)}{' or more' if loss.is_least else ''}"
    return f"{share}, {amount}: equity {money(loss.before)} before, {money(equity, currency)} now"


def why_equity_is_unknown(accounts: Sequence[AccountSnapshot]) -> str:
    """Return why the accounts of a scope have no known equity in one currency."""
    missing = [each for each in accounts if each.equity is None]
    if missing:
        return "; ".join(
            f"{each.account} is {each.quality}" + (f": {each.reason}" if each.reason else "") for each in missing
        )
    currencies = sorted({each.currency for each in accounts})
    if currencies[1:]:
        return f"the accounts are in {listed(currencies)}"
    return "no account of the scope is in the snapshot"


def attribution_text(found: Attribution) -> str:
    """Return which side lost, in a sentence without its end: an unknown one with its reason and what follows."""
    if found.source == "UNKNOWN":
        return f"which side lost is UNKNOWN over {found.window}: {found.reason or 'no reason is recorded'}"
    shares = f"long {_percent(found.long_share)}, short {_percent(found.short_share)}"
    why = f"; {found.reason}" if found.reason else ""
    return f"the loss is {found.source}: {shares}, over {found.window}{why}"


def _percent(share: str | None) -> str:
    return "unknown" if share is None else f"{float(share):.1%}"
