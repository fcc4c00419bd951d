"""Manual closes that are not complete: what they wait for, what they close further, and how they end.

A close by hand is planned on one snapshot, and an answer may leave positions out. So the command stays active until
every armed account of its scope has been seen without the positions that it names in enough answers: two in a row, and
three where an empty one states no margin in use, as for the executor. What appears in an account until then is closed
too, up to the deadline of the command, with pauses that grow: it may be somebody who opens it again. What has been
closed is closed again only if an answer that is newer than the end of that close shows it. An account that was seen
closed is done, however long the command waits for others: what is opened there later is somebody's own decision.

`leverage` reduces, and leaves positions: only one that no earlier look showed is a reason to plan again.

After the deadline nothing is ordered any more. What is left then, or cannot be read, is a page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.backoff import Backoff
from killswitch.model.decision import Decision
from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.snapshot import IN_PROGRESS, AccountSnapshot, Event, Snapshot
from killswitch.planning.operator.closes import ManualClose, accounts_in, commanded_book
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.owners import Owners
from killswitch.planning.targets.known_positions import ENOUGH_ANSWERS, KnownPositions
from killswitch.planning.targets.merge import targets_of
from killswitch.valuation.scope_view import PnlKey
from killswitch.valuation.snapshot_facts import SnapshotFacts

ENOUGH_EMPTY: Final = 2
"""Number of answers in a row without the positions after which an account counts as closed."""
PAUSES: Final = Backoff(SECOND, MINUTE)
"""The pauses, in microseconds, between two further closes of one command."""


class CommandInput(Struct, frozen=True):
    """What commands need of a tick. `closing`: the positions that closes in progress work on.

    `armed`: the accounts on which orders may be sent; None is all.
    """

    snapshot: Snapshot
    facts: SnapshotFacts
    owners: Owners
    known: KnownPositions
    closing: frozenset[PnlKey] = frozenset()
    armed: Collection[str] | None = None

    @property
    def now(self) -> int:
        """The time of the tick in microseconds."""
        return self.facts.as_of


class EndedClose(Struct):
    """A close of the command that has ended: what it left, and the answers of that time, which may be older."""

    left: set[PnlKey]
    answers: Mapping[str, datetime | None]


class Absence(Struct):
    """The number of answers in a row in which an account showed nothing that the command names, and the newest."""

    answers: int = 0
    newest: datetime | None = None


class UnfinishedClose(Struct):
    """A manual close that is active from `since` until `until` (microseconds), and waits to read `accounts`.

    `decisions`: ids of the decisions already made for it. `is_continued`: an earlier run has made them.
    """

    event: Event
    since: int
    until: int
    accounts: frozenset[str]
    decisions: set[str] = set()
    is_continued: bool = False
    about: dict[PnlKey, str] = {}
    """Position → the newest decision of the command about it."""
    left: set[PnlKey] = set()
    """Positions that its decisions leave, with a notice: the venue takes no order for them, or others own them."""
    gone: set[PnlKey] = set()
    """Positions of a decision that a later answer did not show."""
    ended: dict[str, EndedClose] = {}
    absences: dict[str, Absence] = {}
    dropped: set[str] = set()
    """Accounts that it is no longer about: seen closed, given up, or waited for too long."""
    looks: int = 0
    """The number of further closes."""
    again_at: int = 0

    def add(self, decision: Decision | None, found: ManualClose) -> None:
        """Remember a decision of the command, which `found` made."""
        if decision is not None:
            self.decisions.add(decision.id)
            self.about |= dict.fromkeys(found.about, decision.id)
            self.gone -= found.about
            self.left |= found.remaining

    def add_earlier(self, decision: Decision) -> None:
        """Remember a decision of an earlier run. What it left without an order is not in its record."""
        self.decisions.add(decision.id)
        self.about |= dict.fromkeys(targets_of([decision]), decision.id)

    @property
    def unseen(self) -> frozenset[str]:
        """The accounts that were looked at, and are not seen without the positions yet."""
        return frozenset(self.absences) - self.dropped


class Look(Struct, frozen=True):
    """What a tick shows of a command: the positions to close further, and what keeps it from being complete.

    `shown`: all positions that it names; `open`: those that are not left on purpose. `unreadable`: account → why.
    `is_closing`: whether a close works on any of its positions.
    """

    shown: frozenset[PnlKey]
    to_close: frozenset[PnlKey]
    open: frozenset[PnlKey]
    unreadable: Mapping[str, str]
    is_closing: bool
    is_complete: bool

    @property
    def remainder(self) -> str:
        """What is not closed, or not known to be, in words; empty if there is nothing."""
        held = [f"{side} {symbol} in {account}" for account, symbol, side in sorted(self.open)]
        return "; ".join([*([f"{', '.join(held)} is open"] if held else []), *self.unreadable.values()])


def look(close: UnfinishedClose, tick: CommandInput, policies: PolicySet) -> Look:
    """Compare what the command names with the tick, and count the accounts' answers without it.

    RefusedCommandError if its scope names no account of the snapshot.
    """
    _note_ends(close, tick)
    names = [
        each.account
        for each in accounts_in(close.event.scope, tick.snapshot, policies)
        if (tick.armed is None or each.account in tick.armed)
        and each.account not in close.accounts
        and each.account not in close.dropped
    ]
    if not names:
        return Look(frozenset(), frozenset(), frozenset(), {}, is_closing=False, is_complete=not close.accounts)
    visible = replace(close.event, force=False)  # what only force knows of an account is no answer
    book = commanded_book(visible, tick.snapshot, tick.facts, policies, tick.known, names)
    readable = {each.account: each for each in book.seen.accounts}
    shown = {each.candidate.key for each in book.ranked}
    close.gone |= {key for key in close.about if key[0] in readable and key not in shown | tick.closing}
    at_work = {key for key in (*shown, *close.about) if key[0] in names and _is_at_work(key, readable, tick)}
    to_close, still_open = _sorted(close, shown - at_work, readable)
    for name, account in readable.items():
        is_absent = not any(key[0] == name for key in (*to_close, *still_open, *at_work))
        absence = close.absences.setdefault(name, Absence())
        _count(absence, account, is_absent=is_absent)
        if _is_enough(absence, account):
            close.dropped.add(name)
    return Look(
        frozenset(shown), frozenset(to_close), frozenset(still_open | to_close), book.seen.unreadable,
        bool(at_work), close.dropped.issuperset(names) and not close.accounts,
    )  # fmt: skip


def _sorted(
    close: UnfinishedClose, shown: Iterable[PnlKey], accounts: Mapping[str, AccountSnapshot]
) -> tuple[set[PnlKey], set[PnlKey]]:
    """The positions to close further, and those that are open without being closed further."""
    to_close, still_open = set[PnlKey](), set[PnlKey]()
    for key in shown:
        ended = close.ended.get(close.about.get(key, ""))
        if key not in close.about:
            to_close.add(key)
        elif close.event.leverage is not None or key in close.left or (ended is not None and key in ended.left):
            continue  # a part stays on purpose, or its end has been notified
        elif key in close.gone or (ended is not None and _is_newer(accounts[key[0]], ended.answers.get(key[0]))):
            to_close.add(key)
        else:
            still_open.add(key)
    return to_close, still_open


def _note_ends(close: UnfinishedClose, tick: CommandInput) -> None:
    """Remember which closes of the command have ended, and what they left."""
    answers = {each.account: each.observed_at for each in tick.snapshot.accounts}
    working = {each.decision for each in tick.snapshot.closings if each.status in IN_PROGRESS}
    for closing in tick.snapshot.closings:
        if closing.decision in close.decisions and closing.status not in IN_PROGRESS:
            left = {(it.account, it.symbol, it.position_side) for it in closing.residual}
            ended = close.ended.setdefault(closing.decision, EndedClose(set(), answers))
            ended.left |= left
    if close.is_continued:  # what is not shown as being worked on has ended in the earlier run
        close.is_continued = False
        for decision in close.decisions - working:
            close.ended.setdefault(decision, EndedClose(set(), answers))


def _is_at_work(key: PnlKey, accounts: Mapping[str, AccountSnapshot], tick: CommandInput) -> bool:
    """Whether a close works on the position; on a market of holdings, on anything of its account.

    A holding may be sold on another market than its own.
    """
    account = accounts.get(key[0])
    if account is None or account.market in DERIVATIVES:
        return key in tick.closing
    return any(each[0] == key[0] for each in tick.closing)


def _is_newer(account: AccountSnapshot, than: datetime | None) -> bool:
    """Whether it is another answer than the one of a time before. Some are dated by the venue, whose clock may be set
    back: by the order of the times nothing would be newer for as long."""
    return account.observed_at is None or than is None or account.observed_at != than


def _count(absence: Absence, account: AccountSnapshot, *, is_absent: bool) -> None:
    """Count the answer, once, if it shows nothing that the command names; else count from the next one."""
    if not is_absent:
        absence.answers = 0
    elif not absence.answers or _is_newer(account, absence.newest):
        absence.answers, absence.newest = absence.answers + 1, account.observed_at


def _is_enough(absence: Absence, account: AccountSnapshot) -> bool:
    """Whether the answers suffice. An empty one without a figure for the margin may be an incomplete one."""
    if account.positions or account.margin_used is not None or account.market not in DERIVATIVES:
        return absence.answers >= ENOUGH_EMPTY
    return absence.answers >= ENOUGH_ANSWERS
