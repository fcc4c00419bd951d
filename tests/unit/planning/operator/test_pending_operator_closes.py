"""An operator close of unreadable accounts: readable accounts are closed at once, the others when they answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import AccountSnapshot, Closing, Event
from killswitch.planning.interpreter import Interpreter
from tests import graphs
from tests.worlds import account, after, operator_event, position, rules, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))
CLOSE = operator_event("close", after(), None, "hand-1")


def up(name: str, contracts: str = "3") -> AccountSnapshot:
    held = [position("BTC", "long", "0", contracts=contracts, entry_price="10", mark_price="10", notional="30")]
    margin = "0" if contracts == "0" else "30"
    return account("1000", held if contracts != "0" else [], name=name, margin_used=margin, instruments=(rules("BTC"),))


def down(name: str) -> AccountSnapshot:
    return account(None, None, name=name, quality="down", reason="503 Service Unavailable")


class Desk:
    """Successive processes on what a store keeps: decisions, and the events that are not consumed."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.pending: list[Event] = []
        self.interpreter = Interpreter(POLICIES)

    def tick(self, second: float, *accounts: AccountSnapshot, **more: Any) -> tuple[list[Decision], list[Notice]]:
        """The decisions and notices of the tick; `events` are given before it."""
        self.pending += more.get("events", ())
        closings = more.get("closings", ())
        polled = snapshot(after(seconds=second), *accounts, events=tuple(self.pending), closings=closings)
        outcome = self.interpreter.tick(polled)
        self.pending = [each for each in self.pending if each.id in self.interpreter.unfinished_closes()]
        self.decisions += outcome.decisions
        return list(outcome.decisions), list(outcome.notices)

    def restart(self) -> None:
        states = self.interpreter.states()
        self.interpreter = Interpreter(POLICIES)
        self.interpreter.restore(states, lambda *_: (), past=tuple(reversed(self.decisions)))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def closed(found: tuple[list[Decision], list[Notice]]) -> list[tuple[str, Decimal]]:
    return [(intent.account, intent.contracts) for decision in found[0] for intent in decision.intents]


def test_readable_accounts_are_closed_at_once_and_the_others_on_their_first_snapshot(desk: Desk) -> None:
    """`b` fails once: it is closed a second later, and `a`, whose close goes on, not again although it has grown."""
    assert closed(desk.tick(1, up("a"), down("b"), events=(CLOSE,))) == [("a", Decimal(3))]
    assert desk.decisions[0].waits_for == ("b",)
    decisions, notices = desk.tick(2, up("a", "5"), up("b"))
    assert closed((decisions, notices)) == [("b", Decimal(3))]
    assert (decisions[0].scope, decisions[0].author, decisions[0].waits_for) == ("portfolio", "operator-1", ())
    assert "when b could not be read" in (decisions[0].reason or "")
    assert desk.tick(3, up("a", "5"), up("b", "5")) == ([], [])
    assert desk.tick(4, up("a", "0"), up("b", "0")) == ([], [])
    assert [each.id for each in desk.pending] == ["hand-1"]
    assert desk.tick(5, up("a", "0"), up("b", "0")) == ([], [])
    assert desk.pending == []


def test_a_close_of_unreadable_accounts_only_is_not_consumed(desk: Desk) -> None:
    """One page names the account, the reason, the deadline and how to end the wait; then nothing until it answers."""
    decisions, (notice,) = desk.tick(1, down("a"), events=(CLOSE,))
    assert decisions == []
    assert (notice.severity, notice.subject) == ("page", "hand-1")
    assert notice.text == (
        "the close by hand waits: a is down: 503 Service Unavailable; --force closes its last known "
        "positions; it goes on with the first snapshot that shows it, until 2024-01-01T00:10:01Z "
        "(`ksctl close --give-up hand-1 --reason '' --store STORE` ends that)"
    )
    assert desk.tick(2, down("a")) == ([], [])
    assert [each.id for each in desk.pending] == ["hand-1"]
    assert closed(desk.tick(3, up("a"))) == [("a", Decimal(3))]


def test_a_close_of_a_dead_mans_switch_that_waits_is_called_so(desk: Desk) -> None:
    """No person is to be looked for who gave it."""
    _, (notice,) = desk.tick(1, down("a"), events=(replace(CLOSE, cause="dead-man"),))
    assert notice.text.startswith("the dead-man close waits: a is down")


@pytest.mark.parametrize(("second", "expected"), [(601, [("a", Decimal(3))]), (601.5, [])])
def test_a_close_waits_for_ten_minutes(desk: Desk, second: float, expected: object) -> None:
    """From the tick that processed it, at second 1; a page says that it does not wait any longer."""
    desk.tick(1, down("a"), events=(CLOSE,))
    decisions, notices = desk.tick(second, up("a"))
    assert closed((decisions, notices)) == expected
    assert [each.text for each in notices if each.severity == "page"] == (
        [] if expected else ["the close by hand no longer waits for a: nothing was closed there"]
    )
    for later in (2, 3):
        assert desk.tick(second + later, up("a", "0")) == ([], [])
    assert desk.pending == []


def test_each_waiting_account_is_closed_when_it_answers(desk: Desk) -> None:
    """`a` at second 2, `b` at second 3, each once."""
    desk.tick(1, down("a"), down("b"), events=(CLOSE,))
    assert closed(desk.tick(2, up("a"), down("b"))) == [("a", Decimal(3))]
    assert closed(desk.tick(3, up("a"), up("b"))) == [("b", Decimal(3))]


def test_a_pending_close_survives_a_restart(desk: Desk) -> None:
    """What an earlier process closed is not closed again while its close goes on; what has appeared since is."""
    desk.tick(1, up("a"), up("flat", "0"), down("b"), events=(CLOSE,))
    desk.restart()
    going_on = (Closing(desk.decisions[0].id, "closing"),)
    desk.interpreter.restore((), lambda *_: (), active=desk.decisions, past=desk.decisions)
    more = {"closings": going_on}
    assert closed(desk.tick(5, up("a", "5"), up("flat", "5"), down("b"), **more)) == [("flat", Decimal(5))]
    assert closed(desk.tick(6, up("a", "5"), up("flat", "5"), up("b"), **more)) == [("b", Decimal(3))]
    assert [each.id for each in desk.pending] == ["hand-1"]


def test_a_restart_does_not_lengthen_the_wait(desk: Desk) -> None:
    """Ten minutes from second 1, whenever the next process starts."""
    desk.tick(1, up("a"), down("b"), events=(CLOSE,))
    desk.restart()
    desk.tick(590, up("a", "0"), down("b"))
    decisions, notices = desk.tick(602, up("a", "0"), up("b"))
    assert decisions == []
    assert [each.severity for each in notices] == ["page"]


def test_a_process_that_starts_after_the_wait_reports_what_was_not_closed(desk: Desk) -> None:
    """A part was carried out, so the notice does not say that nothing was closed."""
    desk.tick(1, up("a"), down("b"), events=(CLOSE,))
    desk.restart()
    decisions, (notice,) = desk.tick(700, up("a", "0"), up("b"))
    assert decisions == []
    assert notice.text == "the close by hand no longer waits for b: nothing was closed there"
    desk.tick(701, up("a", "0"), up("b"))
    assert desk.pending == []


def giving_up(what: str, scope: str | None = None) -> Event:
    return replace(operator_event("give_up", after(seconds=2), scope, "hand-2"), decision=what)


@pytest.mark.parametrize("by", ["event", "decision"])
def test_giving_up_a_close_ends_the_wait(desk: Desk, by: str) -> None:
    """By the id of the command, or of the decision that it has already made."""
    desk.tick(1, up("a"), down("b"), events=(CLOSE,))
    given_up = "hand-1" if by == "event" else desk.decisions[0].id
    decisions, (notice,) = desk.tick(2, up("a"), down("b"), events=(giving_up(given_up),))
    assert decisions == []
    assert (notice.subject, notice.severity) == ("hand-2", "warning")
    assert f"the close by hand {given_up} no longer waits for b" in notice.text
    assert desk.tick(3, up("a"), up("b")) == ([], [])
    assert desk.pending == []


def test_giving_up_a_close_for_one_account_leaves_the_others(desk: Desk) -> None:
    """`--scope account/a`."""
    desk.tick(1, down("a"), down("b"), events=(CLOSE,))
    desk.tick(2, down("a"), down("b"), events=(giving_up("hand-1", "account/a"),))
    assert closed(desk.tick(3, up("a"), up("b"))) == [("b", Decimal(3))]


def test_a_close_given_up_before_a_tick_processed_it_closes_nothing(desk: Desk) -> None:
    """No runner lived: both commands arrive in one tick."""
    decisions, (notice,) = desk.tick(3, up("a"), events=(CLOSE, giving_up("hand-1")))
    assert decisions == []
    assert notice.subject == "hand-2"
    assert desk.pending == []


def test_a_replay_of_the_recording_makes_the_same_decisions() -> None:
    """Recordings hold the command in every snapshot of the wait."""
    snapshots = [
        snapshot(after(seconds=1), up("a"), down("b"), events=(CLOSE,)),
        snapshot(after(seconds=2), up("a"), down("b"), events=(CLOSE,)),
        snapshot(after(seconds=3), up("a"), up("b"), events=(CLOSE,)),
        snapshot(after(seconds=4), up("a"), up("b")),
    ]
    interpreter = Interpreter(POLICIES)
    found = [[i.account for d in interpreter.tick(each).decisions for i in d.intents] for each in snapshots]
    assert found == [["a"], [], ["b"], []]
