"""The engine fires again exactly when the naive implementation does: on losses, and on conditions of the book."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import event, given
from hypothesis import strategies as st

from killswitch.engine.state import from_stored, initial, to_stored
from killswitch.engine.step import StageMachine, latch, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import Graph, SignalRef
from killswitch.model.instant import SECOND
from tests.graphs import FALL_15M, graph, stage, trigger
from tests.oracle.limits import Evaluation, Limit, StageRule, firings

UNKNOWN = (float("-inf"), float("inf"))
NAMES = ("fall", "geared", "geared-for-long", "geared-far")
FALL = Limit("fall", Fraction(1, 20), 0, loss=True)
GEARED = Limit("geared", Fraction(3), 0, loss=False)
LONG = Limit("geared-for-long", Fraction(2), 120, loss=False)
FAR = Limit("geared-far", Fraction(8), 0, loss=False)
RUNGS = (
    StageRule("far", 2, (FAR,), 600),
    StageRule("cut", 1, (FALL, GEARED), 300),
    StageRule("trim", 1, (LONG,), 900),
)


def policy() -> Graph:
    """The same rules as a graph: two stages of level 1, one of level 2."""
    return graph(
        (FALL_15M, SignalRef("exposure.leverage")),
        (
            trigger("fall", 0, 0.05),
            trigger("geared", 1, 3.0, rearms=True),
            trigger("geared-for-long", 1, 2.0, confirm=120 * SECOND, rearms=True),
            trigger("geared-far", 1, 8.0, rearms=True),
        ),
        (
            stage("far", 2, 3, cooldown=600 * SECOND),
            stage("cut", 1, 0, 1, cooldown=300 * SECOND),
            stage("trim", 1, 2, cooldown=900 * SECOND),
        ),
    )


moves = st.tuples(
    st.sampled_from((1, 30, 120, 299, 300, 301, 900)),
    st.sampled_from((None, "1", "0.99", "0.95", "0.9")),
    st.sampled_from((None, "0", "0.04", "0.06")),
    st.sampled_from((None, "1", "1", "2.5", "4", "9")),
)


def interval(value: Fraction | None) -> tuple[float, float]:
    return UNKNOWN if value is None else (float(value), float(value))


@given(st.lists(moves, min_size=1, max_size=60), st.booleans())
def test_a_level_fires_again_as_in_the_naive_implementation(
    drawn: list[tuple[int, str | None, str | None, str | None]], stored: bool
) -> None:
    """However often the state is stored in between: the same stages fire at the same evaluations."""
    looks, at = [], 0
    for seconds, *numbers in drawn:
        at += seconds
        looks.append(Evaluation(at, *(None if number is None else Fraction(number) for number in numbers)))
    machine = StageMachine.of(policy(), lower(policy().conditions))
    state, fired = initial(), []
    for place, look in enumerate(looks):
        fall, leverage = interval(look.fall), interval(look.leverage)
        now, value = look.at * SECOND, None if look.value is None else interval(look.value)
        moved = step(machine, state, ([fall[0], leverage[0]], [fall[1], leverage[1]], []), now, unit_value=value)
        state = moved.state
        if moved.eligible:
            state = latch(state, moved.eligible[0], now, value)
            fired.append((place, moved.eligible[0].name))
        if stored:
            state = from_stored(to_stored(state, NAMES), NAMES)
    expected = [(each.place, each.stage.name) for each in firings(looks, RUNGS)]
    event(f"{min(len(expected), 4)} firings")
    assert fired == expected
