"""`close.where`: a stage whose `where` is true for no position does everything but the close, until it is true."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, SignalRead, SignalRef
from killswitch.model.decision import Decision
from killswitch.model.effects import ProcessExit
from killswitch.model.instant import HOUR
from killswitch.model.snapshot import AccountSnapshot, Order, Position
from killswitch.planning.interpreter import Interpreter
from tests.graphs import close, graph, policy_set, stage, trigger
from tests.worlds import account, after, operator_event, position, snapshot

LEVERAGE = SignalRef("exposure.leverage")
NEAR = Compare("<=", SignalRead(0), Number(0.05))
NEAR_LIQUIDATION = close("both", "1", where=NEAR, where_unknown="keep")


def policy(*, actions: tuple[Any, ...] = (), **more: Any) -> Graph:
    """Above 3 x gross to equity: lock, cancel, and close what is within 5% of liquidation; above 2 x: halve."""
    guarded = (LockTrading("reduce_only", None), CancelOrders("all"), NEAR_LIQUIDATION, *actions)
    return graph(
        (LEVERAGE,),
        (trigger("geared", 0, 3.0, rearms=True), trigger("raised", 0, 2.0, rearms=True)),
        (
            stage("guard", 2, 0, cooldown=HOUR, actions=guarded, **more),
            stage("halve", 1, 1, cooldown=HOUR, actions=(close("both", "0.5"),)),
        ),
        position_signals=(SignalRef("position.liquidation_distance"),),
        reset_when=(Compare("<", SignalRead(0), Number(1.0)),),
    )


def held(symbol: str, liquidation: str, notional: str) -> Position:
    """Ten contracts with a mark of 100."""
    return position(
        symbol, "long", "0", contracts="10", mark_price="100", liquidation_price=liquidation, notional=notional
    )


ENTRY = Order("entry", "A", "buy", Decimal(1), price=Decimal(90), reduce_only=False)
EXIT = Order("exit", "A", "sell", Decimal(1), trigger_price=Decimal(80), reduce_only=True)


def book(liquidation: str = "80", notional: str = "200000") -> AccountSnapshot:
    """Equity 100,000; A of 200,000 and B of 150,000 (3.5 x), both 20% from liquidation."""
    return account("100000", [held("A", liquidation, notional), held("B", "80", "150000")], orders=(ENTRY, EXIT))


def tick(interpreter: Interpreter, second: float, account: AccountSnapshot, **more: Any) -> list[Decision]:
    return list(interpreter.tick(snapshot(after(seconds=second), account, **more)).decisions)


def without_halve(made: Graph) -> Graph:
    return replace(made, stages=tuple(each for each in made.stages if each.name == "guard"))


def test_where_that_is_true_for_no_position_holds_back_only_the_close() -> None:
    """The lock and the cancel of the entry happen; exits stay; nothing latches or cools down."""
    interpreter = Interpreter(policy_set(without_halve(policy())))
    (decision,) = tick(interpreter, 0, book())
    assert decision.lock is not None
    assert [(each.order, each.why) for each in decision.cancels] == [("entry", "entry")]
    assert decision.intents == ()
    assert decision.cooldown_until is None
    assert "where is true for no position: nothing is closed" in (decision.reason or "")
    (machine,) = interpreter.status()
    assert (machine.stage, machine.latched, machine.held_back, machine.cooldown_until) == ("guard", False, True, None)


def test_lock_cancels_and_page_happen_once_while_where_stays_false() -> None:
    """Sixty ticks with the trigger true: one decision, and no further notice."""
    interpreter = Interpreter(policy_set(without_halve(policy())))
    outcomes = [interpreter.tick(snapshot(after(seconds=second), book())) for second in range(60)]
    assert [len(outcome.decisions) for outcome in outcomes] == [1] + [0] * 59
    assert [outcome.notices for outcome in outcomes] == [()] * 60


def test_where_is_evaluated_again_at_each_tick_and_closes_what_it_selects_then() -> None:
    """A comes within 4% of liquidation at the fourth tick: A is closed, B is not, and the stage latches."""
    interpreter = Interpreter(policy_set(without_halve(policy())))
    made = [tick(interpreter, second, book("96" if second == 3 else "80")) for second in range(5)]
    assert [len(decisions) for decisions in made] == [1, 0, 0, 1, 0]
    assert [(each.symbol, each.contracts) for each in made[3][0].intents] == [("A", Decimal(10))]
    (machine,) = interpreter.status()
    assert (machine.stage, machine.latched, machine.held_back) == ("guard", True, False)


def test_the_next_lower_stage_fires_while_where_holds_back_the_higher_one() -> None:
    """Both in the same tick: the lock of the higher stage, the halves of the lower one; then A, when it is near."""
    interpreter = Interpreter(policy_set(policy()))
    guard, halve = tick(interpreter, 0, book())
    assert (guard.stage, guard.intents, guard.lock is not None) == ("guard", (), True)
    assert [(each.symbol, each.contracts) for each in halve.intents] == [("A", Decimal(5)), ("B", Decimal(5))]
    assert tick(interpreter, 1, book()) == []
    (closing,) = tick(interpreter, 2, book("96"))
    assert (closing.stage, [each.symbol for each in closing.intents]) == ("guard", ["A"])


def test_a_held_back_stage_needs_no_second_snapshot() -> None:
    """A corroborating stage polls the venue a second time when it may act, not at every tick of an hour."""
    interpreter = Interpreter(policy_set(without_halve(policy(corroborate=True))))
    first = interpreter.evaluate(snapshot(after(seconds=0), book()))
    assert first is not None
    assert first.reread == ("main",)
    interpreter.decide(first)
    assert interpreter.evaluate(snapshot(after(seconds=1), book())) is None
    near = interpreter.evaluate(snapshot(after(seconds=2), book("96")))
    assert near is not None
    assert near.reread == ("main",)


def test_a_restart_repeats_neither_lock_nor_page_and_evaluates_where_again() -> None:
    """The stored state says that the stage has fired and is held back."""
    made = policy_set(without_halve(policy()))
    before = Interpreter(made)
    tick(before, 0, book())
    interpreter = Interpreter(made)
    interpreter.restore(before.states(), lambda *_: before.rows())
    assert tick(interpreter, 1, book()) == []
    (closing,) = tick(interpreter, 2, book("96"))
    assert [each.symbol for each in closing.intents] == ["A"]


def test_the_exit_of_the_process_waits_for_the_close() -> None:
    """A process that exits could not evaluate `where` again."""
    interpreter = Interpreter(policy_set(without_halve(policy(actions=(ExitProcess(),)))))
    (first,) = tick(interpreter, 0, book())
    (second,) = tick(interpreter, 1, book("96"))
    exits = [any(isinstance(effect, ProcessExit) for effect in each.effects) for each in (first, second)]
    assert exits == [False, True]


def test_a_reset_lifts_the_lock_of_a_held_back_stage() -> None:
    """By hand, and by the stage's own condition."""
    event = operator_event("reset", after(seconds=1))
    interpreter = Interpreter(policy_set(without_halve(policy())))
    tick(interpreter, 0, book())
    (reset, *_) = tick(interpreter, 2, book(notional="1000"), events=(event,))
    assert (reset.kind, reset.previous_level) == ("reset", 2)
    assert interpreter.status()[0].stage is None

    interpreter = Interpreter(policy_set(without_halve(policy(reset=AutoReset(2, 0)))))
    tick(interpreter, 0, book())
    calm = account("100000", [held("A", "80", "50000")])
    assert [each.kind for second in (1, 2) for each in tick(interpreter, second, calm)] == ["reset"]
