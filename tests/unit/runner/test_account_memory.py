"""What a run leaves for the next one: which symbols were held lately, and the rules of their markets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from killswitch.accounts.redaction import RedactedAdapter, Redactor
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import RememberingVenue, RuleKeepingVenue, VenueDownError
from killswitch.runner.account_memory import SYMBOLS_NAME
from killswitch.store.sql import SqlStore
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, World, crash_policy, observing

POLICIES = graphs.policy_set(observing(crash_policy()))
FLAT = worlds.account("1000", ())


class Attentive(ScriptedVenue):
    """Notes what it is told before the first snapshot; has rules to keep once."""

    def __init__(self, answer: AccountSnapshot | BaseException) -> None:
        super().__init__(answer)
        self.remembered: list[tuple[list[str], datetime | None]] = []
        self.rules: list[bytes] = []
        self.to_keep: bytes | None = b"rules of BTC"

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        assert self.reads == 0
        self.remembered.append((sorted(symbols), since))

    def rules_to_keep(self) -> bytes | None:
        kept, self.to_keep = self.to_keep, None
        return kept

    def use_rules(self, kept: bytes) -> None:
        assert self.reads == 0
        self.rules.append(kept)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def holding(*symbols: str) -> AccountSnapshot:
    return worlds.account("1000", tuple(worlds.position(symbol, "long", "0") for symbol in symbols))


def run(world: World, store: SqlStore, venue: Attentive, *answers: AccountSnapshot | BaseException) -> None:
    """A run of a tick a second, each with its answer."""

    async def whole() -> None:
        runner = world.runner(store, [venue], armed=False, policies=POLICIES)
        await runner.start()
        for answer in answers:
            venue.answer = answer
            await runner.tick()
            await world.clock.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(whole())


def test_symbols_of_the_last_run_are_told_before_anything_is_asked_and_since_when(world: World) -> None:
    """BTC and ETH were held, ETH closed a second before the end; the last tick was at one second past the start."""
    store, first, second = world.open(), Attentive(FLAT), Attentive(FLAT)
    run(world, store, first, holding("BTC", "ETH"), holding("BTC"))
    assert first.remembered == []
    run(world, store, second, holding("BTC"))
    assert second.remembered == [(["BTC", "ETH"], worlds.START + timedelta(seconds=1))]
    assert (first.rules, second.rules) == ([], [b"rules of BTC"])


def test_what_an_account_held_outlives_an_outage_and_says_no_time_then(world: World) -> None:
    """The last tick could not read it: how far back its rows are missing is not known."""
    store = world.open()
    run(world, store, Attentive(FLAT), holding("BTC"), VenueDownError("away"))
    run(world, store, Attentive(FLAT), VenueDownError("away"))
    third = Attentive(FLAT)
    run(world, store, third, FLAT)
    assert third.remembered == [(["BTC"], None)]


def test_a_symbol_that_was_held_long_ago_is_forgotten(world: World) -> None:
    """After five minutes its rows have come."""
    store, second = world.open(), Attentive(FLAT)
    run(world, store, Attentive(FLAT), holding("BTC"), *[FLAT] * 302)
    run(world, store, second, FLAT)
    assert [symbols for symbols, _ in second.remembered] == [[]]


def test_what_was_closed_between_two_runs_is_told_to_the_one_after_too(world: World) -> None:
    """ETH was closed while nobody looked; the second run has a tick, which may be too early for its rows."""
    store, third = world.open(), Attentive(FLAT)
    run(world, store, Attentive(FLAT), holding("BTC", "ETH"))
    run(world, store, Attentive(FLAT), holding("BTC"))
    run(world, store, third, FLAT)
    assert [symbols for symbols, _ in third.remembered] == [["BTC", "ETH"]]


def test_what_was_closed_between_two_runs_is_forgotten_five_minutes_after_the_second_began(world: World) -> None:
    """By then its rows have come."""
    store, third = world.open(), Attentive(FLAT)
    run(world, store, Attentive(FLAT), holding("BTC", "ETH"))
    run(world, store, Attentive(FLAT), *[holding("BTC")] * 302)
    run(world, store, third, FLAT)
    assert [symbols for symbols, _ in third.remembered] == [["BTC"]]


def test_what_another_version_left_is_passed_over(world: World) -> None:
    """It is not the end of a run."""
    store, second = world.open(), Attentive(FLAT)
    run(world, store, Attentive(FLAT), holding("BTC"))
    store.put_live(SYMBOLS_NAME, b'{"accounts": 7}')
    run(world, store, second, FLAT)
    assert second.remembered == []


def test_what_hides_credentials_passes_these_calls_on() -> None:
    """They answer at once, so nothing of them is awaited."""
    venue = Attentive(FLAT)
    hidden = RedactedAdapter(venue, Redactor(["SECRET"]))
    assert isinstance(hidden, RememberingVenue)
    assert isinstance(hidden, RuleKeepingVenue)
    hidden.remember(["BTC"])
    assert (venue.remembered, hidden.rules_to_keep()) == ([(["BTC"], None)], b"rules of BTC")
