"""`top_up_margin` in a run at the paper market: once, across a restart, and refused where no adapter offers it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import PolicySet
from killswitch.market.paper import PaperMarket
from killswitch.runner.assembly import assemble
from killswitch.runner.observers import TickReport
from killswitch.runner.performers import CapabilityError
from killswitch.store.sql import SqlStore
from killswitch_paper.local import LocalVenue
from tests.backtests import written
from tests.markets import FREE, START, bar, instrument
from tests.runner_world import PACE, World

_POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: margin}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [main]}}}}
  max_gap: 48h
  triggers:
    high: {{signal: exposure.margin_ratio, at_least: {at_least}, on_unknown: hold}}
  stages:
    - name: top-up
      level: 1
      any: [high]
      cooldown: 0s
      reset: {{auto: {{when: 'exposure.margin_ratio < {below}', for: 0s}}}}
      actions:
        - lock_trading: {{mode: reduce_only}}
        - top_up_margin: {{from: treasury, to_ratio: {to_ratio}, at_most: 400 USDT, keep: 500 USDT}}
"""


def topped_up(at_least: str, below: str, to_ratio: str) -> PolicySet:
    """A policy that moves up to 400 from `treasury` to `main`, where the margin ratio is `at_least`; 500 stay there."""
    return written(_POLICY.format(at_least=at_least, below=below, to_ratio=to_ratio))


POLICIES = topped_up("50%", "0.4", "30%")
NEEDED = Decimal("333.33333334")
"""50 contracts bought at 100 with 1,000: at 88 the equity is 400, and 5% of 4,400 is 220, which is 30% of 733.33."""


class Silent(LocalVenue):
    """An account whose transfers arrive at the venue, if `arrives`, and are never answered. `lists`: whether the venue
    has a list of them."""

    def __init__(self, account: str, market: PaperMarket, world: World, *, arrives: bool, lists: bool) -> None:
        super().__init__(account, market, world.clock)
        assert self.transfers is not None
        self.requests: list[str] = []
        send = self.transfers.send

        async def sent(to: str, amount: Decimal, transfer: str) -> None:
            self.requests.append(transfer)
            if arrives:
                await send(to, amount, transfer)
            await asyncio.Event().wait()

        self.transfers = replace(self.transfers, send=sent, find=self.transfers.find if lists else None)


class Falling:
    """An observer that lets the price fall to 88 after the first tick."""

    def __init__(self, market: PaperMarket) -> None:
        self._market = market
        self.texts: list[str] = []

    def ticked(self, report: TickReport) -> None:
        self.texts += [*report.problems, *(each.text for each in report.notices)]
        if self._market.now == START:
            self._market.advance(START + timedelta(milliseconds=1), {"A": bar("88")})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, START)
    yield made
    made.close()


def paper() -> PaperMarket:
    """An account at 10 times, and one with money."""
    rules = replace(FREE, maintenance=Decimal("0.05"))
    market = PaperMarket([instrument("A")], seed=1, rules=rules)
    market.add_account("main", market="swap", currency="USDT", wallet=Decimal(1000), leverage=Decimal(10))
    market.add_account("treasury", market="swap", currency="USDT", wallet=Decimal(5000))
    market.advance(START, {"A": bar("100")})
    market.open_position("main", "A", "long", Decimal(5000))
    return market


def run(
    world: World, store: SqlStore, market: PaperMarket, venues: Sequence[LocalVenue], ticks: int = 6,
    armed: Sequence[str] = ("main", "treasury"),
) -> Falling:  # fmt: skip
    """One run of these accounts, with the price falling after its first tick."""
    accounts = {
        each.account: ArmedAccount(each.account, "paper", "swap", "USDT", each, armed=each.account in armed)
        for each in venues
    }
    seen = Falling(market)
    runner = assemble(
        POLICIES, accounts, store, world.clock, PACE, live=True, locks=world.locks, observers=(seen,), is_run=True
    )
    asyncio.run(runner.run(asyncio.Event(), ticks))
    return seen


def equities(market: PaperMarket) -> dict[str, Decimal | None]:
    return {name: market.snapshot(name).equity for name in market.accounts}


def journal(store: SqlStore) -> list[tuple[str, str | None]]:
    return [(it.kind, it.data.get("status")) for it in store.journal() if it.data.get("effect") == "transfer"]


def test_the_paper_venue_moves_the_margin_once_and_the_stage_is_reset(world: World) -> None:
    """Over ten ticks one transfer ends the alarm: the ratio is 30%, and what the source lacks the account has."""
    market, store = paper(), world.open()
    venues = [LocalVenue(name, market, world.clock) for name in ("main", "treasury")]
    seen = run(world, store, market, venues, ticks=10)
    assert equities(market) == {"main": 400 + NEEDED, "treasury": 5000 - NEEDED}
    assert journal(store) == [("planned", None), ("finished", "sent"), ("finished", "moved")]
    assert [each.decision.kind for each in reversed(store.decisions(9))] == [None, "reset"]
    assert not [text for text in seen.texts if "margin" in text]


@pytest.mark.parametrize("arrives", [True, False])
def test_a_run_that_is_stopped_before_the_answer_sends_nothing_again(world: World, arrives: bool) -> None:
    """The next two runs find the request without an answer: they page, and move nothing, whether it has arrived."""
    market, store = paper(), world.open()
    venues = [Silent(name, market, world, arrives=arrives, lists=False) for name in ("main", "treasury")]
    run(world, store, market, venues)
    assert len(venues[1].requests) == 1 and journal(store)[-1] == ("finished", "sent")
    seen = [run(world, store, market, venues) for _ in range(2)]
    assert len(venues[1].requests) == 1
    assert any("the run ended before the venue answered" in text for text in seen[0].texts)
    assert equities(market)["main"] == (400 + NEEDED if arrives else 400)


@pytest.mark.parametrize(
    ("arrives", "end", "page"), [(True, "moved", None), (False, "refused", "refused it, and nothing has moved")]
)
def test_the_next_run_looks_up_a_transfer_whose_answer_was_lost(
    world: World, arrives: bool, end: str, page: str | None
) -> None:
    """Where the venue lists transfers: one that arrived pages nobody, one that did not is not sent again."""
    market, store = paper(), world.open()
    venues = [Silent(name, market, world, arrives=arrives, lists=True) for name in ("main", "treasury")]
    run(world, store, market, venues)
    assert journal(store)[-1] == ("finished", "sent")
    seen = run(world, store, market, venues)
    assert len(venues[1].requests) == 1 and journal(store)[-1] == ("finished", end)
    texts = [text for text in seen.texts if "decision" in text and "of margin" in text]
    assert all(page is not None and page in text for text in texts) and bool(texts) == (page is not None)
    assert equities(market)["main"] == (400 + NEEDED if arrives else 400)


def test_a_set_is_refused_where_an_account_cannot_take_part(world: World) -> None:
    """With its place, the account and why: no capability of either, a source that is not armed, another place."""
    market, store = paper(), world.open()
    plain, away = (LocalVenue("treasury", market, world.clock) for _ in range(2))
    plain.transfers = None
    assert away.transfers is not None
    away.transfers = replace(away.transfers, place="elsewhere")
    main, bare = (LocalVenue("main", market, world.clock) for _ in range(2))
    bare.transfers = None
    source = LocalVenue("treasury", market, world.clock)
    for venues, armed, why in (
        (
            [bare, source],
            ["main", "treasury"],
            "on account main: the adapter of venue paper does not offer `transfers`",
        ),
        ([main, plain], ["main", "treasury"], "the adapter of its source treasury does not offer `transfers`"),
        ([main, source], ["main"], "its source treasury is not armed"),
        ([main, away], ["main", "treasury"], "its source treasury is at another place of paper"),
    ):
        with pytest.raises(CapabilityError, match=r"policy.yaml:12: `top_up_margin` of stage top-up") as raised:
            run(world, store, market, venues, armed=armed)
        assert why in str(raised.value)
