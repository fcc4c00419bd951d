"""What a board shows to somebody whose rights reach some scopes only: nothing of any other account is in it.

Two rules. What has a scope or an account is filtered by it, before anything is counted, ranked or worded, so that the
headline judges what is seen and nothing else. What is a text of another part of the program may name whatever is in the
book: a text that names an account, a scope or a venue out of sight is left out whole, because its numbers are of it.

What is of the run as a whole, such as messages, silences and the source of the policies, is not shown: it names scopes
of everybody. Whether a runner is alive, how old its data are and which set is in force are shown to all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import replace

from killswitch.gate.lock_merge import UNION_SCOPE
from killswitch.operations.board import Board, BoardFacts, board_of
from killswitch.operations.commands import is_covered
from killswitch.operations.status import ActiveAlert, LockView, OpenClosing, StoreStatus
from killswitch.operations.waiting_approvals import approvals_in
from killswitch.runner.status_blob import AccountView, RunnerView
from killswitch.watcher.watch import SwitchView

EVERYTHING: Final = ("portfolio",)
"""The scopes of somebody who sees the whole book."""
OF_OTHERS: Final = "not shown: it names what this token does not see"
ELSEWHERE: Final = "a scope of others"
NO_LOCKS: Final = "lock files cannot be read: whether trading is locked is not known"
OF_ACCOUNT: Final = frozenset({"outage", "stream", "dead-man", "closing", "stops"})
"""How the keys of alerts begin that name one account next."""
OF_RUN: Final = ("wall-clock/",)
"""How the keys of alerts begin whose texts name nothing of any book."""
SHARED_FACTS: Final = frozenset({"set in force", "runner"})

WORD: Final = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
"""A name of one word, as those of accounts are. Names of files join words by underscores."""

Item = TypeVar("Item", bound=Struct)


def audience_of(scopes: Iterable[str]) -> tuple[str, ...]:
    """The key of the boards of a token: its scopes, sorted. Tokens that see the same scopes share one rendering."""
    found = frozenset(scopes)
    return EVERYTHING if "portfolio" in found else tuple(sorted(found))


def board_for(facts: BoardFacts, audience: tuple[str, ...]) -> Board:
    """The board of what these scopes see; `audience` is that of `audience_of`."""
    if audience == EVERYTHING:
        return board_of(facts.status, facts.firings, approvals_in(facts.source, facts.status.view))

    held = frozenset(audience)

    def may_see(scope: str) -> bool:
        return is_covered(scope, held)

    view = facts.status.view
    accounts = accounts_seen(() if view is None else view.accounts, may_see)
    waiting = [
        each
        for each in approvals_in(facts.source, view, may_see)
        if each.purpose not in ("recovery", "reset") or may_see(each.scope)
    ]
    firings = [each for each in facts.firings if may_see(each.announcement.attributes.scope)]
    board = board_of(_status_seen(facts.status, may_see, accounts), firings, waiting)
    board = replace(
        board,
        part=_part(view, accounts, audience),
        policies=tuple(each for each in board.policies if each[0] in SHARED_FACTS),
    )
    hidden = _names_out_of_sight(view, may_see, accounts)
    return board if hidden is None else _without_names(board, hidden)


def accounts_seen(accounts: Iterable[AccountView], may_see: Callable[[str], bool]) -> frozenset[str]:
    """Those of the accounts that somebody sees: by their own scope, or by that of their whole venue."""
    return frozenset(
        each.account for each in accounts if may_see(f"account/{each.account}") or may_see(f"venue/{each.venue}")
    )


def _part(view: RunnerView | None, accounts: frozenset[str], audience: tuple[str, ...]) -> str:
    """Which part of the book is shown, in one sentence."""
    named = [each for each in audience if each.partition("/")[2] not in accounts or not each.startswith("account/")]
    also = f"; scopes of this token: {', '.join(named)}" if named else ""
    if view is None:
        return f"shows a part of the book{also}"
    if not accounts:
        return f"shows none of {len(view.accounts)} accounts{also}"
    noun = "account" if len(accounts) == 1 else "accounts"
    return f"shows the {noun} {', '.join(sorted(accounts))} of {len(view.accounts)}{also}"


# The status


def _status_seen(status: StoreStatus, may_see: Callable[[str], bool], accounts: frozenset[str]) -> StoreStatus:
    """The status without everything that is of other scopes."""
    view = status.view
    venues = {each.venue for each in (() if view is None else view.accounts) if each.account in accounts}
    wider = {"portfolio", *(f"venue/{each}" for each in venues)} if accounts else set()
    machines = () if view is None else tuple(each for each in view.machines if may_see(each.scope))
    locks = tuple(_locks(status.locks, may_see, wider))
    return replace(
        status,
        view=None if view is None else _view_seen(view, may_see, accounts),
        # the error of a decoder may quote what it could not decode
        view_problem=None if status.view_problem is None else status.view_problem.partition(" (")[0],
        locks=locks,
        closings=tuple(_closings(status.closings, may_see, accounts, wider)),
        pending=tuple(each for each in status.pending if may_see(each.scope or "portfolio")),
        notices=(),
        notifications=(),
        by_hand=(),
        problems=tuple(each.reason for each in locks if each.scope is None),
        suspicions=(),
        active_alerts=tuple(each for each in status.active_alerts if _is_seen(each, may_see, accounts)),
        flags=(),
        pauses=tuple(each for each in status.pauses if each.policy in {machine.policy for machine in machines}),
        shadows=(),
        heartbeats=(),
        switches=tuple(_switch(each, accounts) for each in status.switches if not accounts.isdisjoint(each.accounts)),
        stops=(),
        source=None,
        silences=(),
        held=(),
    )


def _view_seen(view: RunnerView, may_see: Callable[[str], bool], accounts: frozenset[str]) -> RunnerView:
    return replace(
        view,
        policies=(),
        lock_folder=None,
        union=None,
        accounts=tuple(each for each in view.accounts if each.account in accounts),
        machines=tuple(each for each in view.machines if may_see(each.scope)),
        closings=(),
        problems=(),
        orphans=tuple(each for each in view.orphans if may_see(each.scope)),
        unfinished_closes=(),
        strategies=UNSET,
        changes=UNSET,
        needs_start=UNSET,
        exposures=UNSET,
        recoveries=tuple(each for each in view.recoveries or () if may_see(each.scope)),
        held=UNSET,
        limits=UNSET,
        streams=tuple(each for each in view.streams if each.account in accounts),
        timers=tuple(each for each in view.timers if each.account in accounts),
        suspended=tuple(each for each in view.suspended if each in accounts),
        pending_effects=UNSET,
        run_end=UNSET,
    )


def _is_seen(alert: ActiveAlert, may_see: Callable[[str], bool], accounts: frozenset[str]) -> bool:
    if may_see(alert.scope):
        return True
    kind, _, rest = alert.key.partition("/")
    return alert.key.startswith(OF_RUN) or (kind in OF_ACCOUNT and rest.partition("/")[0] in accounts)


def _locks(locks: Iterable[LockView], may_see: Callable[[str], bool], wider: set[str]) -> Iterable[LockView]:
    """The locks on what is seen. The reason of a wider lock is of accounts that are not."""
    for lock in locks:
        if lock.scope is None:
            yield replace(lock, file="unread", reason=NO_LOCKS)
        elif lock.scope == UNION_SCOPE:
            continue
        elif may_see(lock.scope):
            of_wider = f"locked with {' and '.join(lock.wider)}"
            also = f"locked, and {of_wider}" if lock.has_own else of_wider
            yield replace(lock, file=lock.scope, reason=also if lock.ordered and lock.wider else lock.reason)
        elif lock.scope in wider:
            yield replace(lock, file=lock.scope, reason=f"its reason is shown to a token of {lock.scope}")


def _closings(
    closings: Iterable[OpenClosing], may_see: Callable[[str], bool], accounts: frozenset[str], wider: set[str]
) -> Iterable[OpenClosing]:
    """The closes on the accounts that are seen, whoever ordered them; a decision of other scopes is not named."""
    for each in closings:
        if may_see(each.scope):
            yield each
        elif each.account in accounts:
            scope = each.scope if each.scope in wider else ELSEWHERE
            yield replace(each, decision=f"of {scope}", scope=scope)


def _switch(switch: SwitchView, accounts: frozenset[str]) -> SwitchView:
    """A switch that acts on an account that is seen. What else it watches and acts on is not."""
    if accounts.issuperset(switch.accounts):
        return switch
    why = None if switch.why is None else OF_OTHERS
    return replace(switch, accounts=tuple(each for each in switch.accounts if each in accounts), why=why, ways=())


# Texts


class HiddenNames(Struct, frozen=True):
    """The names that are out of sight: single words, and names of several."""

    words: frozenset[str]
    phrases: tuple[str, ...]

    def shown(self, text: str) -> str:
        """The text; what names anything out of sight is replaced whole."""
        is_named = not self.words.isdisjoint(WORD.findall(text)) or any(each in text for each in self.phrases)
        return OF_OTHERS if is_named else text


def _names_out_of_sight(
    view: RunnerView | None, may_see: Callable[[str], bool], accounts: frozenset[str]
) -> HiddenNames | None:
    """The names of every account, venue and scope that is not seen; None if all are."""
    if view is None:
        return None
    venues = {each.venue for each in view.accounts if each.account in accounts}
    names = {each.account for each in view.accounts} - accounts
    names |= {each.venue for each in view.accounts} - venues - accounts
    scopes = {each.scope for each in view.machines} | {each.scope for each in view.orphans}
    scopes |= set(view.strategies or ())
    wider = {"portfolio", *(f"venue/{each}" for each in venues)}
    hidden = [each for each in scopes - wider if not may_see(each)]
    # whatever names the scope of an account or a venue has its name as a word
    names |= {each.partition("/")[2] for each in hidden if each.startswith(("account/", "venue/"))} - accounts - venues
    names |= {each for each in hidden if not each.startswith(("account/", "venue/"))}
    if not names:
        return None
    words = frozenset(each for each in names if WORD.fullmatch(each))
    return HiddenNames(words, tuple(names - words))


def _without_names(board: Board, hidden: HiddenNames) -> Board:
    """The board without every text that names what is not seen."""
    shown = hidden.shown

    def each_of(items: tuple[Item, ...], *fields: str) -> tuple[Item, ...]:
        return tuple(replace(item, **{field: shown(getattr(item, field)) for field in fields}) for item in items)

    troubles = tuple(replace(each, key=shown(each.key)) for each in each_of(board.troubles, "text"))
    # the key of a switch is made of its name
    switches = tuple(replace(each, key=shown(each.key)) for each in each_of(board.switches, "name", "state", "detail"))
    venues = tuple(replace(each, accounts=each_of(each.accounts, "why")) for each in board.venues)
    scopes = tuple(
        replace(each, bars=each_of(each.bars, "value", "threshold")) for each in each_of(board.scopes, "note", "stage")
    )
    headline = board.headline
    return replace(
        board,
        headline=replace(headline, text=shown(headline.text), detail=shown(headline.detail)),
        troubles=troubles,
        firings=each_of(board.firings, "title"),
        approvals=each_of(board.approvals, "title"),
        incidents=each_of(board.incidents, "left", "orders"),
        scopes=scopes,
        locks=each_of(board.locks, "reason", "end"),
        ways_back=tuple((scope, shown(progress)) for scope, progress in board.ways_back),
        venues=venues,
        switches=switches,
        pending=tuple(map(shown, board.pending)),
    )
