"""What a board shows of a status, the worst first: for the page of the server and for `ksctl top`.

Everything here is worded and ranked once, so that a terminal and a page never disagree. Times are instants, and whoever
shows them counts them down; the age of the data is not part of it, because it changes while the data does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from killswitch.incident.notify.message import decode_message
from killswitch.model.instant import from_micros
from killswitch.model.legible import one_line
from killswitch.model.lock_parts import parts_text
from killswitch.model.store import ROUTING, RouteCount, Store
from killswitch.operations.policy_sources import source_facts, source_state
from killswitch.operations.status import LockView, OpenClosing, StoreStatus, store_status
from killswitch.operations.status_answer import answer, unmet_positions
from killswitch.operations.waiting_approvals import WaitingApproval, approvals_in
from killswitch.planning.routing.state import OpenPage, read_routing
from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus
from killswitch.render.formats import count_of, instant, interval, money
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.status_blob import AccountView, RunnerView
from killswitch.source.sync_state import SourceState
from killswitch.watcher.watch import SwitchView

BOARD_FORMAT: Final = "killswitch.board/v1"
NEAR: Final = 0.8
"""From this share of its threshold on a trigger counts as near."""
LATE_CHECKS: Final = 5
"""A switch whose last check is older than this many of its checks is not watched."""
ACCOUNTS_SHOWN: Final = 40
"""Up to this many accounts each is shown; of more, those with something wrong."""

Tone = Literal["alarm", "warning", "near", "calm"]
"""How bad something is. Every page orders by it, and never shows it by colour alone."""
TONES: Final[tuple[Tone, ...]] = ("alarm", "warning", "near", "calm")
BarState = Literal["true", "unknown", "near", "young", "clear"]
"""`young`: unknown, only because its history is shorter than its windows. Their bars are not drawn."""


class TriggerBar(Struct, frozen=True):
    """One trigger. `reached`: the share of its threshold that its value has, to be drawn; null if it is not known."""

    name: str
    state: BarState
    threshold: str
    value: str
    reached: float | None


class BoardScope(Struct, frozen=True):
    """One policy on one scope. `note`: what else holds there, such as a pause. `bars`: the nearest first."""

    key: str
    scope: str
    policy: str
    tone: Tone
    stage: str
    since: datetime | None
    decision: str | None
    note: str
    bars: tuple[TriggerBar, ...]


class BoardIncident(Struct, frozen=True):
    """A close in progress on one account. `done` of `of` positions are at their target; `left`: what is not, in words.

    `done` is null where nobody has read the positions since.
    """

    key: str
    decision: str
    scope: str
    account: str
    what: str
    done: int | None
    of: int
    orders: str
    left: str


class BoardVenue(Struct, frozen=True):
    """The accounts of one venue: how many of them are read. `accounts`: one line each, of those that are shown."""

    key: str
    venue: str
    tone: Tone
    read: int
    of: int
    streams: str
    accounts: tuple[BoardAccount, ...]


class BoardAccount(Struct, frozen=True):
    """One account. `why`: why it cannot be read; empty if it can."""

    account: str
    is_armed: bool
    equity: str
    positions: str
    why: str


class BoardSwitch(Struct, frozen=True):
    """A dead man's switch, or a timer at a venue. `until`: when it fires if nothing is heard; null unless it runs."""

    key: str
    name: str
    tone: Tone
    state: str
    until: datetime | None
    detail: str


class BoardLock(Struct, frozen=True):
    """A lock that is in force. `until` is null for one that lasts until it is lifted, and `end` says which."""

    key: str
    scope: str
    mode: str
    reason: str
    until: datetime | None
    end: str


class BoardTrouble(Struct, frozen=True):
    """Something that is wrong, in one sentence. `at`: since when, where that is known."""

    key: str
    tone: Tone
    text: str
    at: datetime | None = None


class BoardFiring(Struct, frozen=True):
    """A firing that escalates until somebody acknowledges it. `number`: what an acknowledgement covers."""

    key: str
    decision: str
    number: int
    scope: str
    title: str
    at: datetime


class BoardApproval(Struct, frozen=True):
    """Something that waits for the signature of a person. `given`: who has approved it so far."""

    key: str
    scope: str
    title: str
    missing: int
    given: tuple[str, ...]


class BoardSilence(Struct, frozen=True):
    """A silence of messages. `begin`: when it begins, null where it holds already."""

    key: str
    matches: str
    author: str
    reason: str
    begin: datetime | None
    until: datetime


class BoardHeld(Struct, frozen=True):
    """A message that is not sent while a silence, a mute time or another alert holds it. `why` says which."""

    key: str
    receiver: str
    title: str
    severity: str
    why: str
    since: datetime


class BoardTarget(Struct, frozen=True):
    """The messages of one target: those that wait, with why, and those that were given up."""

    key: str
    target: str
    tone: Tone
    pending: int
    given_up: int
    oldest: datetime | None
    why: str


class BoardHeadline(Struct, frozen=True):
    """The worst thing of all in a few words, its circumstances, and the answer of `ksctl status`."""

    tone: Tone
    text: str
    detail: str
    answer: str
    at: datetime | None = None


class Board(Struct, frozen=True):
    """Everything that a board shows. `interval`: seconds between two ticks; null if no run has ticked."""

    as_of: datetime | None
    now: datetime
    interval: float | None
    mode: str
    headline: BoardHeadline
    troubles: tuple[BoardTrouble, ...] = ()
    firings: tuple[BoardFiring, ...] = ()
    """What waits for an acknowledgement."""
    approvals: tuple[BoardApproval, ...] = ()
    """What waits for a signature; `GET /v1/approvals` has what it changes, and the text that is signed."""
    incidents: tuple[BoardIncident, ...] = ()
    scopes: tuple[BoardScope, ...] = ()
    locks: tuple[BoardLock, ...] = ()
    ways_back: tuple[tuple[str, str], ...] = ()
    """Scope and progress of each way back after a reset, on which the gate lets bots open less, or nothing."""
    venues: tuple[BoardVenue, ...] = ()
    switches: tuple[BoardSwitch, ...] = ()
    silences: tuple[BoardSilence, ...] = ()
    held: tuple[BoardHeld, ...] = ()
    targets: tuple[BoardTarget, ...] = ()
    """The targets of messages for which some wait or were given up."""
    policies: tuple[tuple[str, str], ...] = ()
    """What the run is, and the set in force, as names with their values."""
    pending: tuple[str, ...] = ()
    part: str = ""
    """Which part of the book it shows, in one sentence; empty for all of it."""
    format: str = BOARD_FORMAT

    @property
    def age(self) -> float | None:
        """Seconds between the data and the moment at which it was read; null if no run has ticked."""
        return None if self.as_of is None else (self.now - self.as_of).total_seconds()


encode_board = msgspec.json.Encoder(decimal_format="string").encode
decode_board = msgspec.json.Decoder(Board).decode


def is_lost(age: float | None, interval_seconds: float | None) -> bool:
    """Whether data of this age is too old to go by: older than two intervals, dated ahead by more, or not there."""
    if age is None or interval_seconds is None:
        return True
    return abs(age) > 2 * interval_seconds


class BoardFacts(Struct, frozen=True):
    """What boards are made of, read once for everybody. `firings`: those that wait for an acknowledgement."""

    status: StoreStatus
    firings: tuple[OpenPage, ...]
    source: SourceState | None


def read_facts(store: Store, now: datetime, tick_now: datetime, sign: bytes | None) -> BoardFacts:
    """Read everything once; arguments and errors are those of `store_status`."""
    unacknowledged = read_routing(store.live(ROUTING)).unacknowledged
    return BoardFacts(store_status(store, now, 0, tick_now, sign), tuple(unacknowledged), source_state(store))


def read_board(store: Store, now: datetime, tick_now: datetime, sign: bytes | None) -> Board:
    """The board of the whole book; arguments and errors are those of `store_status`."""
    facts = read_facts(store, now, tick_now, sign)
    return board_of(facts.status, facts.firings, approvals_in(facts.source, facts.status.view))


def board_of(
    status: StoreStatus, unacknowledged: Iterable[OpenPage] = (), waiting: Iterable[WaitingApproval] = ()
) -> Board:
    """The board of a status. `unacknowledged`: the firings that wait for an acknowledgement; `waiting`: what waits for
    approvals."""
    view = status.view
    locks = tuple(_locks(status))
    scopes = () if view is None else tuple(sorted(map(_scope_of(status), view.machines), key=_scope_order))
    incidents = tuple(map(_incident, status.closings))
    venues = () if view is None else tuple(_venues(view))
    switches = tuple(_switches(status))
    troubles = tuple(sorted(_troubles(status), key=lambda each: TONES.index(each.tone)))
    headline = _headline(status, scopes, incidents, troubles, venues, switches, locks)
    mode = "no run" if view is None else "acts" if view.live else "observes only"
    if status.is_drill:
        headline, mode = replace(headline, text=f"DRILL: {headline.text}"), f"DRILL, {mode}"
    return Board(
        as_of=None if view is None else view.as_of,
        now=status.now,
        interval=None if view is None else view.interval,
        mode=mode,
        headline=headline,
        troubles=troubles,
        firings=tuple(map(_firing, unacknowledged)),
        approvals=tuple(
            BoardApproval(each.key, each.scope, one_line(each.title), each.missing, each.given) for each in waiting
        ),
        incidents=incidents,
        scopes=scopes,
        locks=locks,
        ways_back=tuple((it.scope, one_line(it.progress)) for it in (view.recoveries or () if view else ())),
        venues=venues,
        switches=switches,
        silences=tuple(
            BoardSilence(each.id, each.matches, each.author, one_line(each.reason), each.begin, each.until)
            for each in status.silences
        ),
        held=tuple(
            BoardHeld(
                f"{each.receiver}/{each.alert}",
                each.receiver,
                one_line(each.title),
                each.severity,
                f"{each.why} by {one_line(each.by)}",
                each.since,
            )
            for each in status.held
        ),
        targets=tuple(_targets(status)),
        policies=tuple(_policies(status)),
        pending=tuple(
            f"{each.kind} {each.scope or 'portfolio'} by {each.author or 'unknown'}" for each in status.pending
        ),
    )


# Scopes


class _ScopeReader:
    """Words the status of a policy on a scope."""

    def __init__(self, status: StoreStatus) -> None:
        self._now = status.now
        ways_back = () if status.view is None else status.view.recoveries or ()
        self._ways_back = {(each.policy, each.scope): each.progress for each in ways_back}

    def __call__(self, machine: MachineStatus) -> BoardScope:
        bars = tuple(sorted(map(_bar, machine.triggers), key=lambda each: (BAR_ORDER.index(each.state), each.name)))
        return BoardScope(
            key=f"{machine.policy}/{machine.scope}",
            scope=one_line(machine.scope),
            policy=machine.policy,
            tone=_tone_of(machine, bars),
            stage=_stage(machine),
            since=machine.fired_at if machine.level else None,
            decision=machine.decision if machine.level else None,
            note="; ".join(_notes(machine, self._now, self._ways_back.get((machine.policy, machine.scope)))),
            bars=bars,
        )


_scope_of = _ScopeReader
BAR_ORDER: Final[tuple[BarState, ...]] = ("true", "unknown", "near", "young", "clear")


def _tone_of(machine: MachineStatus, bars: Iterable[TriggerBar]) -> Tone:
    states = {each.state for each in bars}
    if machine.level and machine.mode == "enforce":
        return "alarm"
    if machine.level or machine.waiting is not None or machine.paused is not None or states & {"true", "unknown"}:
        return "warning"
    return "near" if "near" in states else "calm"


def _stage(machine: MachineStatus) -> str:
    observed = "" if machine.mode == "enforce" else " (observed only)"
    if machine.breaker not in (None, "active"):
        return f"breaker {machine.breaker}{observed}"
    if machine.stage is None:
        return f"normal{observed}"
    latched = "" if machine.latched else ", not latched"
    return f"{machine.stage}, level {machine.level}{latched}{observed}"


def _notes(machine: MachineStatus, now: datetime, way_back: str | None) -> Iterator[str]:
    """What else is in force on a scope. `way_back`: where it is on its way back after a reset, if it is on one."""
    if machine.paused is not None:
        yield f"PAUSED until {instant(machine.paused.until)} by {machine.paused.author or 'unknown'}"
    if machine.disabled is not None:
        yield f"disabled until {instant(from_micros(machine.disabled.until))}: {one_line(machine.disabled.reason)}"
    if machine.waiting is not None:
        waited_for = " and ".join(machine.waiting.accounts) or "the account of the scope"
        yield f"{machine.waiting.stage} fired, and its close waits for {waited_for}"
    if machine.suspected is not None and (machine.suspected.until is None or machine.suspected.until > now):
        yield f"locked on suspicion of {machine.suspected.stage} until {instant(machine.suspected.until)}"
    if machine.no_reset_before is not None and machine.no_reset_before > now:
        yield f"no reset before {instant(machine.no_reset_before)}"
    if machine.reset_approvals is not UNSET:
        needs, given = machine.reset_approvals.needed, " and ".join(machine.reset_approvals.approved)
        yield one_line(f"a reset needs {count_of(needs, 'approval')}; approved by {given or 'nobody'}")
    if way_back is not None:
        yield f"way back: {one_line(way_back)}"


def _scope_order(scope: BoardScope) -> tuple[int, str, str]:
    """By tone, and then by name: an order by numbers would move rows under the finger of whoever reads them."""
    return TONES.index(scope.tone), scope.scope, scope.policy


def _bar(trigger: TriggerStatus) -> TriggerBar:
    reached = trigger.reached
    drawn = None if reached is None or trigger.truth is None else round(min(reached, 1.0), 3)
    if trigger.truth is None:
        state: BarState = "young" if trigger.is_young else "unknown"
    elif trigger.truth:
        state = "true"
    else:
        state = "near" if reached is not None and reached >= NEAR else "clear"
    value = interval(trigger.value, trigger.unit) if trigger.threshold is not None else state
    return TriggerBar(
        trigger.name, state, (trigger.threshold or "").replace(">=", "≥").replace("<=", "≤"), value, drawn
    )


def without_values(scope: BoardScope) -> BoardScope:
    """The scope without what moves at each tick: two that are equal so differ in the values of their bars only."""
    return replace(scope, bars=tuple(replace(it, value="", reached=it.reached and 0.0) for it in scope.bars))


def _firing(page: OpenPage) -> BoardFiring:
    announcement = page.announcement
    title = decode_message(announcement.content).title
    decision = announcement.decision or announcement.id
    return BoardFiring(
        f"{decision}/{page.number}", decision, page.number, announcement.attributes.scope, one_line(title),
        from_micros(page.at),
    )  # fmt: skip


# Incidents, locks, venues and switches


def _incident(closing: OpenClosing) -> BoardIncident:
    positions = [each for each in closing.result.positions if each.account == closing.account]
    read = [each for each in positions if each.left is not None]
    done = sum(each.left is not None and each.left <= each.target for each in read)
    outcomes = Counter(order.outcome for order in closing.result.orders if order.account == closing.account)
    unmet = unmet_positions(closing)
    names = ", ".join(f"{each.contracts.normalize():f} {each.symbol}" for each in (closing.left or ())[:4])
    return BoardIncident(
        key=f"{closing.decision}/{closing.account}",
        decision=closing.decision,
        scope=closing.scope,
        account=closing.account,
        what=closing.result.standing,
        done=done if read else None,
        of=len(positions),
        orders=", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no order sent yet",
        left=names or ("unknown" if unmet is None else count_of(unmet, "position")),
    )


def _targets(status: StoreStatus) -> Iterator[BoardTarget]:
    """The worst first: those that gave up, then those whose messages wait."""
    by_target: dict[str, list[RouteCount]] = {}
    for each in status.notifications:
        by_target.setdefault(each.target, []).append(each)
    found = []
    for target, counts in by_target.items():
        pending, given_up = sum(each.pending for each in counts), sum(each.given_up for each in counts)
        if not pending and not given_up:
            continue
        oldest = min((each.oldest for each in counts if each.oldest is not None), default=None)
        why = next((one_line(each.error) for each in counts if each.error), "")
        tone: Tone = "alarm" if given_up else "warning" if why else "near"
        at = None if oldest is None else from_micros(oldest)
        found.append(BoardTarget(target, one_line(target), tone, pending, given_up, at, why))
    yield from sorted(found, key=lambda each: (TONES.index(each.tone), each.target))


def _locks(status: StoreStatus) -> Iterator[BoardLock]:
    for lock in status.locks:
        if lock.locked:
            only = f"only {parts_text(lock.only)}: " if lock.only else ""
            reason = f"{only}{lock.reason}"
            yield BoardLock(lock.file, lock.scope or "unknown", lock.mode or "all", reason, lock.until, _end_of(lock))


def _end_of(lock: LockView) -> str:
    if not lock.ordered:
        return "until a runner keeps the file alive"
    return "until it is lifted" if lock.until is None else "until"


def _venues(view: RunnerView) -> Iterator[BoardVenue]:
    by_venue: dict[str, list[AccountView]] = {}
    for account in view.accounts:
        by_venue.setdefault(account.venue, []).append(account)
    streams = {each.account: each for each in view.streams}
    is_long = len(view.accounts) > ACCOUNTS_SHOWN
    found = []
    for venue, accounts in by_venue.items():
        wrong = [each for each in accounts if each.quality != "ok"]
        states = Counter(streams[each.account].state for each in accounts if each.account in streams)
        tone: Tone = "warning" if wrong or set(states) & {"stale", "lost", "ended"} else "calm"
        found.append(
            BoardVenue(
                venue, venue, tone, len(accounts) - len(wrong), len(accounts),
                ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
                tuple(map(_account, wrong if is_long else accounts)),
            )
        )  # fmt: skip
    yield from sorted(found, key=lambda each: (TONES.index(each.tone), each.venue))


def _account(account: AccountView) -> BoardAccount:
    why = "" if account.quality == "ok" else f"{account.quality}: {one_line(account.reason or 'no reason given')}"
    positions = "positions unknown" if account.positions is None else count_of(account.positions, "position")
    return BoardAccount(account.account, account.armed, money(account.equity, account.currency), positions, why)


def _switches(status: StoreStatus) -> Iterator[BoardSwitch]:
    yield from sorted((_switch(each, status.now) for each in status.switches), key=lambda it: TONES.index(it.tone))
    for timer in () if status.view is None else status.view.timers:
        yield _timer(timer, status.now)


def _switch(switch: SwitchView, now: datetime) -> BoardSwitch:
    late = (now - switch.checked_at).total_seconds()
    heard = "never heard" if switch.age is None else f"last heard {max(0.0, switch.age):.0f} s before its last check"
    detail = f"{switch.watches} {switch.beats}; {heard}; on silence: {switch.on_silence}"
    if late > LATE_CHECKS * switch.check_every:
        state = f"UNKNOWN, was {switch.phase}: nobody has checked it since {instant(switch.checked_at)}"
        return BoardSwitch(f"switch/{switch.name}", switch.name, "alarm", state, None, detail)
    tone: Tone = "alarm" if switch.phase == "fired" else "calm" if switch.phase == "armed" else "warning"
    state = switch.phase if switch.why is None else f"{switch.phase}: {switch.why}"
    if switch.phase == "disarmed" and switch.disarmed_until is not None:
        state = f"disarmed until {instant(switch.disarmed_until)}"
    until = None if switch.fires_in is None else switch.checked_at + timedelta(seconds=switch.fires_in)
    if switch.age is not None and switch.age > switch.timeout / 2 and tone == "calm":
        tone = "near"
    return BoardSwitch(f"switch/{switch.name}", switch.name, tone, state, until, detail)


def _timer(timer: TimerView, now: datetime) -> BoardSwitch:
    is_expired = timer.until is not None and timer.until <= now
    tone: Tone = "calm" if timer.state == "armed" and not is_expired else "warning"
    state = "armed at the venue" if timer.state == "armed" else timer.state.upper()
    detail = timer.why or f"timer of {timer.switch}, refreshed by the runner"
    return BoardSwitch(f"timer/{timer.account}", timer.account, tone, state, timer.until, detail)


# What is wrong


def _troubles(status: StoreStatus) -> Iterator[BoardTrouble]:
    view, runner = status.view, status.runner
    if not runner.is_alive:
        what = "NOT TICKING" if runner.is_process_running else "NOT RUNNING"
        yield BoardTrouble("runner", "alarm", f"the runner is {what}: {runner.why}")
    if view is None:
        yield BoardTrouble("view", "alarm", f"stages are unknown: {status.view_problem}")
    problems = (() if view is None else view.problems) + status.problems
    alerts = {each.text: each for each in status.active_alerts}
    for text in dict.fromkeys(problems):
        if text not in alerts:
            yield BoardTrouble(f"problem/{text}", "warning", one_line(text))
    for each in status.active_alerts:
        tone: Tone = "alarm" if each.severity == "page" else "warning" if each.severity == "warning" else "near"
        yield BoardTrouble(f"alert/{each.key}", tone, one_line(each.text), each.since)
    for orphan in () if view is None else view.orphans:
        text = f"{orphan.stage or 'a stage'} of {orphan.policy} on {orphan.scope} is latched, and its policy is gone"
        yield BoardTrouble(f"orphan/{orphan.policy}/{orphan.scope}", "alarm", one_line(text))
    if any(each.given_up for each in status.notifications):
        given_up = count_of(sum(each.given_up for each in status.notifications), "message")
        yield BoardTrouble("given-up", "alarm", f"{given_up} could not be delivered: given up")


def _headline(
    status: StoreStatus,
    scopes: tuple[BoardScope, ...],
    incidents: tuple[BoardIncident, ...],
    troubles: tuple[BoardTrouble, ...],
    venues: tuple[BoardVenue, ...],
    switches: tuple[BoardSwitch, ...],
    locks: tuple[BoardLock, ...],
) -> BoardHeadline:
    """The first that is there, in the order of what a person must know first."""
    words = answer(status)
    if not status.runner.is_alive or status.view is None:
        text = "No runner watches" if status.runner.liveness == "gone" else "The runner does not tick"
        detail = "; ".join(each.text for each in troubles[:2])
        return BoardHeadline("alarm", text, detail, words, None if status.view is None else status.view.as_of)
    fired = sorted((it for it in scopes if it.tone == "alarm"), key=lambda it: it.since or status.now, reverse=True)
    if fired:
        return _fired(fired, incidents, words)
    if incidents:
        first = incidents[0]
        text = f"Closing {first.scope}" if len(incidents) == 1 else f"{len(incidents)} closes in progress"
        return BoardHeadline("alarm", text, _progress(incidents), words)
    for text, found in (
        ("A dead man's switch has fired", [f"{it.name}: {it.state}" for it in switches if it.tone == "alarm"]),
        ("Needs a person", [it.text for it in troubles if it.tone == "alarm"]),
    ):
        if found:
            return BoardHeadline("alarm", text, "; ".join(found[:3]), words)
    return _watching(scopes, troubles, venues, locks, words)


def _fired(fired: list[BoardScope], incidents: tuple[BoardIncident, ...], words: str) -> BoardHeadline:
    first = fired[0]
    name = first.stage.partition(",")[0]
    text = f"{name} fired on {first.scope}" if len(fired) == 1 else f"Stages fired on {len(fired)} scopes"
    others = "" if len(fired) == 1 else f"the newest: {name} on {first.scope}; "
    rest = _progress(incidents) if incidents else "no close in progress; it stays latched until a reset"
    return BoardHeadline("alarm", text, f"{others}{rest}", words, first.since)


def _progress(incidents: tuple[BoardIncident, ...]) -> str:
    done, of = sum(each.done or 0 for each in incidents), sum(each.of for each in incidents)
    unread = sum(each.done is None for each in incidents)
    unknown = f", unknown on {count_of(unread, 'account')}" if unread else ""
    return f"{done} of {count_of(of, 'position')} at the target{unknown}"


def _watching(
    scopes: tuple[BoardScope, ...],
    troubles: tuple[BoardTrouble, ...],
    venues: tuple[BoardVenue, ...],
    locks: tuple[BoardLock, ...],
    words: str,
) -> BoardHeadline:
    bars = [(it, bar) for it in scopes for bar in it.bars]
    true = [f"{bar.name} on {it.scope}" for it, bar in bars if bar.state == "true"]
    unread = [f"{it.account}: {it.why}" for venue in venues for it in venue.accounts if it.why]
    unknown = [f"{bar.name} on {it.scope}" for it, bar in bars if bar.state == "unknown"]
    other = [it.text for it in troubles if it.tone == "warning"]
    for text, found in (
        ("A trigger is true", true),
        ("An account cannot be read", unread),
        ("Trading is locked", [f"{each.scope}: {each.reason}" for each in locks]),
        ("A trigger is unknown", unknown),
        ("Something is wrong", other),
        ("A scope needs a look", [f"{it.scope}: {it.note or it.stage}" for it in scopes if it.tone == "warning"]),
    ):
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            return BoardHeadline("warning", text, f"{'; '.join(found[:3])}{more}", words)
    near = [(bar.reached or 0.0, f"{bar.name} on {it.scope}") for it, bar in bars if bar.state == "near"]
    if near:
        share, name = max(near)
        return BoardHeadline("near", f"{name} at {share:.0%}", f"{count_of(len(near), 'trigger')} near", words)
    return BoardHeadline("calm", "All quiet", words.partition(": ")[2], words)


def _policies(status: StoreStatus) -> Iterator[tuple[str, str]]:
    view = status.view
    if view is None:
        return
    files = {"changed": ", THE FILES DIFFER", "broken": ", THE FILES DO NOT COMPILE"}.get(status.policy_files or "", "")
    yield "set in force", f"{view.policy_set[:19]}{files}"
    if status.source is None:
        yield "files", ", ".join(view.policies) or "given in process"
    else:
        yield from ((name.lower() or "also", one_line(text)) for name, text in source_facts(status.source))
    for each in view.needs_start or ():
        yield "needs a start", one_line(each)
    process = "none" if status.runner.pid is None else f"pid {status.runner.pid}"
    yield "runner", f"{process}, since {instant(view.started_at)}, every {view.interval:g} s"
