"""What a run stores for the next one: the symbols held lately, and the rules of their markets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

from killswitch.accounts.redaction import RedactedAdapter, Redactor
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import RuleKeeping, VenueDownError
from killswitch.runner.account_memory import SYMBOLS_NAME
from killswitch.store.sql import SqlStore
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, World, crash_policy, observing

POLICIES = graphs.policy_set(observing(crash_policy()))
FLAT = worlds.account("1000", ())


class RecordingVenue(ScriptedVenue):
    """Records what it gets before the first snapshot; has rules to keep once."""

    def __init__(self, answer: AccountSnapshot | BaseException) -> None:
        super().__init__(answer)
        self.remembered: list[tuple[list[str], datetime | None]] = []
        self.rules: list[bytes] = []
        self.to_keep: bytes | None = b"rules of BTC"
        self.kept_rules = RuleKeeping(self._rules_to_keep, self._use_rules)

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        assert self.reads == 0
        self.remembered.append((sorted(symbols), since))

    def _rules_to_keep(self) -> bytes | None:
        kept, self.to_keep = self.to_keep, None
        return kept

    def _use_rules(self, kept: bytes) -> None:
        assert self.reads == 0
        self.rules.append(kept)


def holding(*symbols: str) -> AccountSnapshot:
    return worlds.account("1000", tuple(worlds.position(symbol, "long", "0") for symbol in symbols))


def run(world: World, store: SqlStore, venue: RecordingVenue, *answers: AccountSnapshot | BaseException) -> None:
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


def test_symbols_of_the_last_run_are_passed_on_before_the_first_request_with_their_time(world: World) -> None:
    """BTC and ETH were held, ETH closed a second before the end; the last tick was one second after the start."""
    store, first, second = world.open(), RecordingVenue(FLAT), RecordingVenue(FLAT)
    run(world, store, first, holding("BTC", "ETH"), holding("BTC"))
    assert first.remembered == []
    run(world, store, second, holding("BTC"))
    assert second.remembered == [(["BTC", "ETH"], worlds.START + timedelta(seconds=1))]
    assert (first.rules, second.rules) == ([], [b"rules of BTC"])


def test_held_symbols_survive_an_outage_without_a_time(world: World) -> None:
    """The last tick could not read the account: how far back its rows are missing is unknown."""
    store = world.open()
    run(world, store, RecordingVenue(FLAT), holding("BTC"), VenueDownError("away"))
    run(world, store, RecordingVenue(FLAT), VenueDownError("away"))
    third = RecordingVenue(FLAT)
    run(world, store, third, FLAT)
    assert third.remembered == [(["BTC"], None)]


def test_a_symbol_held_long_ago_is_forgotten(world: World) -> None:
    """After five minutes its rows have arrived."""
    store, second = world.open(), RecordingVenue(FLAT)
    run(world, store, RecordingVenue(FLAT), holding("BTC"), *[FLAT] * 302)
    run(world, store, second, FLAT)
    assert [symbols for symbols, _ in second.remembered] == [[]]


def test_a_symbol_closed_between_two_runs_is_passed_on_to_the_one_after_too(world: World) -> None:
    """ETH was closed while no runner ran; the second run has one tick, which may be too early for its rows."""
    store, third = world.open(), RecordingVenue(FLAT)
    run(world, store, RecordingVenue(FLAT), holding("BTC", "ETH"))
    run(world, store, RecordingVenue(FLAT), holding("BTC"))
    run(world, store, third, FLAT)
    assert [symbols for symbols, _ in third.remembered] == [["BTC", "ETH"]]


def test_a_symbol_closed_between_two_runs_is_forgotten_five_minutes_after_the_second_began(world: World) -> None:
    """By then its rows have arrived."""
    store, third = world.open(), RecordingVenue(FLAT)
    run(world, store, RecordingVenue(FLAT), holding("BTC", "ETH"))
    run(world, store, RecordingVenue(FLAT), *[holding("BTC")] * 302)
    run(world, store, third, FLAT)
    assert [symbols for symbols, _ in third.remembered] == [["BTC"]]


def test_the_record_of_another_version_is_ignored(world: World) -> None:
    """It is not taken for the end of a run."""
    store, second = world.open(), RecordingVenue(FLAT)
    run(world, store, RecordingVenue(FLAT), holding("BTC"))
    store.put_live(SYMBOLS_NAME, b'{"accounts": 7}')
    run(world, store, second, FLAT)
    assert second.remembered == []


def test_the_redacting_adapter_passes_these_calls_on() -> None:
    """They answer at once, so nothing of them is awaited."""
    venue = RecordingVenue(FLAT)
    hidden = RedactedAdapter(venue, Redactor(["SECRET"]))
    assert hidden.remember is not None and hidden.kept_rules is not None
    hidden.remember(["BTC"], None)
    assert (venue.remembered, hidden.kept_rules.to_keep()) == ([(["BTC"], None)], b"rules of BTC")
