"""The checklist of a report, the next commands, and the files of an incident."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.incident.record.close_causes import cause_text
from killswitch.incident.record.document import ChecklistItem, Command, Incident, ItemState, Money
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.verdict import shown
from killswitch.journal.entries import Place
from killswitch.render.formats import count_of, instant, money, order_numbers

_FOR_A_PERSON = (
    ("cause", "Root cause found", "for a person to find: write it below"),
    ("recovery", "Recovery plan agreed", "before the reset: what may be opened again, by whom, when"),
    ("debrief", "Debrief held", "what to change in the policy, the book or the way of working"),
)
"""The items that no record proves, as (key, title, what to do)."""


def checklist(incident: Incident, notifications: ChecklistItem) -> tuple[ChecklistItem, ...]:
    """Return the eight items, and those that the declared reason of a manual close adds.

    `notifications` is the item for notifications.
    """
    reason = None if incident.reason is None else cause_text(incident.reason.cause)
    todo = _FOR_A_PERSON if reason is None else (*reason.todo, *_FOR_A_PERSON)
    return (
        ChecklistItem("closed", "Positions confirmed closed", *_closed(incident)),
        ChecklistItem("reconciled", "Exchange reconciliation", *_reconciled(incident)),
        ChecklistItem("counted", "P&L recorded", *_counted(incident.orders, incident.money)),
        notifications,
        ChecklistItem("audited", "Audit complete", *_audited(incident)),
        *(ChecklistItem(key, title, "open", what) for key, title, what in todo),
    )


_Found = tuple[ItemState, str]
"""Whether an item is proved, and the reason."""


def _closed(incident: Incident) -> _Found:
    why = _why_not_closed(incident)
    if why is not None:
        return "open", why
    settled = incident.settled
    newest = max(each.verified_at for each in settled if each.verified_at is not None)
    return "proved", f"{shown(incident)}, last at {instant(newest)}"


def _why_not_closed(incident: Incident) -> str | None:
    """Return what is unknown or unfinished about the positions; None if the venue showed each at its target."""
    firings, left = incident.firings, incident.left
    closing = [each.account for each in incident.endings if each.status == "closing"]
    unclear = _unclear(incident.orders)
    unsent = [firing.stage for firing in firings if firing.unsent]
    partly = [firing.stage for firing in firings if firing.standing == "partly recorded only"]
    if closing:
        return f"still closing on {_names(closing)}"
    if left:
        return f"{count_of(len(left), 'position')} not at target, see what is still open"
    if unclear:
        return f"{count_of(len(unclear), 'order')} of unknown status may still be filled"
    if not any(firing.acted for firing in firings):
        return "nothing was sent: the account or the policy only observes"
    if unsent or partly:
        how = "recorded only: nothing was sent, see what is still open"
        return f"{_names(unsent)} was {how}" if unsent else f"on some accounts of {_names(partly)} nothing was sent"
    held = f": {count_of(len(incident.held), 'position')} held" if incident.held else ""
    return None if incident.settled else f"no position was to be reduced{held}: check the book yourself"


def _reconciled(incident: Incident) -> _Found:
    orders, settled = incident.orders, incident.settled
    if any(each.swept for each in incident.money.missing):
        return "open", "the venue closed a whole book on request: compare its fills with your own books"
    if not orders:
        return "open", "no order was sent: compare the venue's account with your own books"
    unclear = _unclear(orders)
    if unclear:
        return "open", f"{count_of(len(unclear), 'order')} of unknown status"
    if incident.left or not settled:
        return "open", "the venue does not show every position at its target"
    verified: dict[Place, datetime | None] = {(it.account, it.symbol, it.side): it.verified_at for it in settled}
    unseen = []
    for order in orders:
        shown = verified.get(order.place)
        if shown is None or shown < (order.answered_at or order.sent_at):
            unseen.append(order)
    if unseen:
        return "open", f"{count_of(len(unseen), 'order')} answered after the position was last seen"
    count = count_of(len(orders), "order")
    return "proved", f"the venue reported the final status of all {count}, and showed the positions afterwards"


def _counted(orders: Sequence[OrderOutcome], totals: Money) -> _Found:
    unclear = _unclear(orders)
    if unclear:
        return "open", f"what {count_of(len(unclear), 'order')} of unknown status realised and cost is unknown"
    if any(each.swept for each in totals.missing):
        return "open", "the result of the whole-book request is unknown: look it up in the venue's statement"
    if not any(order.filled for order in orders):
        return "open", "nothing was filled"
    sums = {"realised P&L": totals.realised, "fees": totals.fees, "slippage": totals.slippage}
    missing = [name for name, amount in sums.items() if amount is None]
    if missing:
        lacking = sorted({number for each in totals.missing for number in each.orders})
        which = f" (of {order_numbers(lacking)})" if lacking else ""
        return "open", f"{' and '.join(missing)} unknown{which}: look it up in the venue's statement"
    currency = totals.currency
    return "proved", (
        f"realised {money(totals.realised, currency)} before fees, fees {money(totals.fees, currency)}, "
        f"slippage {money(totals.slippage, currency)}, delay cost {money(totals.delay, currency)}"
    )


def _audited(incident: Incident) -> _Found:
    if incident.doubts:
        return "open", "; ".join(incident.doubts)
    if any(each.status == "closing" for each in incident.endings):
        return "open", "the closing is still being recorded"
    decisions = count_of(len(incident.firings), "decision")
    return "proved", f"{decisions} with snapshot, policy line and every journaled order on record"


def _unclear(orders: Sequence[OrderOutcome]) -> list[OrderOutcome]:
    return [order for order in orders if not order.final]


def _names(found: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(found))


class StartedAs(Struct, frozen=True):
    """How the run on this store was started, so that a command finds the same files. Empty where unknown."""

    store: str
    policies: tuple[str, ...] = ()
    live: bool = False
    recording: str | None = None
    is_drill: bool = False
    """Whether nothing of it is real: every message, report and page begins with DRILL."""

    def command(self, *words: str) -> str:
        """Return a line of `ksctl` for a shell, with the store."""
        return shlex.join(("ksctl", *words, *(("--store", self.store) if self.store else ())))

    def lifting(self, verb: str, scope: str) -> str:
        """Return the line that resets or unlocks a scope, with a blank for the reason: it is refused until filled."""
        return shlex.join(self.lifting_words(verb, scope))

    def lifting_words(self, verb: str, scope: str) -> tuple[str, ...]:
        """Return the words of `lifting`.

        They are those for a running runner, which is sent the command and knows its policies. Without one the command
        is refused and names what to add, because it would then run a tick by itself, in which a stage can fire.
        """
        return ("ksctl", verb, scope, "--reason", "", *(("--store", self.store) if self.store else ()))


UNKNOWN_START: Final = StartedAs("")

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def incidents_folder(store_at: str) -> Path:
    """Return the folder for the incidents of the store at this path or `sqlite:///` URL."""
    return Path(store_at.removeprefix("sqlite:///") + ".incidents")


def file_name(name: str) -> str:
    """Return a name that is one part of a path, whatever the store contains."""
    return _UNSAFE.sub("-", name).lstrip(".") or "unnamed"


def next_commands(incident: Incident, run: StartedAs, *, is_unfinished: bool, is_escalating: bool) -> Iterator[Command]:
    """Yield the commands to run next.

    `is_unfinished` says that something is left to close, `is_escalating` that a firing of this incident waits for an
    acknowledgement.
    """
    highest = next(each for each in incident.firings if each.level == incident.level)
    cause = incident.firings[0].cause or "operator"
    store = ("--store", run.store)
    policies = tuple(word for path in run.policies for word in ("--policies", path))
    yield _ksctl("The current status", "status", *store)
    if is_escalating:
        yield _ksctl("Acknowledge, so that it does not escalate", "acknowledge", incident.id, *store)
    yield _ksctl("Why it fired, line by line", "explain", highest.decision, *store)
    yield _ksctl("Everything decided so far", "history", *store)
    is_whole = incident.state == "open" and _was_whole(incident)
    if policies and (is_unfinished or is_whole):
        reason = f"{cause}: rest of incident {incident.id}"
        close = ("--scope", incident.scope, "--reason", reason, *policies, *store)
        purpose = "The orders that would close all that the scope still holds; sends nothing"
        yield _ksctl(purpose, "close", "--dry-run", *close)
        if run.live and is_whole:
            yield _ksctl("Send those orders, if the dry run shows what you mean", "close", "--live", *close)
    if run.recording is not None and policies:
        yield _ksctl("The same policies replayed over the recording", "replay", *policies, "--snapshots", run.recording)
    if incident.state == "open" and not incident.by_hand:
        ends = [each.no_reset_before for each in incident.firings if each.no_reset_before is not None]
        not_before = f", and not before {instant(max(ends))}: nobody can earlier" if ends else ""
        purpose = (
            "Return the scope to normal and accept the loss, once the cause is known and the checklist of the report "
            f"is done{not_before}; it is refused until the reason is filled in"
        )
        yield _ksctl(purpose, *run.lifting_words("reset", incident.scope)[1:])
    opening = incident.firings[0]
    if incident.by_hand and opening.lock is not None:
        purpose = "Lift the lock of the close, once bots may trade again; it is refused until the reason is filled in"
        yield _ksctl(purpose, *run.lifting_words("unlock", opening.lock.scope)[1:])
    page = ("--format", "html", "--out", f"incident-{incident.id}.html")
    yield _ksctl("This report again, as an HTML page", "report", incident.id, *page, *store)


def _was_whole(incident: Incident) -> bool:
    """Whether the last decision was sent, and closes the whole book: only then may what is open be closed as well."""
    last = incident.firings[-1]
    return last.acted and bool(last.orders) and last.book is not None and last.book.after.gross == 0


def _ksctl(purpose: str, *words: str) -> Command:
    return Command(purpose, ("ksctl", *words), shlex.join(("ksctl", *words)))
