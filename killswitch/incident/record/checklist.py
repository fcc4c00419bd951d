"""What is left to a person: the checklist of a report, and the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msgspec import Struct

from killswitch.incident.record.close_causes import text_of
from killswitch.incident.record.document import Command, Ended, Firing, Item, Money, OrderOutcome, PositionLeft, Reason
from killswitch.model.words import Cause
from killswitch.render.formats import instant, money, numbered


def checklist(
    firings: Sequence[Firing],
    orders: Sequence[OrderOutcome],
    endings: Sequence[Ended],
    left: Sequence[PositionLeft],
    settled: Sequence[PositionLeft],
    totals: Money,
    told: Item,
    doubts: Sequence[str],
    reason: Reason | None = None,
) -> tuple[Item, ...]:
    """Eight items, and those that the declared `reason` of a close by hand adds; `told` is the one of notifications."""
    return (
        _closed(firings, orders, endings, left, settled),
        _reconciled(firings, orders, left, settled, swept=any(each.swept for each in totals.missing)),
        _counted(orders, totals),
        told,
        _audited(firings, endings, doubts),
        *_by_reason(reason),
        Item("cause", "Root cause found", "open", "a person's finding: write it below"),
        Item("recovery", "Recovery plan agreed", "open", "before the reset: what may be opened again, by whom, when"),
        Item("debrief", "Debrief held", "open", "what to change in the policy, the book or the way of working"),
    )


def _by_reason(reason: Reason | None) -> tuple[Item, ...]:
    """What no record proves: a person does it, and ticks it."""
    said = None if reason is None else text_of(reason.cause)
    return () if said is None else tuple(Item(key, title, "open", what) for key, title, what in said.todo)


def _closed(
    firings: Sequence[Firing],
    orders: Sequence[OrderOutcome],
    endings: Sequence[Ended],
    left: Sequence[PositionLeft],
    settled: Sequence[PositionLeft],
) -> Item:
    key, title = "closed", "Positions confirmed closed"
    doubt = _why_not_closed(firings, orders, endings, left, settled)
    if doubt is not None:
        return Item(key, title, "open", doubt)
    newest = max(each.verified_at for each in settled if each.verified_at is not None)
    proof = f"the venue itself shows {_count(len(settled), 'position')} at target, last at {instant(newest)}"
    return Item(key, title, "proved", proof)


def _why_not_closed(
    firings: Sequence[Firing],
    orders: Sequence[OrderOutcome],
    endings: Sequence[Ended],
    left: Sequence[PositionLeft],
    settled: Sequence[PositionLeft],
) -> str | None:
    """What is not known of the positions, or not done; None if the venue showed every one at its target."""
    going = [each for each in endings if each.status == "closing"]
    unclear = [order for order in orders if not order.final]
    unsent = [firing.stage for firing in firings if firing.unsent]
    partly = [firing.stage for firing in firings if firing.standing == "partly recorded only"]
    if going:
        return f"still closing on {_names(going)}"
    if left:
        return f"{_count(len(left), 'position')} not at target, see what is still open"
    if unclear:
        return f"{_count(len(unclear), 'order')} of unknown fate may still be filled"
    if not any(firing.acted for firing in firings):
        return "nothing was sent: the account or the policy only observes"
    if unsent or partly:
        how = "recorded only: nothing was sent, see what is still open"
        return f"{_stages(unsent)} was {how}" if unsent else f"on some accounts of {_stages(partly)} nothing was sent"
    return None if settled else "no position was to be reduced: look at the book yourself"


def _reconciled(
    firings: Sequence[Firing],
    orders: Sequence[OrderOutcome],
    left: Sequence[PositionLeft],
    settled: Sequence[PositionLeft],
    *,
    swept: bool,
) -> Item:
    key, title = "reconciled", "Exchange reconciliation"
    if swept:
        return Item(
            key, title, "open", "the venue closed a whole book by itself: compare its fills with your own books"
        )
    if not orders:
        return Item(key, title, "open", "no order was sent: compare the venue's account with your own books")
    unclear = [order for order in orders if not order.final]
    if unclear:
        return Item(key, title, "open", f"{_count(len(unclear), 'order')} of unknown fate")
    if left or not settled:
        return Item(key, title, "open", "the venue does not show every position at its target")
    seen = {(each.account, each.symbol, each.side): each.verified_at for each in settled}
    unseen = []
    for order in orders:
        shown = seen.get((order.account, order.symbol, order.position_side))
        if shown is None or shown < (order.answered_at or order.sent_at):
            unseen.append(order)
    if unseen:
        return Item(key, title, "open", f"{_count(len(unseen), 'order')} answered after the position was last seen")
    proof = f"the venue answered for all of {_count(len(orders), 'order')}, and showed the positions afterwards"
    return Item(key, title, "proved", proof)


def _counted(orders: Sequence[OrderOutcome], totals: Money) -> Item:
    key, title = "counted", "P&L recorded"
    unclear = [order for order in orders if not order.final]
    if unclear:
        return Item(key, title, "open", f"what {_count(len(unclear), 'order')} of unknown fate came to is not known")
    if any(each.swept for each in totals.missing):
        return Item(key, title, "open", "what the whole-book request came to: look it up in the venue's statement")
    if not any(order.filled for order in orders):
        return Item(key, title, "open", "nothing was filled")
    missing = [
        name
        for name, amount in (("realised P&L", totals.realised), ("fees", totals.fees), ("slippage", totals.slippage))
        if amount is None
    ]
    if missing:
        lacking = sorted({number for each in totals.missing for number in each.orders})
        which = f" (of {numbered(lacking)})" if lacking else ""
        said = f"{' and '.join(missing)} unknown{which}: look it up in the venue's statement"
        return Item(key, title, "open", said)
    currency = totals.currency or ""
    return Item(
        key, title, "proved",
        f"realised {money(totals.realised, currency)} before fees, fees {money(totals.fees, currency)}, "
        f"slippage {money(totals.slippage, currency)}, delay cost {money(totals.delay, currency)}",
    )  # fmt: skip


def _audited(firings: Sequence[Firing], endings: Sequence[Ended], doubts: Sequence[str]) -> Item:
    key, title = "audited", "Audit complete"
    if doubts:
        return Item(key, title, "open", "; ".join(doubts))
    if any(each.status == "closing" for each in endings):
        return Item(key, title, "open", "the closing is still being recorded")
    proof = f"{_count(len(firings), 'decision')} with snapshot, policy line and every journaled order on record"
    return Item(key, title, "proved", proof)


def _names(endings: Sequence[Ended]) -> str:
    return ", ".join(dict.fromkeys(each.account for each in endings))


def _stages(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


class StartedAs(Struct, frozen=True):
    """How the run on this store was started: what a command needs to find the same things. Empty where unknown."""

    store: str
    policies: tuple[str, ...] = ()
    live: bool = False
    recording: str | None = None


def next_commands(
    incident: str,
    scope: str,
    decisions: Sequence[str],
    started: StartedAs,
    *,
    is_open: bool,
    unfinished: bool,
    cause: Cause = "operator",
) -> tuple[Command, ...]:
    """What to type next. `decisions`, the highest first; `unfinished`: something is left to close, for `cause`."""
    store = ("--store", started.store)
    policies = tuple(word for path in started.policies for word in ("--policies", path))
    found = [_command("How everything stands now", "status", *store)]
    found += [_command("Why it fired, line by line", "explain", decision, *store) for decision in decisions[:1]]
    found.append(_command("Everything decided so far", "history", *store))
    if unfinished and policies:
        found.append(
            _command("What a close of the rest would send; changes nothing", "close", "--dry-run", "--scope", scope,
                     "--reason", f"{cause}: rest of incident {incident}", *policies, *store)
        )  # fmt: skip
    if started.recording is not None and policies:
        found.append(
            _command("The same policies over what was recorded", "replay", *policies, "--snapshots", started.recording)
        )
    if is_open:
        live = ("--live",) if started.live else ()
        found.append(
            _command("Return the scope to normal, once the checklist is done", "reset", scope,
                     "--reason", f"incident {incident} is dealt with", *live, *policies, *store)
        )  # fmt: skip
    found.append(_command("This report anew, as a page", "report", incident, "--format", "html", "--out",
                          f"incident-{incident}.html", *store))  # fmt: skip
    return tuple(found)


def _command(purpose: str, *words: str) -> Command:
    return Command(purpose, ("ksctl", *words), shlex.join(("ksctl", *words)))
