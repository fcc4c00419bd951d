"""The laws that are proved of the lowered engine for symbolic policies, tested on the engine itself."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.engine.state import StageMachineState, initial
from killswitch.engine.step import is_confirmed, latch, reset
from tests.property.proof.random_pairs import compiled, spec_in
from tests.property.proof.test_compared_sets import Answer, Asked, Moment, moment_in

SEEDS = st.integers(0, 2**32)


def run(seed: int) -> list[tuple[Asked, StageMachineState, Moment, Answer]]:
    """Evaluations of a random policy on a random history: the state before, what was read, and the answer."""
    random = Random(seed)
    asked, state, seen = Asked(compiled(spec_in(random))), initial(), None
    found = []
    for _ in range(30):
        seen = moment_in(random, seen)
        answer = asked.answer(state, seen)
        found.append((asked, state, seen, answer))
        state = answer.stepped.state
        if answer.fired is not None:
            state = latch(state, answer.fired, seen.now, (1.0, 1.0))
        elif answer.reset:
            state = reset(state, seen.now, automatic=True)
    return found


def able(asked: Asked, seen: Moment, answer: Answer, least: int) -> bool:
    """Whether a stage of at least this level is demanded, and does not decline."""
    return any(
        stage.level >= least
        and is_confirmed(stage, answer.stepped.state.triggers.confirmed)
        and not (stage.corroborate and not seen.corroborated)
        and not asked.selects_nothing(answer.stepped.state, stage, seen)
        for stage in asked.graph.stages
    )


@settings(max_examples=80)
@given(seed=SEEDS)
def test_a_cooldown_never_keeps_a_higher_level(seed: int) -> None:
    """A demanded level above the one in force fires at once, whatever rests."""
    for asked, before, seen, answer in run(seed):
        if able(asked, seen, answer, before.level + 1):
            assert answer.fired is not None and answer.fired.level > before.level


@settings(max_examples=80)
@given(seed=SEEDS)
def test_a_new_loss_after_the_cooldown_is_answered(seed: int) -> None:
    """Demanded at or above the level in force, with the cooldown over and a lower unit value, something fires."""
    for asked, before, seen, answer in run(seed):
        is_over = before.level > 0 and seen.now >= (before.cooldown_until or 0)
        if is_over and seen.lost and able(asked, seen, answer, before.level):
            assert answer.fired is not None


@settings(max_examples=80)
@given(seed=SEEDS)
def test_a_level_falls_only_by_a_reset_that_waits_for_the_cooldown(seed: int) -> None:
    """No firing lowers the level in force, and nothing is reset while the last firing rests."""
    for _, before, seen, answer in run(seed):
        assert answer.fired is None or answer.fired.level >= before.level
        assert not answer.reset or seen.now >= (before.cooldown_until or 0)


@settings(max_examples=80)
@given(seed=SEEDS)
def test_targets_stay_within_the_position(seed: int) -> None:
    """Of each position between nothing and all of it is left, whatever the closes of the stage select."""
    for asked, _, seen, answer in run(seed):
        for stage in asked.graph.stages:
            window = asked.window(answer.stepped.state, stage, seen)
            held = {each.symbol: each.contracts for each in seen.positions}
            assert all(0 <= left <= held[symbol] for symbol, left in asked.targets(stage, seen, window).items())
