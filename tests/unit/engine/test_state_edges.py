"""A state as it is stored: every field of every trigger comes back under its name, and what is quiet is left out."""

from __future__ import annotations

from killswitch.engine.state import State, StoredState, StoredTrigger, Triggers, from_stored, to_stored

NAMES = ("held", "confirmed", "unknown", "quiet", "counting")
STATE = State(
    Triggers(
        held=0b10011,
        confirmed=0b00010,
        unknown=0b00101,
        reported=0b00100,
        since={0: 11, 1: 12, 4: 13},
        ticks={4: 2},
        unknown_since={0: 14, 2: 15},
        due=99,
    ),
    level=2,
    stage="two",
    fired_at=21,
    fired_value=0.9,
    cooldown_until=22,
    reset_since=23,
    barren=("one/why",),
    acted={"main": 24},
)
STORED = StoredState(
    triggers={
        "held": StoredTrigger(True, False, False, 11, None, 14),
        "confirmed": StoredTrigger(True, True, False, 12, None, None),
        "unknown": StoredTrigger(False, False, True, None, None, 15),
        "counting": StoredTrigger(True, False, False, 13, 2, None),
    },
    level=2,
    stage="two",
    fired_at=21,
    fired_value=0.9,
    cooldown_until=22,
    reset_since=23,
    barren=("one/why",),
    acted={"main": 24},
)


def test_a_state_is_stored_by_the_names_of_its_triggers() -> None:
    """Held, confirmed, reported, clocks and ticks of each; one that is neither held nor unknown is left out."""
    assert to_stored(STATE, NAMES) == STORED


def test_a_stored_state_comes_back_whole_and_is_looked_at_with_the_next_step() -> None:
    """All of it but the instant at which it is due, which the policy of today decides."""
    back = from_stored(STORED, NAMES)
    assert to_stored(back, NAMES) == STORED
    assert back.triggers.due <= 0
    assert (back.triggers.ticks, back.triggers.unknown, back.triggers.reported) == ({4: 2}, 0b00101, 0b00100)
    assert (back.reset_since, back.acted, back.barren, back.fired_at) == (23, {"main": 24}, ("one/why",), 21)
