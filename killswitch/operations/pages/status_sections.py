"""Sections of `ksctl status`: manual closes, flags, heartbeats, switches, push streams, timers and suspensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import combinations

from killswitch.accounts.poll.push_listener import StreamView
from killswitch.graph.limits import LimitAmount, LimitsRule
from killswitch.graph.nodes import CatastropheStopRule
from killswitch.graph.wording import percent, span
from killswitch.incident.record.close_causes import manual_close_text
from killswitch.model.flags import Flag
from killswitch.model.instant import from_micros
from killswitch.model.lock_parts import parts_text
from killswitch.model.snapshot import WrittenLock
from killswitch.operations.lifting import ScopeHold
from killswitch.operations.pages.outcome import result_lines
from killswitch.operations.pages.wording import ago
from killswitch.operations.status import HeartbeatView, OperatorCloseResult
from killswitch.planning.catastrophe_stops import AccountStops
from killswitch.planning.exposures import Exposures, has_realised_pnl
from killswitch.planning.operator.restatement import KeptChange
from killswitch.planning.recovery.recoveries import RecoveryView
from killswitch.planning.scopes.trigger_status import GroupStatus, MachineStatus
from killswitch.render.document import Facts, Items, Page, Section, Table, section
from killswitch.render.formats import count_of, exact, instant, money
from killswitch.runner.dead_man.catastrophe_stops import StopView
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.shadow.record import ShadowRecord
from killswitch.watcher.watch import SwitchView

SWITCH_COLUMNS = ("switch", "watches", "phase", "last heartbeat", "progress", "fires in", "on silence", "accounts")

HELD = "Held by hand (`ksctl resume|unlock|reset SCOPE --id DECISION --reason ''` ends one; a reset accepts the loss)"
MOST_NAMES = 6
"""Maximum accounts of a `Limits` document that are named."""

LATE_CHECKS = 5
"""A view that is older than this many checks of its switch is of a watcher that hangs, or is gone."""


def manual_closes(closes: Sequence[OperatorCloseResult]) -> Iterator[Section]:
    """One row per manual close, and the rest of its result below the table."""
    rows, details = [], []
    for each in closes:
        first, *more = result_lines(each.result)
        what = f"{manual_close_text(each.cause)}: {each.scope} ({each.reason or 'no reason'})"
        rows.append((instant(each.at), each.author or "unknown", what, first, each.decision))
        details += [f"{each.decision}: {line}" for line in more]
    head = ("when", "by", "what", "result", "decision")
    is_any_of_dead_man = any(each.cause == "dead-man" for each in closes)
    title = "Closes by hand and by dead-man's switches" if is_any_of_dead_man else "Closes by hand"
    yield from section(title, Table(head, tuple(rows), ids=(4,)), Items(tuple(details)))


def manual_locks(held: Sequence[WrittenLock]) -> Iterator[Section]:
    """One row per lock by hand in force: of a lock, a halt, a pause or a close."""
    rows = tuple(
        (
            each.scope if not each.only else f"{each.scope}: {parts_text(each.only)}", each.command or "lock or close",
            each.author or "unknown", each.reason or "no reason", instant(each.since), each.decision,
        )
        for each in held
    )  # fmt: skip
    yield from section(HELD, Table(("scope", "what", "by", "why", "since", "decision"), rows, ids=(5,)))


def scope_holds(holds: Sequence[ScopeHold]) -> Iterator[Section]:
    """One row per lock by hand that the record has in force, with its end where it has one."""
    rows = tuple(
        (
            each.scope, each.what, each.author or "unknown", each.reason or "no reason", instant(each.since),
            "it is ended" if each.until is None else instant(each.until), each.decision,
        )
        for each in holds
    )  # fmt: skip
    yield from section(HELD, Table(("scope", "what", "by", "why", "since", "until", "decision"), rows, ids=(6,)))


def account_limits(rules: Sequence[LimitsRule], accounts: Iterable[str]) -> Iterator[Section]:
    """One row per `Limits` document that limits one of the accounts, and the accounts that no document takes in.

    Nothing where there is no document: no bot asks the gate then.
    """
    names, limited = tuple(accounts), {name for each in rules for name in each.accounts}
    rows = []
    for each in rules:
        mine = [name for name in names if name in each.accounts]
        if mine:
            rows.append((_first_names(mine), each.name, ", ".join(limit_texts(each)) or "none"))
    without = [name for name in names if name not in limited]
    note = (f"No `Limits` for {_first_names(without)}: the gate lets no entry pass there",) if rows and without else ()
    yield from section("Limits of entries", Table(("accounts", "document", "at most"), tuple(rows)), Items(note))


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def limit_texts(rule: LimitsRule) -> Iterator[str]:
    """Each limit of the document by its key, in the order in which the gate names them."""
    if rule.banned is not None:
        yield f"banned {' '.join(rule.banned)}"
    if rule.sessions:
        yield f"session {' '.join(each.name for each in rule.sessions)}"
    yield from (f"maintenance {instant(from_micros(it.begins))} to {instant(from_micros(it.ends))}"
                for it in rule.maintenance)  # fmt: skip
    if rule.maintenance_in:
        yield f"maintenance_in {' '.join(each.name for each in rule.maintenance_in)}"
    yield from (f"price_band {percent(each.at_most)}{_of_symbols(each.symbols)}" for each in rule.price_band)
    for key, sizes in (("order_size", rule.order_size), ("position_size", rule.position_size)):
        yield from (f"{key} {_amount(each.at_most)}{_of_symbols(each.symbols)}" for each in sizes)
    day = rule.day
    known: tuple[tuple[str, str | None], ...] = (
        ("gross", _amount(rule.gross)),
        ("leverage", None if rule.leverage is None else f"{rule.leverage.normalize():f}"),
        ("concentration", _amount(rule.concentration)),
        ("free_margin at least", _amount(rule.free_margin)),
        ("day.loss", None if day is None else _amount(day.loss)),
        ("day.trades", None if day is None or day.trades is None else str(day.trades)),
        ("day.fees", None if day is None or day.fees is None else f"{day.fees.normalize():f}"),
        ("orders_per_minute", None if rule.orders_per_minute is None else str(rule.orders_per_minute)),
        ("latency", None if rule.latency is None else span(rule.latency)),
        ("spread", None if rule.spread is None else percent(rule.spread)),
    )
    yield from (f"{key} {text}" for key, text in known if text is not None)


def _amount(limit: LimitAmount | None) -> str | None:
    if limit is None:
        return None
    return percent(limit.value) if limit.unit == "percent" else f"{limit.value.normalize():f} {limit.currency}"


def _of_symbols(symbols: Sequence[str] | None) -> str:
    return "" if symbols is None else f" ({' '.join(symbols)})"


def unexplained_changes(changes: Sequence[KeptChange]) -> Iterator[Section]:
    """One row per change of equity without an explanation, and what each scope counts it as."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for each in sorted(changes, key=lambda it: (it.at, it.id), reverse=True):
        treatment: str = "money that moved" if each.counts_as == "transfer" else each.counts_as
        counts_as = f"{treatment}, determined by an operator" if each.determined else treatment
        key = (each.id, each.account, instant(each.at), money(each.amount, each.currency), counts_as)
        lines.setdefault(key, []).append(f"{each.policy} on {each.scope}")
    rows = tuple((*key, ", ".join(found)) for key, found in lines.items())
    head = ("change", "account", "at", "amount", "counts as", "for")
    title = "Unexplained changes of equity (`ksctl restate CHANGE --as loss|flow --reason ''` settles one)"
    yield from section(title, Table(head, rows))


def operator_flags(flags: Sequence[Flag]) -> Iterator[Section]:
    """One row per flag in force."""
    rows = tuple(
        (
            each.name, each.scope, "it is cleared" if each.until is None else instant(each.until), instant(each.at),
            each.author or "unknown", each.reason or "no reason",
        )
        for each in flags
    )  # fmt: skip
    yield from section("Flags", Table(("flag", "scope", "until", "set", "by", "reason"), rows))


def paused_policies(pauses: Sequence[Flag], machines: Sequence[MachineStatus]) -> Iterator[Section]:
    """One row per paused policy, with the scopes on which it fires nothing new."""
    rows = []
    for each in pauses:
        scopes = ", ".join(machine.scope for machine in machines if machine.policy == each.policy)
        by = (each.author or "unknown", each.reason or "no reason")
        rows.append((each.policy or "", scopes or "none: it does not run", instant(each.until), instant(each.at), *by))
    title = "Paused policies (`ksctl resume policy/NAME --reason ''` ends a pause)"
    yield from section(title, Table(("policy", "scopes", "until", "since", "by", "reason"), tuple(rows)))


def ways_back(views: Sequence[RecoveryView]) -> Iterator[Section]:
    """One row per way back after a reset: its step, what it allows, and what the next step waits for."""
    rows = []
    for each in views:
        phase = f"step {each.step} of {each.steps}" if each.phase == "ramp" else each.phase
        attention = "closer attention" if each.is_monitored else "-"
        most = "" if each.positions is None else f", at most {count_of(each.positions, 'position')}"
        size = "nothing" if not each.share else f"{float(each.share) * 100:.3g}% of the limits{most}"
        rows.append((each.scope, each.policy, phase, instant(each.since), size, each.progress, attention, each.plan))
    head = ("scope", "policy", "phase", "since", "may open", "progress", "monitoring", "plan")
    yield from section("Way back after a reset", Table(head, tuple(rows), expendable=(7, 6)))


def sets_in_shadow(shadows: Sequence[ShadowRecord]) -> Iterator[Section]:
    """One row per policy set in shadow, and why it was not evaluated for a time."""
    rows = tuple(
        (
            each.id, each.origin.ref or each.origin.commit or each.origin.source, each.reason, instant(each.begun_at),
            "it is ended" if each.until is None else instant(each.until), each.problem or "-",
        )
        for each in shadows
    )  # fmt: skip
    head = ("set", "from", "is", "since", "until", "last problem")
    yield from section("Sets in shadow (`ksctl shadow report` compares)", Table(head, rows, ids=(0,)))


def bot_heartbeats(heartbeats: Sequence[HeartbeatView], now: datetime) -> Iterator[Section]:
    """One row per name, with the age that policies read."""
    rows = tuple(
        (each.name, ago(each.counts_from, now), ago(each.at, now), "-" if each.progress is None else str(each.progress))
        for each in heartbeats
    )
    yield from section("Heartbeats", Table(("name", "counts from", "last sent", "progress"), rows))


def exposure_table(found: Exposures | None) -> Iterator[Section]:
    """Exposure and P&L of the portfolio, and by account, strategy and asset."""
    if found is None:
        return
    title = f"Exposure and P&L in {found.currency or 'unknown currency'} as of {instant(found.as_of)}"
    profit = "" if found.profit is None else f" (profit of the portfolio: {_profit_since(found.profit)})"
    yield from section(f"{title}{profit}", parts_table(found))


def _profit_since(profit: Decimal) -> str:
    return f"{profit:+.2%} of its start, or of its last reset by an operator"


def parts_table(found: Exposures) -> Table:
    """One row for each part of the book. What an older version has stored has realised P&L of strategies only."""
    has_realised = any(has_realised_pnl(each) for each in found.parts)
    rows = []
    for each in found.parts:
        reasons = dict.fromkeys(filter(None, (each.unknown, each.realised_unknown)))
        realised = (money(each.realised) if has_realised_pnl(each) else "-",) if has_realised else ()
        amounts = (money(each.gross), money(each.net), money(each.unrealised), *realised)
        rows.append((each.of, each.name, *amounts, "; ".join(reasons) or "-"))
    head = ("of", "name", "gross", "net", "unrealised P&L", *(("realised P&L",) if has_realised else ()), "unknown")
    if all(row[-1] == "-" for row in rows):
        return Table(head[:-1], tuple(row[:-1] for row in rows))
    return Table(head, tuple(rows), expendable=(len(head) - 1,))


def push_streams(streams: Sequence[StreamView], now: datetime) -> Iterator[Section]:
    """The push stream of each account: the last message, and why there is none."""
    yield from section("Streams", Facts(tuple((each.account, _stream(each, now)) for each in streams)))


def _stream(stream: StreamView, now: datetime) -> str:
    last_message = (
        "no message received yet" if stream.heard_at is None else f"last message {_when(stream.heard_at, now)}"
    )
    match stream.state:
        case "heard":
            return last_message if stream.why is None else f"{last_message}; interrupted a moment ago: {stream.why}"
        case "opening":
            return f"opening, {last_message}"
        case "stale":
            return f"STALE, {last_message}"
        case "lost":
            return f"LOST: {stream.why or 'no reason given'}; {last_message}"
        case "ended":
            return f"GIVEN UP: {stream.why or 'no reason given'}; {last_message}"


def dead_man_timers(timers: Sequence[TimerView], now: datetime) -> Iterator[Section]:
    """The dead-man timer of each account: its expiry, its last refresh, and why it is not refreshed."""
    rows = tuple((each.account, f"{_timer(each, now)} (by {each.switch})") for each in timers)
    yield from section("Dead-man timers", Facts(rows))


def _timer(timer: TimerView, now: datetime) -> str:
    until = "an unknown time" if timer.until is None else _when(timer.until, now)
    is_expired = timer.until is not None and timer.until <= now
    why = "" if timer.why is None else f"; {timer.why}"
    match timer.state:
        case "armed":
            refreshed = "" if timer.refreshed_at is None else f", refreshed {_when(timer.refreshed_at, now)}"
            return f"armed until {until}{', EXPIRED' if is_expired else ''}{refreshed}{why}"
        case "off":
            return "OFF" if timer.why is None else f"OFF: {timer.why}"
        case "unknown":
            return f"UNKNOWN whether it {'ran' if is_expired else 'runs'}, until {until} at the latest{why}"


def catastrophe_stops(stops: Sequence[StopView]) -> Iterator[Section]:
    """One row per position that a CatastropheStop covers: its trigger, what rests there, and why something is not."""
    rows = tuple(
        (
            each.account, each.symbol or "-", each.side or "-", exact(each.contracts), exact(each.covered),
            exact(each.trigger, "-"), each.why or "-",
        )
        for each in stops
    )  # fmt: skip
    head = ("account", "symbol", "side", "contracts", "covered", "trigger", "without a stop because")
    yield from section("Catastrophe stops", Table(head, rows, expendable=(6,)))


def planned_stops(found: Sequence[AccountStops], rules: Sequence[CatastropheStopRule]) -> Iterator[Section]:
    """What would be placed and cancelled for each position, and which leg of a hedge its stop leaves naked."""
    rows, by_name = [], {rule.name: rule for rule in rules}
    for stops in found:
        if stops.unknown is not None:
            rows.append((stops.account, "-", "-", "-", f"unknown: {stops.unknown}"))
        for line in stops.lines:
            symbol, side = line.key
            changes = [f"cancel {order.id}" for order in line.to_cancel]
            changes += [f"{it.side} {it.amount:f} at {it.trigger_price:f}" for it in line.to_place]
            naked = [
                f"then {each.other_symbol} of {each.other_account} is naked"
                for each in by_name[stops.rule].apart
                if (each.account, each.symbol) == (stops.account, symbol)
            ]
            reasons = [line.problem.why] if line.problem is not None else []
            trigger = exact(line.trigger, "-")
            rows.append((stops.account, f"{side} {symbol}", trigger, "; ".join(changes) or "-",
                         "; ".join((*reasons, *naked)) or "-"))  # fmt: skip
        rows += [(stops.account, order.symbol, "-", f"cancel {order.id}", "no position") for order in stops.leftovers]
    head = ("account", "position", "trigger", "to be done", "remarks")
    yield from section("Catastrophe stops", Table(head, tuple(rows), expendable=(4,)))


def suspended_accounts(accounts: Sequence[str]) -> Iterator[Section]:
    """Accounts on which the broker refuses new orders."""
    rows = tuple((name, "the broker refuses every new order") for name in accounts)
    yield from section("Suspended at the broker", Facts(rows))


def _when(at: datetime, now: datetime) -> str:
    return f"{instant(at)}, {ago(at, now)}"


def switches_page(switches: Sequence[SwitchView], now: datetime, *, is_watching: bool) -> Page:
    """The state of every switch. `is_watching`: whether the watcher of the store is alive."""
    rows = () if is_watching else (("Watcher", "NOT ALIVE: nobody listens, and nothing fires"),)
    armed = sum(each.phase == "armed" for each in switches)
    summary = (f"{armed} of {count_of(len(switches), 'switch')} armed",)
    return Page("Dead man's switches", Facts(rows), summary=summary, sections=tuple(switches_section(switches, now)))


def switches_section(switches: Sequence[SwitchView], now: datetime) -> Iterator[Section]:
    """A row for each switch, and below it what is wrong with its ways."""
    table = Table(SWITCH_COLUMNS, tuple(_switch_row(each, now) for each in switches))
    broken = (f"{each.name}: {way.way}: {way.error}" for each in switches for way in each.ways if way.error is not None)
    fired = (f"{each.name}: {each.why}" for each in switches if each.why is not None)
    yield from section("Dead man's switches", table, Items((*fired, *broken)))


def _switch_row(switch: SwitchView, now: datetime) -> tuple[str, ...]:
    phase = switch.phase.upper() if switch.phase != "armed" else switch.phase
    if switch.phase == "disarmed" and switch.disarmed_until is not None:
        phase = f"{phase} until {instant(switch.disarmed_until)}"
    late = (now - switch.checked_at).total_seconds()
    if late > LATE_CHECKS * switch.check_every:
        phase = f"UNKNOWN since {ago(switch.checked_at, now)}, was {switch.phase}"
    age = "never" if switch.age is None else f"{switch.age + max(0.0, late):.0f} s ago"
    fires = "-" if switch.fires_in is None else f"{max(0.0, switch.fires_in - max(0.0, late)):.0f} s"
    progress = "-" if switch.progress is None else str(switch.progress)
    accounts = ", ".join(switch.accounts) or "none"
    return switch.name, f"{switch.watches} {switch.beats}", phase, age, progress, fires, switch.on_silence, accounts


def correlation_groups(machines: Iterable[MachineStatus], now: datetime) -> Iterator[Section]:
    """The estimated correlation groups of each scope, one row for a group that several policies estimate alike."""
    rows = dict.fromkeys(_group_row(machine.scope, each, now) for machine in machines for each in machine.groups)
    head = ("scope", "group", "together for limits", "surely together", "weakest pair that is together", "estimated")
    yield from section("Correlation groups", Table(head, tuple(rows), expendable=(3, 0)))


def _group_row(scope: str, found: GroupStatus, now: datetime) -> tuple[str, ...]:
    together = [pair for part in found.together for pair in combinations(part, 2)]
    known = {(each.one, each.other): each for each in found.pairs}
    unknown = [pair for pair in together if pair not in known]
    weakest = min((known[pair] for pair in together if pair in known), key=lambda each: each.value, default=None)
    if unknown:
        text = f"{unknown[0][0]} and {unknown[0][1]}: unknown, too few returns"
    elif weakest is None:
        text = "-"
    else:
        low, high = weakest.interval
        span = f"{low:.2f} to {high:.2f}, {weakest.returns} returns"
        text = f"{weakest.one} and {weakest.other}: {weakest.value:.2f} ({span})"
    return scope, found.group, _parts(found.together), _parts(found.apart), text, ago(found.at, now)


def _parts(groups: Sequence[tuple[str, ...]]) -> str:
    return "; ".join(" ".join(each) for each in groups) or "-"
