"""An operator close of unreadable accounts: readable accounts are closed at once, the others when they answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Notice
from killswitch.model.effects import Lock
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
        self.live: dict[str, bytes] = {}
        self.interpreter = Interpreter(POLICIES)

    def tick(self, second: float, *accounts: AccountSnapshot, **more: Any) -> tuple[list[Decision], list[Notice]]:
        """The decisions and notices of the tick; `events` are given before it."""
        self.pending += more.get("events", ())
        closings = more.get("closings", ())
        polled = snapshot(after(seconds=second), *accounts, events=tuple(self.pending), closings=closings)
        outcome = self.interpreter.tick(polled)
        self.pending = [each for each in self.pending if each.id in self.interpreter.unfinished_closes()]
        self.decisions += outcome.decisions
        self.live |= self.interpreter.live()
        return list(outcome.decisions), list(outcome.notices)

    def restart(self) -> None:
        states = self.interpreter.states()
        self.interpreter = Interpreter(POLICIES)
        self.interpreter.restore(states, lambda *_: (), past=tuple(reversed(self.decisions)), live=self.live.get)


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


def give_up(desk: Desk, scope: str | None) -> Event:
    """An operator gives up the newest decision of the close, as `ksctl status` names it."""
    return replace(operator_event("give_up", after(), scope, "up-1"), decision=desk.decisions[-1].id)


def flat(desk: Desk, *unfinished: str) -> list[Closing]:
    """Every close so far has ended, but those of these decisions."""
    return [Closing(each.id, "closing" if each.id in unfinished else "flat") for each in desk.decisions]


def seen_at(second: float, account: AccountSnapshot) -> AccountSnapshot:
    return replace(account, observed_at=after(seconds=second))


def test_nothing_is_closed_again_after_a_close_is_given_up_while_no_run_is_alive(desk: Desk) -> None:
    """The command that gives it up is the next process: it finds both events, and the position is shown as before."""
    desk.tick(1, seen_at(1, up("a")), events=(CLOSE,))
    desk.restart()
    given_up = give_up(desk, None)
    assert closed(desk.tick(3, seen_at(3, up("a")), events=(given_up,), closings=flat(desk))) == []
    assert desk.pending == []
    assert [closed(desk.tick(second, seen_at(second, up("a")))) for second in (4, 5, 6)] == [[], [], []]


@pytest.mark.parametrize("restarts", [False, True])
def test_no_restart_closes_again_in_an_account_for_which_the_close_was_given_up(desk: Desk, *, restarts: bool) -> None:
    """Given up in `a` alone; in `b` somebody opens again before it is seen closed, and that is closed."""
    desk.tick(1, *(seen_at(1, up(name)) for name in "ab"), events=(CLOSE,))
    desk.tick(2, *(seen_at(2, up(name)) for name in "ab"), events=(give_up(desk, "account/a"),), closings=flat(desk))
    desk.pending = [each for each in desk.pending if each.kind == "close"]
    if restarts:
        desk.restart()
    found = [closed(desk.tick(at, *(seen_at(at, up(name)) for name in "ab"), closings=flat(desk))) for at in (3, 4, 5)]
    assert {name for each in found for name, _ in each} == {"b"}


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_opened_after_an_account_was_seen_closed_stays(desk: Desk, *, restarts: bool) -> None:
    """The command still waits for `b`. `a` was seen closed twice, so that a later position is somebody's decision."""
    desk.tick(1, seen_at(1, up("a")), down("b"), events=(CLOSE,))
    for second in (2, 3):
        desk.tick(second, seen_at(second, up("a", "0")), down("b"), closings=flat(desk))
    if restarts:
        desk.restart()
    for second in (60, 61, 62):
        assert closed(desk.tick(second, seen_at(second, up("a")), down("b"), closings=flat(desk))) == []
    assert closed(desk.tick(63, seen_at(63, up("a")), seen_at(63, up("b")))) == [("b", Decimal(3))]


def test_a_lock_that_was_lifted_is_not_written_again_for_an_account_that_answers_later(desk: Desk) -> None:
    """The first decision has locked the whole scope; by the time that `b` answers an operator may have unlocked it."""
    first, _ = desk.tick(1, up("a"), down("b"), events=(replace(CLOSE, lock="reduce_only"),))
    assert any(isinstance(each, Lock) for each in first[0].effects)
    (second,), _ = desk.tick(60, up("a", "0"), up("b"), closings=flat(desk))
    assert [intent.account for intent in second.intents] == ["b"]
    assert not any(isinstance(each, Lock) for each in second.effects)
