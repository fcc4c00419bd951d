"""The stored state of a stage machine: every field of each trigger by name; inactive triggers are left out."""

from __future__ import annotations

import msgspec

from killswitch.engine.state import (
    PendingClose,
    StageMachineState,
    StoredState,
    StoredTrigger,
    Triggers,
    from_stored,
    to_stored,
)

NAMES = ("held", "confirmed", "unknown", "quiet", "counting")
STATE = StageMachineState(
    triggers=Triggers(
        held=0b10011,
        confirmed=0b00010,
        unknown=0b00101,
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
    spent=0b01010,
    waiting=PendingClose("three", ("held",), since=25, until=26, accounts=("other",)),
)
STORED = StoredState(
    triggers={
        "held": StoredTrigger(True, False, False, 11, None, 14),
        "confirmed": StoredTrigger(True, True, False, 12, None, None),
        "unknown": StoredTrigger(False, False, False, None, None, 15),
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
    spent=("confirmed", "quiet"),
    waiting=PendingClose("three", ("held",), since=25, until=26, accounts=("other",)),
)


def test_a_state_is_stored_by_the_names_of_its_triggers() -> None:
    """Held, confirmed, clocks and ticks of each; one that is neither held nor unknown is left out."""
    assert to_stored(STATE, NAMES) == STORED


def test_a_stored_state_is_restored_completely_and_evaluated_with_the_next_step() -> None:
    """All of it but the instant at which it is due, which the current policy determines."""
    back = from_stored(STORED, NAMES)
    assert to_stored(back, NAMES) == STORED
    assert back.triggers.due <= 0
    assert (back.triggers.ticks, back.triggers.unknown) == ({4: 2}, 0b00101)
    assert (back.reset_since, back.acted, back.barren, back.fired_at) == (23, {"main": 24}, ("one/why",), 21)


def _older() -> dict[str, object]:
    """The state as stored by a version that knew neither fired triggers nor pending closes."""
    older: dict[str, object] = msgspec.to_builtins(STORED)
    del older["spent"], older["waiting"]
    return older


def test_a_state_of_an_older_version_has_fired_on_triggers_that_were_true_before() -> None:
    """`held` began at 11 and `confirmed` at 12; the stage fired at 12: a trigger that began at 13 is a new breach."""
    back = from_stored(msgspec.convert({**_older(), "fired_at": 12}, StoredState), NAMES)
    assert back.spent == 0b00011
    assert back.waiting is None


def test_a_state_of_an_older_version_that_never_fired_has_fired_on_nothing() -> None:
    """Without a firing no trigger was acted on."""
    assert from_stored(msgspec.convert({**_older(), "fired_at": None}, StoredState), NAMES).spent == 0


def test_an_older_version_reads_what_this_one_stores() -> None:
    """Every key that it knew is there, and its decoder ignores keys that it does not know, as this one does."""
    stored = msgspec.json.decode(msgspec.json.encode(STORED))
    assert stored.keys() >= _older().keys()
    assert msgspec.convert({**stored, "of a later version": 1}, StoredState) == STORED
