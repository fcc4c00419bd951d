"""Boards and views of a run, as tests need them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.graph.routing import Escalation, MessageAttributes
from killswitch.incident.notify.message import Message, encode_message
from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.store import ROUTING
from killswitch.operations.board import Board, BoardHeadline
from killswitch.planning.recovery.recoveries import RecoveryView
from killswitch.planning.routing.state import Announcement, OpenPage, RoutingState, encode_routing
from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus
from killswitch.runner.clock import ClockState
from killswitch.runner.status_blob import LIVE_NAME, AccountView, RunnerView, encode_view
from killswitch.source.sync_state import SOURCE_STATE, Head, SourcePlace, SourceRules, SourceState, encode_source
from killswitch.store.sqlite import open_store

AT = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def board(**more: Any) -> Board:
    """A quiet board, read in the moment of its tick."""
    return Board(
        as_of=AT, now=AT, interval=1.0, mode="acts", headline=BoardHeadline("calm", "All quiet", "", ""), **more
    )


def trigger(name: str, value: float, threshold: float, *, truth: bool | None = False) -> TriggerStatus:
    """A drawdown trigger with this value and threshold, as shares."""
    return TriggerStatus(
        name=name, place="p.yaml:1", signal="equity.drawdown", window=900_000_000, unit="fraction",
        value=(value, value), threshold=f">= {threshold:.1%}", headroom=(threshold - value, threshold - value),
        truth=truth, held=truth is True, confirmed=False, true_since=None, unknown_because=None,
    )  # fmt: skip


def machine(scope: str = "account/main", *triggers: TriggerStatus, **more: Any) -> MachineStatus:
    """A policy on a scope in which nothing has fired."""
    fields: dict[str, Any] = {
        "policy": "drawdown", "scope": scope, "mode": "enforce", "level": 0, "stage": None, "fired_at": None,
        "cooldown_until": None, "decision": None, "triggers": triggers or (trigger("fall", 0.01, 0.045),),
    }  # fmt: skip
    return MachineStatus(**(fields | more))


def account(name: str = "main", **more: Any) -> AccountView:
    """An account that was read."""
    fields: dict[str, Any] = {
        "account": name, "venue": "paper", "market": "swap", "currency": "USDT", "armed": True, "quality": "ok",
        "reason": None, "observed_at": None, "equity": Decimal("100000"), "positions": 3,
    }  # fmt: skip
    return AccountView(**(fields | more))


def run_view(as_of: datetime, **more: Any) -> RunnerView:
    """The view of a run with one account and one policy."""
    fields: dict[str, Any] = {
        "owner": "host:1", "started_at": as_of, "as_of": as_of, "ticks": 1, "duration_ms": 3.0, "interval": 1.0,
        "live": True, "policies": ("policies",), "policy_set": "sha256:0123456789ab", "lock_folder": None,
        "union": None, "accounts": (account(),), "machines": (machine(),), "closings": (), "problems": (),
        "clock": ClockState(as_of),
    }  # fmt: skip
    return RunnerView(**(fields | more))


def open_page(number: int, decision: str) -> OpenPage:
    """A firing that escalates, as routing remembers it."""
    message = Message("m" * 20, AT, "fired", "page", "drawdown", "account/main", "close-everything fired", "body")
    attributes = MessageAttributes("fired", "page", "drawdown", "account/main", 3)
    announcement = Announcement(
        f"a{number}", to_micros(AT), attributes, f"alert/{number}", encode_message(message), is_urgent=True,
        escalates=True, decision=decision,
    )  # fmt: skip
    return OpenPage(number, announcement, "root", to_micros(AT), (Escalation(60_000_000, "boss"),))


def put_pages(store_at: Path, *pages: OpenPage) -> None:
    """Leave firings in a store that wait for an acknowledgement."""
    store = open_store(str(store_at))
    try:
        store.put_live(ROUTING, encode_routing(RoutingState(number=len(pages), pages=pages)))
    finally:
        store.close()


def way_back(scope: str = "account/main", since: datetime = AT, **more: Any) -> RecoveryView:
    """A way back whose next step waits for one approval."""
    progress = "step 0 of 1, 25% of the limits: 5s of 5s clean; 1 approval missing for the next step"
    fields: dict[str, Any] = {"approvals_missing": 1, **more}
    return RecoveryView(
        "way-back", "drawdown", scope, "ramp", since, 0, 1, Decimal("0.25"), progress, 5.0, 5.0, **fields
    )  # fmt: skip


def put_source(store_at: Path, head: Head | None = None, *, is_placed: bool = True) -> None:
    """Leave the state of a source named desk, a repository, with this head."""
    place = SourcePlace(ref="refs/heads/main", path="policies") if is_placed else None
    rules = SourceRules(poll=30 * SECOND, loosening_after=4 * HOUR, place=place)
    state = SourceState(source="desk", rules=rules, in_force="sha256:" + "a" * 64, head=head)
    store = open_store(str(store_at))
    try:
        store.put_live(SOURCE_STATE, encode_source(state))
    finally:
        store.close()


def put_view(store_at: Path, view: RunnerView) -> None:
    """Leave a view in a store, as a tick does."""
    store = open_store(str(store_at))
    try:
        store.put_live(LIVE_NAME, encode_view(view))
    finally:
        store.close()
