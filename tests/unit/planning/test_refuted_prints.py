"""Prints that are refuted, from snapshot to decision: with `on_unknown: hold`, with a confirmation, and in a replay.

100 contracts of BCH at 1,000 in an account of 50,000: a mark of 900 is a fall of a fifth."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.snapshot import Snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.replayed_ticks import SECOND_LOOK
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import account, after, position, rules, snapshot

BCH = "BCH"


def policy(*, confirm: int = 0, also: bool = False) -> PolicySet:
    """A fifteen-minute fall of 10% closes all, if prices corroborate it; `also`: another stage acts without."""
    stages = [stage("close", 3, 0, corroborate=True, actions=(close(),))]
    if also:
        stages.insert(0, stage("trim", 1, 0, actions=(close(),)))
    return policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.10, confirm=confirm),), tuple(stages)))


def at(seconds: float, mark: str, index: str | None = None, *, quality: str = "ok") -> Snapshot:
    """A snapshot whose equity follows the mark."""
    profit = 100 * (int(mark) - 1000)
    more = {} if index is None else {"index_price": index}
    held = position(BCH, "long", str(profit), contracts="100", mark_price=mark, entry_price="1000", **more)
    known = [rules(BCH, contract_size="1", amount_step="1", min_amount="1")]
    polled = account(
        str(50_000 + profit), [held], quality=quality, reason=None if quality == "ok" else "timeout",
        instruments=known, unrealized=None,
    )  # fmt: skip
    return snapshot(after(seconds=seconds), polled)


def calm(until: float = 960.0) -> list[Snapshot]:
    return [at(second, "1000", "1000") for second in range(0, int(until), 60)]


def closes(outcomes: Iterable[object]) -> list[float]:
    found = [each for each in outcomes if isinstance(each, Decision) and each.kind is None and each.intents]
    return [(each.as_of - after(seconds=0)).total_seconds() for each in found]


def run(policies: PolicySet, *course: Snapshot) -> list[float]:
    interpreter = Interpreter(policies)
    return closes(decision for each in course for decision in interpreter.tick(each).decisions)


def test_a_print_that_its_index_refutes_is_not_held_through_an_outage() -> None:
    """A mark of 900 at an index of 1,000, then no answer: nothing fires, then or later."""
    gone = [
        replace(at(s, "1000"), accounts=(account(None, None, quality="down", reason="timeout"),)) for s in (961, 962)
    ]
    course = [*calm(), at(960, "900", "1000"), *gone, at(963, "1000", "1000"), at(964, "1000", "1000")]
    assert run(policy(), *course) == []


def test_the_same_price_that_its_index_confirms_closes() -> None:
    """The index fell, too."""
    assert run(policy(), *calm(), at(960, "900", "900")) == [960]


def test_a_fall_after_a_refuted_print_closes_at_once() -> None:
    """The print takes nothing away from the fall that follows it."""
    assert run(policy(), *calm(), at(960, "900", "1000"), at(961, "900", "900")) == [961]


def test_a_print_begins_no_confirmation() -> None:
    """A minute of confirmation: the print at 960 s does not count, the fall from 970 s on does."""
    course = [*calm(), at(960, "900", "1000"), *(at(second, "900", "900") for second in range(970, 1040, 10))]
    assert run(policy(confirm=MINUTE), *course) == [1030]


def test_a_print_does_not_interrupt_a_confirmation_of_good_prices() -> None:
    """A fall since 960 s; at 990 s the mark is 700, and its index 900: the minute is over at 1,020 s."""
    fallen = [at(second, "900", "900") for second in range(960, 1040, 10)]
    fallen[3] = at(990, "700", "900")
    assert run(policy(confirm=MINUTE), *calm(), *fallen) == [1020]


def test_a_stage_that_needs_no_corroboration_keeps_its_trigger() -> None:
    """It fires on the print, and the corroborating stage does not."""
    interpreter = Interpreter(policy(also=True))
    for each in calm():
        interpreter.tick(each)
    assert [each.level for each in interpreter.tick(at(960, "900", "1000")).decisions if each.kind is None] == [1]


# A replay's second look


@pytest.mark.parametrize(
    ("following", "expected"),
    [
        (at(961, "900"), [960]),
        (at(961, "1000"), []),
        (at(962, "1000"), []),
        (at(962.1, "1000"), [960]),
        (at(961, "1000", quality="stale"), [960]),
        (snapshot(after(seconds=961), account("50000", [])), [960]),
        (snapshot(after(seconds=961), account("50000", None)), [960]),
        (snapshot(after(seconds=961)), [960]),
        (None, [960]),
    ],
    ids=[
        "it fell", "it is back", "2 s later", "too late", "not usable", "closed by then", "positions unknown",
        "account missing", "the last snapshot",
    ],
)  # fmt: skip
def test_the_next_snapshot_is_the_second_look_of_a_replay(following: Snapshot | None, expected: list[float]) -> None:
    """A mark of 900 without an index at 960 s; the next snapshot has the prices that a run would have fetched."""
    course = [*calm(), at(960, "900"), *([] if following is None else [following])]
    assert closes(replay(policy(), course))[:1] == expected


def test_a_second_look_takes_prices_and_no_equity() -> None:
    """50,000 come within the second: the mark is still 900, and 10,000 of 50,000 are lost."""
    richer = snapshot(after(seconds=961), account("90000", list(at(961, "900").accounts[0].positions or ())))
    assert closes(replay(policy(), [*calm(), at(960, "900"), richer]))[:1] == [960]


def test_a_refuted_print_of_a_replay_fires_nothing_later() -> None:
    """It is back after a second, and then nothing is known: no trigger is held."""
    gone = snapshot(after(seconds=962), account(None, None, quality="down", reason="timeout"))
    assert closes(replay(policy(), [*calm(), at(960, "900"), at(961, "1000"), gone, at(1000, "1000")])) == []


def test_a_replay_reads_no_more_than_one_snapshot_ahead() -> None:
    """A recording is not kept in memory; the look ahead is 2 s at most."""
    taken: list[Snapshot] = []

    def source() -> Iterable[Snapshot]:
        for each in (*calm(), at(960, "900"), at(961, "900"), at(962, "900")):
            taken.append(each)
            yield each

    assert next(iter(replay(policy(), source())))
    assert len(taken) == len(calm()) + 2
    assert SECOND_LOOK == 2 * SECOND
