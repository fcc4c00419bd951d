"""Live drills at a wire-level venue, next to a real runner, and the approvals that let one begin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path

import pytest
from click import ClickException
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.cli.lab.live_drill import one_at_a_time
from killswitch.execution.client_order_id import DRILL_MARK, drill_order_id
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order, WatchedPrice
from killswitch.model.store import LIVE_DRILLS
from killswitch.model.venue import AccountSpec, ClientIdRule, OrderReport, OrderRequest, VenueAdapter, is_ours
from killswitch.operations.drills.live import live_result
from killswitch.operations.drills.live_checks import (
    LiveOrder,
    RefusedDrillError,
    drill_approvals,
    drill_digest,
    drill_subject,
    opening_order,
    why_not_now,
)
from killswitch.operations.drills.live_run import (
    LiveDrill,
    LiveRun,
    live_runs,
    run_to_continue,
    state_text,
)
from killswitch.operations.drills.measures import COMPLETED
from killswitch.operations.status import store_status
from killswitch.policy.schema.drill import DrillDocument, LivePosition
from killswitch.source.approval_rules import Given
from killswitch.source.statement_signatures import verify_all
from killswitch.source.statements import Purpose
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter as ccxt
from tests import worlds
from tests.faults.mishaps import MISHAPS, Rule, Script
from tests.latency.sites import VENUES, WARM_UP, Site
from tests.unit.source.approval_keys import DAY, HOUR, NOW, ssh_signer, statement, trust_of
from tests.virtual_time import VirtualTime

D = Decimal
SYMBOL = "BTC/USDT:USDT"
"""A symbol of the venue in which the account holds nothing, at 50,000."""
BOOK = {("ETH/USDT:USDT", "long"): D(600), ("SOL/USDT:USDT", "long"): D(400), ("XRP/USDT:USDT", "short"): D(200)}


def document(**live: object) -> DrillDocument:
    position = {"account": "main", "symbol": SYMBOL, "most": "1"} | live
    spec = {"mode": "live", "every": "90d", "live": position}
    return DrillDocument.model_validate(
        {"apiVersion": "killswitch.dev/v1", "kind": "Drill", "metadata": {"name": "quarterly"}, "spec": spec}
    )


def position(**live: object) -> LivePosition:
    found = document(**live).spec.live
    assert found is not None
    return found


class DrillSite(Site):
    """The Binance site of the latency suite, with a drill next to its runner."""

    def __init__(self, folder: Path, time: VirtualTime) -> None:
        super().__init__(VENUES["binance"], folder, time)
        self.store_at = str(folder / "store.sqlite")
        self.event: str | None = None
        """A real event, while there is one."""

    @cached_property
    def client(self) -> VenueAdapter:
        """A second client of the account, as `ksctl drill live` opens one."""
        options: dict[str, object] = {"clock": self.clock, "timeout": 5}
        return ccxt(
            AccountSpec(
                account="main", adapter="ccxt", market="swap", currency="USDT", endpoint=self.wire.address,
                options=options, credentials=dict(self.venue.credentials), exchange=self.venue.exchange,
                watch=(SYMBOL,),
            )
        )  # fmt: skip

    def drill(self, store: SqlStore) -> LiveDrill:
        return LiveDrill(store, self.client, self.clock, lambda: self.event)

    @property
    def sent(self) -> list[str]:
        """The client order ids that the venue has, in their order."""
        return [it.name or "" for it in self.wire.exchange.orders.values()]

    @property
    def held(self) -> dict[tuple[str, str], Decimal]:
        return {(symbol, side): held for (symbol, side), held in self.wire.exchange.held.items() if held}


Work = Callable[[DrillSite, SqlStore, LiveDrill], Awaitable[LiveRun]]


def at_the_venue(folder: Path, work: Work) -> tuple[DrillSite, LiveRun]:
    """Run `work` while a runner ticks; the site and the run as it ended."""
    time = VirtualTime()
    site = DrillSite(folder, time)

    async def main() -> LiveRun:
        await site.open()
        site.start()
        await time.sleep(WARM_UP)
        store = open_store(site.store_at)
        try:
            return await work(site, store, site.drill(store))
        finally:
            store.close()
            await site.client.close()
            await site.close()

    ended = time.run(main())
    assert site.observed.problems == []
    return site, ended


async def opened_and_closed(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
    return await drill.open_and_close("quarterly", position(), "olga", ("ann", "ben"), ("id-1", "id-2"))


def test_the_smallest_position_is_opened_and_closed_by_the_runner(tmp_path: Path) -> None:
    """One purchase under the mark of drills, one sale under ours, and no other position has changed."""
    site, run = at_the_venue(tmp_path, opened_and_closed)
    assert (run.state, run.filled) == ("closed", run.amount)
    assert D(0) < run.amount <= 1
    opening, *closing = site.sent
    assert opening == run.order
    assert opening.startswith(DRILL_MARK)
    assert closing and all(is_ours(name) for name in closing)
    assert site.held == BOOK
    bought, sold = (
        sum((fill.amount for fill in site.wire.exchange.fills if fill.side == side), D(0)) for side in ("buy", "sell")
    )
    assert bought == sold == run.amount
    assert {fill.symbol for fill in site.wire.exchange.fills} == {SYMBOL}


def test_a_live_drill_is_measured_from_the_record_of_the_runner(tmp_path: Path) -> None:
    """Decision within two ticks, flat within a minute, and slippage from fills at 0.05% under the mark."""
    site, run = at_the_venue(tmp_path, opened_and_closed)
    store = open_store(site.store_at, read_only=True)
    try:
        result = live_result(document(), run, store, site.store_at, datetime.now(UTC), interrupted=None)
        other = live_result(document(), run, store, site.store_at, datetime.now(UTC), interrupted="a real event: x")
    finally:
        store.close()
    assert result.ended == COMPLETED
    found = {each.what: each.value for each in result.measures}
    assert 0 <= (found["time to decision"] or 99) <= 2.5
    assert 0 <= (found["time to flat"] or 99) <= 60
    assert found["closed"] == 1.0
    assert (other.measures, other.is_passed) == ((), False)
    assert "nothing of BTC/USDT:USDT on main is left" in other.ended


@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled"])
def test_an_order_without_an_answer_is_asked_for_and_not_sent_again(tmp_path: Path, mishap: str) -> None:
    """It arrived: the venue has it once, and the runner closes it."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        site.wire.mishaps = Script(Rule("submit", mishap, symbol=SYMBOL))  # type: ignore[arg-type]  # a mishap
        return await opened_and_closed(site, store, drill)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert sum(name.startswith(DRILL_MARK) for name in site.sent) == 1
    assert site.held == BOOK


@pytest.mark.parametrize("changed", [{"filled": D(5)}, {"client_order_id": "of-another", "filled": D(0)}])
def test_an_answer_that_cannot_be_true_of_the_order_is_not_believed(tmp_path: Path, changed: dict[str, object]) -> None:
    """The venue answers that 5 of 0.001 were filled, or about another order: the position of the order is closed."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        submit = site.client.submit

        async def lies(request: OrderRequest) -> OrderReport:
            return replace(await submit(request), **changed)

        site.client.submit = lies  # type: ignore[method-assign]  # the venue answers this
        return await opened_and_closed(site, store, drill)

    site, run = at_the_venue(tmp_path, work)
    assert (run.state, run.filled) == ("closed", run.amount)
    assert site.held == BOOK


@pytest.mark.parametrize("mishap", ["lost", "down", "limited"])
def test_an_order_that_never_arrived_opens_nothing(tmp_path: Path, mishap: str) -> None:
    """Nothing is sent again, no command is given, and the approvals are spent."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        site.wire.mishaps = Script(Rule("submit", mishap, symbol=SYMBOL))  # type: ignore[arg-type]  # a mishap
        return await opened_and_closed(site, store, drill)

    site, run = at_the_venue(tmp_path, work)
    assert (run.state, run.command, run.spent) == ("not_opened", None, ("id-1", "id-2"))
    assert site.sent == []
    assert site.held == BOOK


def test_a_request_that_arrives_late_is_found(tmp_path: Path) -> None:
    """The connection breaks, and the order arrives a second later: an early "no such order" is not believed."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        site.wire.mishaps = Script(Rule("submit", "late", symbol=SYMBOL))
        return await opened_and_closed(site, store, drill)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert site.held == BOOK


@pytest.mark.parametrize(
    ("mishap", "after"),
    [
        *((each, "none") for each in (*MISHAPS["submit"], "held")),
        *((each, after) for each in ("done", "late") for after in ("empty", "lagging", "nonsense", "down")),
    ],
)
def test_whatever_happens_to_the_order_it_is_sent_once_and_no_other_position_changes(
    tmp_path: Path, mishap: str, after: str
) -> None:
    """Each fault of the wire at the order, and one more at the first question about it: the drill ends in a state that
    is true at the venue, or says that it does not know."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        rules = [Rule("submit", mishap, symbol=SYMBOL)]  # type: ignore[arg-type]  # a mishap
        rules += [] if after == "none" else [Rule("find_order", after, symbol=SYMBOL, times=2)]  # type: ignore[arg-type]  # likewise
        site.wire.mishaps = Script(*rules)
        run = await opened_and_closed(site, store, drill)
        await site.time.sleep(60)  # nothing arrives after that
        return run

    site, run = at_the_venue(tmp_path, work)
    assert sum(name.startswith(DRILL_MARK) for name in site.sent) <= 1
    assert {key: held for key, held in site.held.items() if key[0] != SYMBOL} == BOOK
    assert site.wire.exchange.turned == []
    if run.state in ("closed", "not_opened"):
        assert site.held == BOOK
    else:
        assert run.why
    assert run.state == "not_opened" or mishap not in ("lost", "silent", "down", "limited")


@pytest.mark.parametrize("mishap", ["done", "late"])
def test_position_that_is_there_is_not_taken_for_an_order_that_was_not_opened(tmp_path: Path, mishap: str) -> None:
    """The venue answers for minutes that it has no such order, and shows its position: the drill has not ended. Once
    the venue finds the order, the drill is continued, and closes it."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        rules = [Rule("submit", mishap, symbol=SYMBOL), Rule("find_order", "empty", symbol=SYMBOL, times=10_000)]  # type: ignore[arg-type]  # a mishap
        site.wire.mishaps = Script(*rules)
        run = await opened_and_closed(site, store, drill)
        assert site.held[SYMBOL, "long"] == run.amount
        assert (run.state, run.filled) == ("unknown", None)
        assert "shows" in run.why
        site.wire.mishaps = Script()
        return await drill.finish(run)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert sum(name.startswith(DRILL_MARK) for name in site.sent) == 1
    assert site.held == BOOK


def test_a_live_drill_leaves_the_requests_of_the_account_to_its_runner(tmp_path: Path) -> None:
    """Kraken Futures allows 40 queries of ended orders in ten minutes, of drill and runner together: in the three
    minutes without an answer the drill uses half at most. Of a position that is not as expected it reads eight
    snapshots in half a minute, which at Binance are 152 of the 2,400 that a minute has."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        asked = {"find_order": 0, "snapshot": 0}
        find_order, snapshot = site.client.find_order, site.client.snapshot

        async def found(symbol: str, client_order_id: str) -> OrderReport | None:
            asked["find_order"] += 1
            return await find_order(symbol, client_order_id)

        async def read() -> AccountSnapshot:
            asked["snapshot"] += 1
            return await snapshot()

        site.client.find_order, site.client.snapshot = found, read  # type: ignore[method-assign]  # counts them
        site.wire.mishaps = Script(
            Rule("submit", "done", symbol=SYMBOL), Rule("find_order", "down", symbol=SYMBOL, times=10_000)
        )
        run = await opened_and_closed(site, store, drill)
        assert run.state == "unknown"
        assert 5 <= asked["find_order"] <= 20
        site.wire.mishaps = Script()
        site.wire.exchange.trade((SYMBOL, "long"), D(1), "hand")
        asked["snapshot"] = 0
        run = await drill.finish(run)
        assert 5 <= asked["snapshot"] <= 8
        return run

    _, run = at_the_venue(tmp_path, work)
    assert run.state == "left"


class KilledError(Exception):
    """The process of the drill dies here."""


def test_a_drill_that_was_killed_after_its_order_is_continued_without_another_one(tmp_path: Path) -> None:
    """The record names the order; `--continue` asks for it, and has the runner close it. Nobody begins another one."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        submit = site.client.submit

        async def killed(request: OrderRequest) -> OrderReport:
            await submit(request)
            raise KilledError

        site.client.submit = killed  # type: ignore[method-assign]  # the process dies while it waits for the answer
        with pytest.raises(KilledError):
            await opened_and_closed(site, store, drill)
        site.client.submit = submit  # type: ignore[method-assign]  # that of the next process
        (left,) = live_runs(store)
        assert left.state == "announced"
        assert "--continue" in state_text(left)
        with pytest.raises(RefusedDrillError, match="has not ended"):
            await opened_and_closed(site, store, drill)
        return await drill.finish(left)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert sum(name.startswith(DRILL_MARK) for name in site.sent) == 1
    assert site.held == BOOK


def test_only_the_drill_and_the_position_that_are_left_are_continued(store: SqlStore) -> None:
    """Another account has neither the order nor the position of the run: it would end as not opened."""
    with pytest.raises(RefusedDrillError, match="no live drill on this store is left"):
        run_to_continue(store, "quarterly", position())
    left = LiveRun("quarterly", "drill1", "main", SYMBOL, D("0.001"), datetime.now(UTC), "olga", (), ())
    store.put_live(LIVE_DRILLS, msgjson.encode((left,)))
    assert run_to_continue(store, "quarterly", position(most="2")) == left
    for name, live in (
        ("yearly", position()),
        ("quarterly", position(account="other")),
        ("quarterly", position(symbol="ETH/USDT:USDT")),
    ):
        with pytest.raises(RefusedDrillError, match=f"what is left is {SYMBOL} on main of the live drill quarterly"):
            run_to_continue(store, name, live)


def test_two_live_drills_do_not_run_on_one_store_by_two_names(tmp_path: Path) -> None:
    """A link to the file of the store is the same store."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link.sqlite").symlink_to(tmp_path / "store.sqlite")
    (tmp_path / "store.sqlite").touch()
    with (
        one_at_a_time(str(tmp_path / "store.sqlite")),
        pytest.raises(ClickException, match="another live drill of this store runs"),
        one_at_a_time(str(tmp_path / "other" / "link.sqlite")),
    ):
        pass


def test_a_position_that_somebody_enlarged_is_left_alone(tmp_path: Path) -> None:
    """A bot buys one more after the command: the runner refuses it, and the drill says what it left."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        given = store.put_event

        def enlarged(event: object) -> None:
            site.wire.exchange.trade((SYMBOL, "long"), D(1), "hand")
            given(event)  # type: ignore[arg-type]  # an event

        store.put_event = enlarged  # type: ignore[method-assign]  # the bot buys at this moment
        return await opened_and_closed(site, store, drill)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "left"
    assert "part of it is somebody else's" in run.why
    assert site.held[SYMBOL, "long"] == run.amount + 1
    assert len(site.sent) == 1


def test_a_real_event_before_the_order_opens_nothing(tmp_path: Path) -> None:
    """It is refused, and nothing is on record."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        site.event = "decision abc, close-everything on account/main"
        with pytest.raises(RefusedDrillError, match="a real event comes first"):
            await opened_and_closed(site, store, drill)
        assert live_runs(store) == ()
        site.event = None
        return await opened_and_closed(site, store, drill)

    _, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"


def test_a_crash_in_the_middle_closes_the_whole_book_and_the_drill_with_it(tmp_path: Path) -> None:
    """The stage fires while the drill's position is open: nothing is left of either, and nothing was sold twice."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        given = store.put_event

        def crash(event: object) -> None:
            site.fall(D("0.2"))
            given(event)  # type: ignore[arg-type]  # an event

        store.put_event = crash  # type: ignore[method-assign]  # the market falls at this moment
        run = await opened_and_closed(site, store, drill)
        await site.time.sleep(60)
        return run

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert site.held == {}
    assert site.wire.exchange.turned == []


def test_a_runner_that_died_leaves_a_command_that_the_next_one_carries_out(tmp_path: Path) -> None:
    """The drill waits five minutes, says that the close waits for a runner, and is continued once there is one."""

    async def work(site: DrillSite, store: SqlStore, drill: LiveDrill) -> LiveRun:
        given = store.put_event

        def dies(event: object) -> None:
            site.stop_ticking()
            given(event)  # type: ignore[arg-type]  # an event

        store.put_event = dies  # type: ignore[method-assign]  # the runner dies at this moment
        run = await opened_and_closed(site, store, drill)
        assert run.state == "closing"
        assert "waits for a runner" in state_text(run)
        await site.kill()
        assert site.held == BOOK | {(SYMBOL, "long"): run.amount}
        site.start()
        return await drill.finish(run)

    site, run = at_the_venue(tmp_path, work)
    assert run.state == "closed"
    assert sum(name.startswith(DRILL_MARK) for name in site.sent) == 1
    assert site.held == BOOK


# What is refused


def held(*rows: object, **more: object) -> AccountSnapshot:
    rules = Instrument("BTC", D(1), amount_step=D("0.001"), min_amount=D("0.001"), min_notional=D(100))
    found = worlds.account("1000", rows, instruments=(rules,), **more)  # type: ignore[arg-type]  # rows of positions
    return replace(found, watched=(WatchedPrice("BTC", D(50_000)),), orders=found.orders or ())


def test_the_smallest_order_meets_the_smallest_notional() -> None:
    """100 USDT with 2% on top at 50,000 is 0.00204, in steps of 0.001 is 0.003."""
    assert opening_order(held(), position(symbol="BTC", most="0.01")) == LiveOrder("main", "BTC", D("0.003"))


@pytest.mark.parametrize(
    ("account", "live", "why"),
    [
        (held(worlds.position("BTC", "short", "0")), {}, "touches no position that is not its own"),
        (replace(held(), positions=None), {}, "positions of main are unknown"),
        (replace(held(), orders=None), {}, "resting orders of main are unknown"),
        (replace(held(), orders=(Order("o1", "BTC", "buy", D(1)),)), {}, "order o1 rests in BTC"),
        (replace(held(), quality="down", reason="maintenance"), {}, "cannot be read: maintenance"),
        (replace(held(), instruments=()), {}, "rules of BTC are unknown"),
        (replace(held(), watched=None), {}, "the price of BTC is unknown"),
        (held(), {"most": "0.002"}, "the smallest order in BTC is 0.003 contracts, above `most: 0.002`"),
    ],
)  # fmt: skip
def test_a_live_drill_is_refused_where_anything_is_unknown_or_held(
    account: AccountSnapshot, live: dict[str, object], why: str
) -> None:
    """Each reason alone is enough: no order is made of a guess."""
    found = opening_order(account, position(**{"symbol": "BTC", "most": "0.01"} | live))
    assert isinstance(found, tuple)
    assert why in "; ".join(found)


def test_no_live_drill_begins_without_a_runner_that_closes(store: SqlStore) -> None:
    """A store on which nothing runs would leave the position open."""
    (why,) = why_not_now(store_status(store, datetime.now(UTC), 0), position(), "sha256:0")
    assert "no runner is alive" in why


ANN, BEN = ssh_signer("ann@desk.example"), ssh_signer("ben@desk.example")


def counted(contents: list[bytes], *, needed: int = 2, author: str = "olga", spent: frozenset[str] = frozenset(),
            drill: DrillDocument | None = None, since: int | None = None) -> tuple[bool, str]:  # fmt: skip
    """Whether the approvals are enough, and why some do not count."""
    trust = trust_of([ANN, BEN, ssh_signer("ann@desk.example", 2)], needed)
    verified, problems = verify_all(contents, trust, NOW)
    found = drill_approvals(drill or document(), ("desk", None, None), Given(verified, spent, trust, since), author)
    return found.is_approved, "; ".join(each.line for each in (*found.not_counted, *problems))


def approval(by: object = ANN, purpose: Purpose = "drill", **more: object) -> bytes:
    fields = {
        "ref": None, "path": None, "base": None, "result": drill_digest(document()), "shown": None,
        "subject": drill_subject(document()),
    }  # fmt: skip
    return by.approval(statement(purpose, **(fields | more)))  # type: ignore[attr-defined,no-any-return]  # a signer


def test_two_people_approve_a_live_drill() -> None:
    """As many as a loosening needs, each of them once."""
    assert counted([approval(), approval(BEN)]) == (True, "")
    assert not counted([])[0]


@pytest.mark.parametrize(
    ("second", "more", "code"),
    [
        (approval(ssh_signer("ann@desk.example", 2)), {}, "KS8312"),  # the same person with another key
        (approval(BEN, given=NOW - 2 * DAY, expires=NOW - HOUR), {}, "KS8306"),
        (approval(BEN, purpose="recovery"), {}, "KS8309"),
        (approval(BEN, subject="quarterly: at most 9 BTC/USDT:USDT on main"), {}, "KS8308"),
        (approval(BEN, source="other"), {}, "KS8308"),
        (approval(BEN), {"author": "ben"}, "KS8311"),  # nobody approves what they run
        (approval(BEN), {"drill": document(most="2")}, "KS8308"),  # the document was edited since
    ],
)  # fmt: skip
def test_an_approval_that_does_not_count_is_named_with_its_code(
    second: bytes, more: dict[str, object], code: str
) -> None:
    """Expired, of the same person, of another purpose, drill, source or size, by whoever runs it: not enough."""
    approved, why = counted([approval(), second], **more)  # type: ignore[arg-type]  # options of the helper
    assert not approved
    assert code in why


def test_an_approval_counts_for_one_run() -> None:
    """What an earlier live drill has spent is not approved again."""
    contents = [approval(), approval(BEN)]
    verified, _ = verify_all(contents, trust_of([ANN, BEN]), NOW)
    approved, why = counted(contents, spent=frozenset({verified[0].id}))
    assert not approved
    assert "KS8310" in why


def test_an_approval_from_before_the_record_may_be_spent_and_is_given_again() -> None:
    """In the time that a restore has lost, or in another store of the account: nobody knows."""
    given = [approval(given=NOW - 2 * HOUR), approval(BEN, given=NOW - HOUR)]
    assert counted(given, since=NOW - 2 * HOUR)[0]
    approved, why = counted(given, since=NOW - 2 * HOUR + 1)
    assert not approved
    assert "KS8310" in why and "given before the record of this store began" in why


@pytest.mark.parametrize(
    ("rule", "form"),
    [(ClientIdRule(), r"drill[0-9a-z]{26}"), (ClientIdRule("plain", 20), r"drill[0-9a-z]{15}"),
     (ClientIdRule("hex"), r"0x6472696c6c[0-9a-f]{22}"),
     (ClientIdRule("uuid"), r"6472696c-6c[0-9a-f]{2}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}")],
)  # fmt: skip
def test_the_order_of_a_drill_is_never_taken_for_an_order_of_a_close(rule: ClientIdRule, form: str) -> None:
    """In each form that venues accept it begins with its own mark, and is not ours."""
    import re

    name = drill_order_id("quarterly/main/1", rule)
    assert re.fullmatch(form, name)
    assert not is_ours(name)
    assert name != drill_order_id("quarterly/main/2", rule)
