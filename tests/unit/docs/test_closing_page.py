"""docs/closing.md matches the code of closing: order states, client order ids, rejections, ends and constants."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from itertools import accumulate, repeat
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import pytest
from msgspec.structs import fields

from killswitch.execution.client_order_id import client_order_id
from killswitch.execution.closing_pace import PACE, ClosingPace
from killswitch.execution.decide.ladder import MARKET
from killswitch.execution.decide.target_verdict import TargetAction, evaluate_target
from killswitch.execution.send import order_sender
from killswitch.incident.record.results import DecisionStatus
from killswitch.journal.codec import decode
from killswitch.journal.entries import Entry
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import DETACHED_TRANSITIONS, TRANSITIONS, TargetEvent, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.model.venue import ClientIdRule, RejectReason
from tests.unit.docs.pages import Section, sections

D = Decimal
LONGEST = {"hex": 34, "uuid": 36}
NOT_BY_A_REFUSAL = {"duplicate_client_order_id"}
"""Reject reasons that are journaled as `unknown` and queried."""


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "closing.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> dict[str, Section]:
    return sections(text)


def plain(text: str) -> str:
    return " ".join(text.split())


def measured(value: str) -> float:
    """A number as the page writes it: a count, or seconds."""
    return float(value.removesuffix(" s"))


# Order states


def test_the_table_of_states_is_the_transition_table_of_the_code(page: dict[str, Section]) -> None:
    """Every state with every entry that changes it, and the next state."""
    transitions = {
        TargetState(row["state"].strip("`")): {
            TargetEvent(entry): TargetState(then)
            for entry, then in re.findall(r"`([^`]+)` → `([^`]+)`", row["entry → next state"])
        }
        for row in page["Order states"].tables[0]
    }
    assert transitions == {state: dict(moves) for state, moves in TRANSITIONS.items()}


def test_every_kind_of_journal_entry_has_its_row(page: dict[str, Section]) -> None:
    """In the order of the store's declaration."""
    rows = page["Order states"].tables[1]
    assert [row["entry"].strip("`") for row in rows] == list(get_args(JournalKind))


def test_the_table_of_detached_orders_is_the_transition_table_of_the_code(page: dict[str, Section]) -> None:
    """For each entry whether the order is still queried afterwards."""
    rows = page["Orders of unknown status"].tables[0]
    assert {TargetEvent(row["entry"].strip("`")): row["queried afterwards"] == "yes" for row in rows} == dict(
        DETACHED_TRANSITIONS
    )


# Client order ids


def test_the_client_order_ids_of_the_page_are_those_of_the_code(text: str, page: dict[str, Section]) -> None:
    """For the decision, intent and attempt of the page, by the rule of each row."""
    found = re.search(r"decision `(\w+)`, intent (\d+), attempt (\d+)", plain(text))
    assert found is not None
    rows = page["Client order ids"].tables[0]
    assert {row["the venue accepts"].split("`")[1] for row in rows} == {"plain", "hex", "uuid"}
    for row in rows:
        rule = re.fullmatch(r"`(plain|hex|uuid)`(?:, up to (\d+))?", row["the venue accepts"])
        assert rule is not None
        form = rule[1]
        longest = int(rule[2] or LONGEST[form])
        name = client_order_id(found[1], int(found[2]), int(found[3]), ClientIdRule(form, longest))  # type: ignore[arg-type] # one of the three
        assert row["example"] == f"`{name}`"
        assert len(name) <= longest


def test_the_shortest_client_order_id_of_the_page_is_that_of_the_code(text: str) -> None:
    """14 characters are enough, 13 are not."""
    said = re.search(r"accepts fewer than (\d+) characters is not supported", plain(text))
    assert said is not None
    shortest = int(said[1])
    assert len(client_order_id("d", 0, 1, ClientIdRule("plain", shortest))) == shortest
    with pytest.raises(ValueError, match="too short to be unique"):
        client_order_id("d", 0, 1, ClientIdRule("plain", shortest - 1))


# Rejections


def position_target(target: str) -> PositionTarget:
    return PositionTarget(
        decision="d", account="main", symbol="X", position_side="long", side="sell", target_size=D(target),
        decided=10 - D(target), largest=10 - D(target), reduce_only=True, rank=1, index=0,
    )  # fmt: skip


def refused_target(target: str, reason: str | None, times: int) -> PositionTarget:
    """A target on 10 contracts after `times` consecutive orders without a fill, rejected with `reason`."""
    found = position_target(target)
    for attempt in range(1, times + 1):
        about = {"client_order_id": f"ks{attempt}", "attempt": attempt}
        found.apply(entry("sending", {"amount": str(min(found.decided, found.largest)), "rung": "0"}, about))
        if reason is None:
            found.apply(entry("filled", {"filled": "0"}, about))
            found.apply(entry("verified", {"position": "10", "target": target}, {}))
        else:
            found.apply(entry("rejected", {"reason": reason}, about))
    return found


def entry(kind: JournalKind, data: dict[str, str | None], about: dict[str, object]) -> Entry:
    return decode(JournalEntry(
        "d", kind, datetime(2026, 11, 21, tzinfo=UTC), "main", "X", "long", data=data, **about,  # type: ignore[arg-type] # name and attempt
    ))  # fmt: skip


def next_order(reason: str | None) -> str:
    """The page's term for the order after one that ended with `reason`."""
    once = refused_target("0", reason, 1)
    if next_action(once) is not TargetAction.SEND:
        return "none"
    if once.largest < position_target("0").largest:
        assert (once.largest, once.failed_tries) == (D(5), 0)
        return "half"
    return "the next try" if once.failed_tries else "the same"


def next_action(target: PositionTarget) -> TargetAction:
    return evaluate_target(target, D(10), PositionLedger(), None, attempts=PACE.fruitless_attempts).do


def after_eight(target: str, reason: str | None) -> str:
    """The page's term for the end of a target after eight such orders."""
    words = {TargetAction.SEND: "continues", TargetAction.BLOCKED: "blocked", TargetAction.GIVE_UP: "residual"}
    at_once = next_action(refused_target(target, reason, 1)) is not TargetAction.SEND
    before = next_action(refused_target(target, reason, PACE.fruitless_attempts - 1))
    assert at_once or before is TargetAction.SEND
    return words[next_action(refused_target(target, reason, PACE.fruitless_attempts))] + (" at once" if at_once else "")


def test_every_reject_reason_has_the_consequences_of_the_page(page: dict[str, Section]) -> None:
    """The next order, and how a full close and a trim continue or end after eight in a row."""
    rows = {row["rejected as"].strip("`"): row for row in page["Rejections"].tables[0]}
    reasons = [each for each in get_args(RejectReason) if each not in NOT_BY_A_REFUSAL]
    assert list(rows) == [*reasons, "not rejected, and expired without a fill"]
    for row, reason in zip(rows.values(), [*reasons, None], strict=True):
        assert row["the next order"] == next_order(reason), reason
        assert row["a full close, after eight"] == after_eight("0", reason), reason
        assert row["a trim, after eight"] == after_eight("4", reason), reason


def test_a_rate_limited_order_is_not_counted(text: str) -> None:
    """It uses up neither the client order id nor an attempt nor a try; and eight is the number of the table."""
    assert PACE.fruitless_attempts == 8
    rate_limited = refused_target("0", "rate_limited", 1)
    assert (rate_limited.attempts_without_fill, rate_limited.failed_tries, rate_limited.is_id_used) == (0, 0, False)
    assert "**Not counted:** a rejection because of too many requests" in plain(text)


# Ends


def test_every_end_of_a_close_has_its_row(page: dict[str, Section]) -> None:
    """Every status except those that are no end, those without any order, and suspicions, which close nothing."""
    rows = page["How a close ends"].tables[0]
    others = ("recorded only", "nothing to close", "closing", "locked on suspicion", "suspicion over")
    ends = [each for each in get_args(DecisionStatus) if each not in others]
    assert [row["end"].strip("`") for row in rows] == ends


# Constants


def test_the_constants_of_the_pace_are_those_of_the_code(page: dict[str, Section]) -> None:
    """All of them in order; counts without a unit, all others in seconds."""
    rows = page["Constants"].tables[0]
    assert [row["constant"].strip("`") for row in rows] == [field.name for field in fields(ClosingPace)]
    for row in rows:
        value = getattr(PACE, row["constant"].strip("`"))
        assert measured(row["value"]) == value
        assert row["value"].endswith(" s") is isinstance(value, float), row["constant"]


def test_the_other_constants_are_where_the_page_says(page: dict[str, Section]) -> None:
    """Each by its module and name; those of a breaker are its constructor's defaults."""
    rows = page["Constants"].tables[1]
    assert len({row["constant"] for row in rows}) == len(rows)
    for row in rows:
        module, _, name = row["constant"].strip("`").rpartition(".")
        if module == "ratelimit.breaker.Breaker":
            breaker = import_module("killswitch.ratelimit.breaker").Breaker
            value = inspect.signature(breaker).parameters[name].default
        else:
            value = resolve_name(f"killswitch.{module}.{name}")
        assert measured(row["value"]) == value, row["constant"]


def test_the_numbers_in_the_text_are_those_of_the_tables(text: str) -> None:
    """The text follows from the same constants."""
    words = plain(text)
    waits = [PACE.wait_after(count) for count in range(1, 9)]
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert waits[-1] == PACE.longest_wait
    questions = [*accumulate(repeat(2, 3), lambda wait, by: wait * by, initial=PACE.first_query_interval)]
    assert questions == [0.1, 0.2, 0.4, 0.8]
    chunks = [min(order_sender.FIRST * order_sender.GROWTH**turn, order_sender.LARGEST) for turn in range(4)]
    assert chunks == [10, 100, 320, 320]
    for said in (
        "waits for 0.5, 1, 2 … 30 s",
        "Queries repeat after 0.1, 0.2, 0.4 … 1 s",
        f"{order_sender.FIRST} in the first one and ten times as many in each further one",
        f"in each further one, up to {order_sender.LARGEST}.",
        f"within {order_sender.JOURNAL_WINDOW * 1000:g} ms of each other",
        f"becomes free within {order_sender.LONGEST_BUDGET_WAIT * 1000:g} ms",
        f"at the earliest {PACE.absence_after:g} s after sending",
        f"{PACE.abandon_after / 60:g} minutes after the first query",
        f"cancelled after {PACE.longest_resting:g} s",
        f"a cancel times out after {PACE.cancel_timeout:g} s",
        f"it was requested at most {PACE.longest_snapshot_age:g} s ago",
        f"the decision is at most {PACE.longest_decision_age:g} s old",
        f"{PACE.longest_unprotected:g} s after `unprotected` it does the same",
    ):
        assert said in words, said


def test_without_a_ladder_there_are_two_market_tries_and_then_a_limit(text: str) -> None:
    """As the section on the ladder says."""
    assert [(rung.order, rung.tries) for rung in MARKET] == [("market", 2), ("limit", 1)]
    assert "Without a ladder: two tries at market, then a limit" in plain(text)
