"""`expect` in a running runner: it pages while more is touched than expected, and the same fires, locks and closes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import ExpectationRule, PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.policy.schema.expectation import AtMost, at_most
from killswitch.runner.expectation_check import ExpectationCheck, has_begun
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, World, book, crash_policy

NOTHING = ExpectationRule(at_most("at most 0"), at_most("at most 0%"))
EQUITIES = ("1100", "1050", "850", "850", "850")
"""A fall of 23% at the third tick; the book is 1,100 at its start."""


def policies(expect: ExpectationRule | None) -> PolicySet:
    """The set that closes everything at a loss of 10%, with this expectation."""
    return graphs.policy_set(replace(crash_policy(), expect=expect))


def run(folder: Path, expect: ExpectationRule | None) -> tuple[list[Decision], list[Notice], ScriptedVenue]:
    """Decisions, notices and the venue of a run through the fall, armed, on a store of its own."""
    folder.mkdir()
    world, venue, seen = World(folder), ScriptedVenue(book(EQUITIES[0])), Seen()
    policy_set = policies(expect)

    async def whole() -> None:
        runner = world.runner(
            world.open(), [venue], policies=policy_set, witnesses=(ExpectationCheck(policy_set), seen)
        )
        await runner.start()
        for equity in EQUITIES:
            if not venue.sent:
                venue.answer = replace(book(equity), observed_at=world.clock.now())
            await runner.tick()
            await runner.close_within(5)
            await world.clock.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    try:
        asyncio.run(whole())
    finally:
        world.close()
    decisions = [each for report in seen.reports for each in report.decisions]
    return decisions, [each for report in seen.reports for each in report.notices], venue


def acted(decisions: list[Decision], venue: ScriptedVenue) -> tuple[list[object], list[object]]:
    """What was decided and what the venue was sent, without ids, which follow from the digest."""
    return (
        [replace(each, id="", policy_set="") for each in decisions],
        [(each.symbol, each.side, each.amount) for each in venue.sent],
    )


def test_a_run_over_its_expectation_pages_and_acts(tmp_path: Path) -> None:
    """The book of one position, where none was expected: two pages, and the whole position is sold all the same."""
    decisions, notices, venue = run(tmp_path / "over", NOTHING)
    pages = [each.text for each in notices if each.severity == "page" and "expects" in each.text]
    assert len(pages) == 2
    assert any("expects at most 0 accounts, and has 1 account of 1: main" in text for text in pages)
    assert any("expects at most 0% positions, and has 1 position of 1: BTC on main" in text for text in pages)
    assert [each.stage for each in decisions if each.stage is not None] == ["close-everything"]
    assert [(each.side, str(each.amount)) for each in venue.sent] == [("sell", "10")]
    assert (tmp_path / "over" / "locks" / "account__main.json").exists()


bounds = st.none() | st.integers(0, 3).map(lambda count: AtMost(count, None, f"at most {count}"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds, bounds)
def test_nothing_that_fires_is_declined_or_cut_whatever_is_expected(
    tmp_path_factory: pytest.TempPathFactory, accounts: AtMost | None, positions: AtMost | None
) -> None:
    """The same decisions at the same times, the same locks, the same orders at the venue."""
    folder = tmp_path_factory.mktemp("runs")
    plain, _, venue = run(folder / "plain", None)
    stated, _, other = run(folder / "stated", ExpectationRule(accounts, positions))
    assert acted(stated, other) == acted(plain, venue)
    assert venue.sent


def test_the_store_of_a_run_that_has_fired_is_no_first_start(tmp_path: Path) -> None:
    """A new store is; that of a run whose stage is latched is not, also without its lock files."""
    empty = World(tmp_path)
    assert not has_begun(empty.open(), tmp_path / "locks")
    empty.close()
    run(tmp_path / "fired", NOTHING)
    fired = World(tmp_path / "fired")
    assert has_begun(fired.open(), tmp_path / "no locks")
    fired.close()
