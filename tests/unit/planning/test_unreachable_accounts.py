"""A stage that fires while an account is unavailable: its close waits, and is carried out when the account answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, ScopeRule, SignalRead, SignalRef
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Health, Order, Snapshot
from tests.graphs import close, graph, policy_set, stage, trigger
from tests.notifying import NotifyingInterpreter
from tests.worlds import account, after, operator_event, position, snapshot

FAILURES = SignalRef("venue.consecutive_failures")
LEVERAGE = SignalRef("exposure.leverage")


def failing(each: str = "account", **more: Any) -> Graph:
    """Halve everything after three failed polls; the close of an unavailable account may wait ten minutes."""
    fields: dict[str, Any] = {"close_within": 10 * MINUTE, "cooldown": HOUR, "actions": (close("both", "0.5"),)}
    return graph(
        (FAILURES, LEVERAGE),
        (trigger("failing", 0, 3.0, rearms=True), trigger("geared", 1, 3.0, rearms=True)),
        (stage("halve", 2, 0, **{**fields, **more}), stage("trim", 1, 1, cooldown=HOUR, actions=fields["actions"])),
        reset_when=(Compare("<", SignalRead(0), Number(1.0)),),
        scope=ScopeRule(each, None, None, None, None),  # type: ignore[arg-type]  # literal by the caller
    )


def up(name: str, **more: Any) -> AccountSnapshot:
    """Long ten of one symbol, worth half the account."""
    held = [position("L", "long", "0", contracts="10", notional="50000", margin="5000")]
    return account("100000", held, name=name, **more)


def down(name: str) -> AccountSnapshot:
    return account(None, None, name=name, quality="down", reason="timeout")


def tick(interpreter: NotifyingInterpreter, second: float, *accounts: AccountSnapshot, **more: Any) -> list[Decision]:
    return list(tick_with_notices(interpreter, second, *accounts, **more)[0])


def tick_with_notices(
    interpreter: NotifyingInterpreter, second: float, *accounts: AccountSnapshot, **more: Any
) -> tuple[list[Decision], list[Notice]]:
    polled: Snapshot = snapshot(after(seconds=second), *accounts, **more)
    outcome = interpreter.tick(polled)
    return list(outcome.decisions), list(outcome.notices)


def closed(decisions: list[Decision]) -> list[tuple[str, Decimal]]:
    return [(intent.account, intent.contracts) for decision in decisions for intent in decision.intents]


def fired_during_outage(graph: Graph | None = None) -> NotifyingInterpreter:
    """One account that was read once and then failed three times: the stage fired at 3 s, and could close nothing."""
    interpreter = NotifyingInterpreter(policy_set(graph or failing()))
    tick(interpreter, 0, up("main"))
    for second in (1, 2, 3):
        assert closed(tick(interpreter, second, down("main"))) == []
    return interpreter


def test_the_close_is_carried_out_on_the_first_snapshot_after_the_outage() -> None:
    """The failures are over, so that the trigger is false: half of ten contracts is closed, and the stage latches."""
    interpreter = fired_during_outage()
    (decision,) = tick(interpreter, 60, up("main"))
    assert closed([decision]) == [("main", Decimal(5))]
    assert [each.name for each in decision.triggers] == ["failing"]
    assert decision.reason == "fired at 2024-01-01T00:00:03Z, when main could not be read"
    assert interpreter.status()[0].stage == "halve"
    assert tick(interpreter, 61, up("main")) == []


def test_a_page_names_the_account_that_the_close_waits_for_and_the_time() -> None:
    """Once, and not at every tick of the outage."""
    interpreter = NotifyingInterpreter(policy_set(failing()))
    tick(interpreter, 0, up("main"))
    notices = [notice for second in range(1, 20) for notice in tick_with_notices(interpreter, second, down("main"))[1]]
    (page,) = [notice for notice in notices if notice.kind == "nothing_selected"]
    assert page.severity == "page"
    assert page.text.endswith("it is not latched; its close waits for main, until its triggers have not held for 10m")


def test_a_page_names_the_account_that_was_closed_and_the_one_that_is_waited_for() -> None:
    """`a` is halved in the tick of the page: the stage did fire there."""
    interpreter = NotifyingInterpreter(policy_set(failing("portfolio")))
    tick(interpreter, 0, up("a"), up("b"))
    notices = [
        notice for second in (1, 2, 3) for notice in tick_with_notices(interpreter, second, up("a"), down("b"))[1]
    ]
    (page,) = [notice for notice in notices if notice.kind == "nothing_selected"]
    assert page.text == (
        "halve fired on a, but b is down: timeout; it is not latched; its close waits for b, until its triggers have "
        "not held for 10m"
    )


def test_the_wait_is_measured_from_the_last_tick_with_true_triggers() -> None:
    """Twenty minutes of failures keep the trigger true: the close is carried out at the end of them."""
    interpreter = fired_during_outage()
    for minute in range(1, 21):
        tick(interpreter, 60 * minute, down("main"))
    assert closed(tick(interpreter, 1201, up("main"))) == [("main", Decimal(5))]


def pair(**more: Any) -> NotifyingInterpreter:
    """Two accounts of one portfolio; `b` failed three times while `a` answered."""
    interpreter = NotifyingInterpreter(policy_set(failing("portfolio", **more)))
    tick(interpreter, 0, up("a"), up("b"))
    found = [closed(tick(interpreter, second, up("a"), down("b"))) for second in (1, 2, 3, 4)]
    assert found == [[], [], [("a", Decimal(5))], []]
    return interpreter


def test_readable_accounts_are_closed_at_once_and_the_rest_when_they_answer() -> None:
    """`a` is halved at 3 s and not again; `b` when it can be read; then the stage is latched."""
    interpreter = pair()
    assert not interpreter.status()[0].latched
    assert closed(tick(interpreter, 30, up("a"), up("b"))) == [("b", Decimal(5))]
    assert (interpreter.status()[0].stage, interpreter.status()[0].latched) == ("halve", True)


def test_an_account_closed_at_once_is_not_closed_again_after_the_cooldown() -> None:
    """The cooldown is only a second; the close that waited is about `b`, and cancels nothing on `a`."""
    entry = Order(id="o", symbol="L", side="buy", amount=Decimal(1), reduce_only=False)
    interpreter = pair(cooldown=1_000_000, actions=(CancelOrders("entry"), close("both", "0.5")))
    (decision,) = tick(interpreter, 30, up("a", orders=(entry,)), up("b", orders=(entry,)))
    assert closed([decision]) == [("b", Decimal(5))]
    assert [cancel.account for cancel in decision.cancels] == ["b"]


def test_each_of_two_unavailable_accounts_is_closed_when_it_answers() -> None:
    """Both failed; `a` answers after 20 s and `b` after 40 s: the stage latches with the second."""
    interpreter = NotifyingInterpreter(policy_set(failing("portfolio")))
    tick(interpreter, 0, up("a"), up("b"))
    for second in (1, 2, 3):
        tick(interpreter, second, down("a"), down("b"))
    assert closed(tick(interpreter, 20, up("a"), down("b"))) == [("a", Decimal(5))]
    assert not interpreter.status()[0].latched
    assert closed(tick(interpreter, 30, up("a"), down("b"))) == []
    assert closed(tick(interpreter, 40, up("a"), up("b"))) == [("b", Decimal(5))]
    assert (interpreter.status()[0].stage, interpreter.status()[0].latched) == ("halve", True)


@pytest.mark.parametrize(("second", "expected"), [(603, [("main", Decimal(5))]), (604, [])])
def test_an_account_that_answers_later_than_the_policy_allows_is_not_closed(second: int, expected: object) -> None:
    """Ten minutes after the last evaluation at which the trigger held, which was at 3 s."""
    interpreter = fired_during_outage()
    assert closed(tick(interpreter, second, up("main"))) == expected


def test_a_close_that_is_given_up_is_paged() -> None:
    """With the account and the consequence."""
    interpreter = fired_during_outage()
    _, notices = tick_with_notices(interpreter, 604, up("main"))
    (page,) = [notice for notice in notices if notice.severity == "page"]
    assert page.text == (
        "halve fired at 2024-01-01T00:00:03+00:00 and no longer waits for main: nothing was closed there"
    )


def test_a_stage_with_close_within_zero_closes_only_while_its_triggers_are_true() -> None:
    """With `close_within: 0s`."""
    assert tick(fired_during_outage(failing(close_within=0)), 60, up("main")) == []


def test_a_stage_without_a_close_does_not_wait() -> None:
    """A lock is written while the account is down; when it answers, there is no second one."""
    interpreter = fired_during_outage(failing(actions=(LockTrading("all", None),)))
    assert tick(interpreter, 60, up("main")) == []


def test_a_close_that_waits_survives_a_restart() -> None:
    """Stored with the stage machine, and carried out by the next process."""
    before = fired_during_outage()
    again = NotifyingInterpreter(policy_set(failing()))
    again.restore(before.states(), lambda *_: ())
    assert closed(tick(again, 60, up("main"))) == [("main", Decimal(5))]


def test_an_operator_reset_ends_the_wait() -> None:
    """On the account's first answer nothing is closed any more: the failures are over."""
    interpreter = fired_during_outage()
    reset = operator_event("reset", after(seconds=30))
    decisions, notices = tick_with_notices(interpreter, 30, up("main"), events=(reset,))
    assert [(each.kind, each.stage, each.previous_level, each.level) for each in decisions] == [
        ("reset", "halve", 2, 0)
    ]
    assert [notice.text for notice in notices if notice.kind == "warning"] == [
        "a reset was received: halve no longer waits for main"
    ]
    assert tick(interpreter, 40, up("main")) == []


def test_a_stage_with_true_triggers_fires_again_after_a_reset() -> None:
    """The venue is still down: one incident ends, and the next one begins in the same tick, with its lock and page."""
    interpreter = fired_during_outage(failing(actions=(LockTrading("all", None), close("both", "0.5"))))
    decisions, notices = tick_with_notices(
        interpreter, 30, down("main"), events=(operator_event("reset", after(seconds=30)),)
    )
    assert [(each.kind, each.lock is not None) for each in decisions] == [("reset", False), (None, True)]
    assert [notice.severity for notice in notices if notice.kind == "nothing_selected"] == ["page"]


def test_a_stage_that_fired_without_latching_is_in_force_until_it_is_reset() -> None:
    """Its wait is over and its triggers are false, but its lock remains: status and reset know the stage."""
    interpreter = fired_during_outage(failing(close_within=0, actions=(LockTrading("all", None), close("both", "0.5"))))
    for second in range(60, 63):
        assert tick(interpreter, second, up("main")) == []
    again = NotifyingInterpreter(policy_set(failing(close_within=0)))
    again.restore(interpreter.states(), lambda *_: ())
    tick(again, 70, up("main"))
    (machine,) = again.status()
    assert (machine.level, machine.stage, machine.fired_at, machine.latched) == (2, "halve", after(seconds=3), False)
    (record,) = tick(again, 80, up("main"), events=(operator_event("reset", after(seconds=80)),))
    assert (record.kind, record.stage, record.previous_level) == ("reset", "halve", 2)
    assert again.status()[0].level == 0


def test_a_stage_that_fired_without_latching_resets_automatically() -> None:
    """Its reset condition has held for long enough: its lock does not stay for ever."""
    calm = AutoReset(2, 10_000_000)
    policy = failing(close_within=0, reset=calm, actions=(LockTrading("all", None), close("both", "0.5")))
    interpreter = fired_during_outage(policy)
    kinds = {second: [each.kind for each in tick(interpreter, second, up("main"))] for second in range(60, 72)}
    assert {second: each for second, each in kinds.items() if each} == {70: ["reset"]}


def test_a_stage_of_a_removed_policy_that_fired_without_latching_needs_a_reset() -> None:
    """As with a latch: an operator must be able to see it and to end it."""
    before = fired_during_outage(failing(close_within=0))
    again = NotifyingInterpreter(policy_set(replace(failing(close_within=0), policy="another")))
    again.restore(before.states(), lambda *_: ())
    tick(again, 60, up("main"))
    assert [(each.policy, each.stage, each.level) for each in again.orphans()] == [("test", "halve", 2)]


def test_a_stage_that_only_locks_latches_although_no_account_is_readable() -> None:
    """It does not depend on the book. One decision, and no page that contradicts it."""
    interpreter = NotifyingInterpreter(policy_set(failing(actions=(LockTrading("all", None),))))
    tick(interpreter, 0, up("main"))
    found = [tick_with_notices(interpreter, second, down("main")) for second in range(1, 6)]
    assert [each.lock is not None for decisions, _ in found for each in decisions] == [True]
    assert [notice.kind for _, notices in found for notice in notices if notice.severity == "page"] == []
    (machine,) = interpreter.status()
    assert (machine.level, machine.latched) == (2, True)
    (record, *_) = tick(interpreter, 10, up("main"), events=(operator_event("reset", after(seconds=10)),))
    assert (record.kind, record.previous_level) == ("reset", 2)


def slow(each: AccountSnapshot, latency: float) -> AccountSnapshot:
    return replace(each, health=Health(latency_ms=latency))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(5000, 1500, "halve"), (1500, 5000, "halve")],
    ids=["a lower stage fires later", "a higher stage fires later"],
)
def test_of_two_stages_that_could_wait_the_higher_one_waits(first: float, second: float, expected: str) -> None:
    """`trim` fires on an answer that takes a second, `halve` on one of three; both while `b` is down."""
    actions = (close("both", "0.5"),)
    latency = graph(
        (SignalRef("venue.latency"),),
        (trigger("slow", 0, 1000.0, rearms=True), trigger("slower", 0, 3000.0, rearms=True)),
        (
            stage("trim", 1, 0, actions=actions, close_within=MINUTE),
            stage("halve", 2, 1, actions=actions, close_within=MINUTE),
        ),
        scope=ScopeRule("portfolio", None, None, None, None),
    )
    interpreter = NotifyingInterpreter(policy_set(latency))
    tick(interpreter, 0, slow(up("a"), 10), slow(up("b"), 10))
    tick(interpreter, 1, slow(up("a"), first), slow(down("b"), 10))
    tick(interpreter, 2, slow(up("a"), second), slow(down("b"), 10))
    decisions = tick(interpreter, 30, slow(up("a"), 10), slow(up("b"), 10))
    assert [(each.stage, closed([each])) for each in decisions] == [(expected, [("b", Decimal(5))])]


def test_a_stage_that_an_edit_removed_does_not_wait() -> None:
    """The close is dropped with a page."""
    before = fired_during_outage()
    edited = graph((LEVERAGE,), (trigger("geared", 0, 3.0),), (stage("trim", 1, 0, actions=(close(),)),))
    again = NotifyingInterpreter(policy_set(edited))
    again.restore(before.states(), lambda *_: ())
    decisions, notices = tick_with_notices(again, 60, up("main"))
    assert decisions == []
    assert [notice.severity for notice in notices if "no longer waits" in notice.text] == ["page"]


# Readable accounts are evaluated as if no other account waited.

FALL = SignalRef("equity.drawdown_from_peak")


def falling(close_within: int, **more: Any) -> NotifyingInterpreter:
    """Everything is closed at a fall of 10% of the portfolio, which rests for a minute."""
    fields: dict[str, Any] = {"cooldown": MINUTE, "actions": (close(),), "close_within": close_within, **more}
    made = graph(
        (FALL,), (trigger("fall", 0, 0.10),), (stage("stop", 1, 0, **fields),),
        scope=ScopeRule("portfolio", None, None, None, None),
    )  # fmt: skip
    interpreter = NotifyingInterpreter(policy_set(made))
    tick(interpreter, 0, large(100), SMALL)
    return interpreter


def large(mark: int, index: int | None = None) -> AccountSnapshot:
    """`a`: long 500 entered at 100, in an account of 100,000 plus their P&L."""
    pnl, index = 500 * (mark - 100), mark if index is None else index
    long = position("L", "long", str(pnl), contracts="500", notional=str(500 * mark), margin="10000",
                    entry_price="100", mark_price=str(mark), index_price=str(index))  # fmt: skip
    return account(str(100_000 + pnl), [long], name="a", unrealized=Decimal(pnl))


SMALL = account(
    "1000",
    [position("L", "long", "0", contracts="1", notional="100", entry_price="100", mark_price="100")],
    name="b",
    unrealized=Decimal(0),
)
"""`b`, with nothing that moves the portfolio."""


FELL = (*range(10, 20), *range(280, 300))
"""The seconds at which `a` is marked 60: a fall of 20,000 of 101,000, whatever the value of `b`."""


@pytest.mark.parametrize("close_within", [0, HOUR])
@pytest.mark.parametrize("corroborate", [False, True])
def test_a_readable_account_is_closed_a_second_time_while_another_is_waited_for(
    close_within: int, corroborate: bool
) -> None:
    """`b` is down from 9 s on, `a` falls at 10 s, recovers, and falls at 280 s again: closed both times."""
    interpreter = falling(close_within, corroborate=corroborate)
    found, pages = [], []
    for second in range(1, 300):
        b = SMALL if second < 9 else down("b")
        decisions, notices = tick_with_notices(interpreter, second, large(60 if second in FELL else 100), b)
        found += [(second, closed([each])) for each in decisions]
        pages += [second for notice in notices if notice.kind == "nothing_selected"]
    assert found == [(10, [("a", Decimal(500))]), (280, [("a", Decimal(500))])]
    assert pages == ([10] if close_within else [10, 20, 280])  # at 20 s it is over


@pytest.mark.parametrize("close_within", [0, HOUR])
def test_a_stray_print_closes_nothing_while_an_account_is_waited_for(close_within: int) -> None:
    """At 280 s only the mark of `a` falls, and its index stays: the stage requests a second snapshot of it as usual."""
    interpreter = falling(close_within, corroborate=True)
    found = []
    for second in range(1, 300):
        b = SMALL if second < 9 else down("b")
        a = large(60 if second in FELL else 100, 60 if second in FELL[:10] else 100)
        found += [(second, closed([each])) for each in tick(interpreter, second, a, b)]
    assert found == [(10, [("a", Decimal(500))])]


def test_a_waiting_account_is_closed_although_another_has_a_stray_print() -> None:
    """At 280 s `b` answers, and the mark of `a` strays: the pending close is about `b` only."""
    interpreter = falling(HOUR, corroborate=True)
    found = []
    for second in range(1, 300):
        b = down("b") if 9 <= second < 280 else SMALL
        a = large(60 if second in FELL else 100, 60 if second in FELL[:10] else 100)
        found += [(second, closed([each])) for each in tick(interpreter, second, a, b)]
    assert found == [(10, [("a", Decimal(500))]), (280, [("b", Decimal(1))])]


def test_a_waiting_close_is_paged_once_although_the_triggers_toggle() -> None:
    """`a` falls and recovers every ten seconds; a restart between them does not page again either."""
    interpreter = falling(HOUR)
    pages = 0
    for second in range(10, 100):
        if second == 50:
            again = NotifyingInterpreter(interpreter._policies)
            again.restore(interpreter.states(), lambda *_: ())
            again.alerts_known = interpreter.alerts_known
            interpreter = again
        _, notices = tick_with_notices(interpreter, second, large(60 if second // 10 % 2 else 100), down("b"))
        pages += sum(notice.kind == "nothing_selected" for notice in notices)
    assert pages == 1
