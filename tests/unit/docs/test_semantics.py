"""The program computes the worked numbers of docs/semantics.md."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.opening import open_accounts
from killswitch.gate.lock_reader import read_lock
from killswitch.graph.resolution.references import BUILT_IN
from killswitch.journal.ledger import PositionLedger
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Flow, Order, Position, Rate, Snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.resting_orders import entry_indexes
from killswitch.planning.scopes.trigger_status import TriggerStatus
from killswitch.planning.targets.ranking import RankingCandidate, by_genesis, rank
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from killswitch.risk.covariance import least_variance
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.scope import History
from killswitch.valuation.currency_conversion import conversion
from tests.graphs import DEFAULT_RANKING
from tests.unit.docs.pages import Rows, Section, compiled, number, percent, sections
from tests.worlds import account, after, flow, operator_event, position, rules, snapshot

BEFORE = 15
"""Minutes without a change before an example."""


@pytest.fixture(scope="module")
def page(repository: Path) -> dict[str, Section]:
    return sections((repository / "docs" / "semantics.md").read_text(encoding="utf-8"))


def worked_examples() -> list[object]:
    """Every table of the page with an account over time, as (section, index in it)."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "semantics.md").read_text(encoding="utf-8")
    return [
        pytest.param(heading, place, id=f"{heading.split(':')[0]}-{place}")
        for heading, section in sections(text).items()
        for place, rows in enumerate(section.tables)
        if next(iter(rows[0])).startswith("minute")
    ]


class Account:
    """The account of the examples, changed by the rows of a table."""

    def __init__(self) -> None:
        self.moved = Decimal(0)

    def snapshot_of(self, row: dict[str, str]) -> Snapshot:
        """The snapshot of a row; another test compares its equity with its parts."""
        minute = Decimal(re.match(r"\d+", next(iter(row.values())))[0])  # type: ignore[index]  # rows begin with a minute
        now = after(minutes=BEFORE + float(minute))
        long, short = (row.get(f"{side} P&L", "0") for side in ("long", "short"))
        flows: list[Flow] = []
        if moved := row.get("transfer"):
            self.moved += number(moved)
            kind = "deposit" if number(moved) > 0 else "withdrawal"
            flows = [flow(f"moved-{minute}", now, str(number(moved)), kind)]
        if row["equity"] == "down":
            return snapshot(now, account(None, None, quality="down", reason="no answer"))
        equity = number(row["equity"])
        books = [held("L", "long", str(number(long))), held("S", "short", str(number(short)))]
        events = [operator_event("reset", now, id_=f"reset-{minute}")] if "reset" in next(iter(row.values())) else []
        return snapshot(
            now, account(str(equity), books, flows=flows, instruments=[rules("L"), rules("S")]), events=events
        )


def held(symbol: str, side: str, pnl: str) -> Position:
    return position(symbol, side, pnl, contracts="10", notional="50000", margin="10000")


UNCHANGED = {"minute": "0", "equity": "100,000", "long P&L": "0", "short P&L": "0"}


def unchanged(minutes: int) -> Snapshot:
    """The unchanged account at the given minute before an example."""
    initial = Account().snapshot_of(UNCHANGED)
    return Snapshot(as_of=after(minutes=minutes), accounts=initial.accounts, format=initial.format)


@pytest.mark.parametrize(("heading", "place"), worked_examples())
def test_an_account_over_time_is_what_the_page_says(
    page: dict[str, Section], tmp_path: Path, heading: str, place: int
) -> None:
    """Each row's drawdown, trigger, firing, level, source and orders are those of the page's policy."""
    rows = page[heading].tables[place]
    interpreter = Interpreter(compiled(tmp_path, *page[""].yaml, *page[heading].yaml))
    if "minute" in rows[0]:
        for minute in (0, 5, 10, 14):
            interpreter.tick(unchanged(minute))
    example = Account()
    for row in rows:
        outcome = interpreter.tick(example.snapshot_of(row))
        assert {column: cell_text(column, row, interpreter, outcome.decisions) for column in row} == row


def cell_text(column: str, row: dict[str, str], interpreter: Interpreter, decisions: tuple[Decision, ...]) -> str:
    """The program's value for a column; the given value for an input column."""
    machine = interpreter.status()[-1 if len(interpreter.status()) == 1 else 0]
    observed_triggers = {observed.name: observed for observed in machine.triggers}
    fired = [decision for decision in decisions if decision.stage is not None and decision.kind is None]
    if column == "drawdown":
        low, high = observed_triggers["fall-10"].value or (0.0, 1.0)
        return percent(low) if low == high else f"{percent(low)} … {percent(high)}"
    if column in observed_triggers:
        return truth_text(observed_triggers[column])
    if column == "fires":
        return ", ".join(str(decision.stage) for decision in fired) or "—"
    if column == "level":
        return str(machine.level)
    if column == "loss source":
        return ", ".join(d.attribution.source for d in fired if d.attribution is not None)
    if column in ("closes", "orders"):
        verb = column == "orders"
        orders = [intent for decision in fired for intent in decision.intents]
        return ", ".join(f"{o.side + ' ' if verb else ''}{o.contracts.normalize():f} {o.symbol}" for o in orders)
    return row[column]


def truth_text(observed: TriggerStatus) -> str:
    if observed.truth is None:
        return "unknown"
    if not observed.truth:
        return "false"
    return "confirmed" if observed.confirmed else "true"


def test_the_bounds_of_a_portfolio_with_an_account_down_are_those_of_the_page(page: dict[str, Section]) -> None:
    """Worked out: 4 × 10,500 lost; of 50,000 long between nothing and 21%, and 1% of it either way."""
    rows = {row[""]: row for row in page["Partly unknown values are bounded"].tables[0]}
    b, together, fall = rows["`b`"], rows["together"], rows["fall from 200,000"]
    move = Decimal(10_500) / 50_000
    for case, moved, margin in (("best case", Decimal(0), 500), ("worst case", -50_000 * move, -500)):
        assert number(rows["`a`"][case].split(" ")[0]) == 100_000 - 4 * 10_500
        assert number(b[case]) == 100_000 + moved + margin
        assert number(together[case]) == number(b[case]) + 58_000
        assert number(fall[case]) == 1 - number(together[case]) / 200_000


def test_rates_are_those_of_the_page(page: dict[str, Section], tmp_path: Path) -> None:
    """Each price is from its own venue; the policy of the page compiles with its reference currency."""
    section = page["Several currencies: the reference currency"]
    reference = compiled(tmp_path, *section.yaml).graphs[0].equity.reference
    assert reference is not None
    for row in section.tables[0]:
        prices = re.findall(r"[0-9.]+", row["prices of one USDC in USD"])
        seen = [
            account("1", [], name=str(n), venue=str(n), currency="USDC", rates=(Rate("USD", Decimal(price)),))
            for n, price in enumerate(prices)
        ]
        declared = (("USDC", Decimal(1)),) if "otherwise" in row["declared by"] else ()
        found = conversion("USDC", replace(reference, declared=declared), seen).rate
        assert ("unknown" if found is None else f"{found.normalize():f}") == row["rate"], row


@pytest.mark.parametrize("place", [0, 1])
def test_a_limit_fires_as_often_as_the_page_says(page: dict[str, Section], tmp_path: Path, place: int) -> None:
    """The leverage of each row is that of 100,000 with positions of that notional; equity never changes."""
    section = page["A limit acts as often as it is broken"]
    interpreter = Interpreter(compiled(tmp_path, *section.yaml))
    for row in section.tables[place]:
        now = after(minutes=float(row["after"].split(" ")[0]))
        if row["leverage"] == "unknown":
            seen = account(None, None, quality="down", reason="no answer")
        else:
            notional = str(Decimal(row["leverage"]) * 100_000)
            book = [position("L", "long", "0", contracts="10", notional=notional, margin="10000")]
            seen = account("100000", book, instruments=[rules("L")])
        events = [operator_event("reset", now)] if "reset" in row["after"] else []
        fired = fired_stages(interpreter.tick(snapshot(now, seen, events=events)).decisions)
        assert [row["fires"]] == (fired or ["—"]), row


def fired_stages(found: tuple[Decision, ...]) -> list[str]:
    """The stages that fired, without operator commands."""
    return [str(decision.stage) for decision in found if decision.kind is None]


def test_equity_is_the_sum_of_its_columns(page: dict[str, Section]) -> None:
    """100,000 plus transfers, gains and losses."""
    for section in page.values():
        for rows in section.tables:
            if not next(iter(rows[0])).startswith("minute"):
                continue
            moved = Decimal(0)
            for row in rows:
                moved += number(row.get("transfer") or "0")
                total = 100_000 + moved + number(row.get("long P&L", "0")) + number(row.get("short P&L", "0"))
                assert row["equity"] in ("down", f"{total:,}".replace("-", "−")), row


RESTING = re.compile(
    r"(?P<bounded>reduce-only )?(?P<kind>limit|stop|take-profit) (?P<amount>\d+)( \((?P<filled>\d+) filled\))?"
)


def resting_sale(name: str) -> Order:
    """A resting sale as the page writes it: `reduce-only stop 10`, `limit 15 (5 filled)`."""
    written = RESTING.fullmatch(name)
    assert written is not None, name
    kind, filled = written["kind"], written["filled"]
    return Order(
        id=name, symbol="L", side="sell", amount=Decimal(written["amount"]),
        type="limit" if kind == "limit" else f"{kind.replace('-', '_')}_market",
        filled=None if filled is None else Decimal(filled), reduce_only=written["bounded"] is not None,
    )  # fmt: skip


def test_the_table_of_resting_sales_is_the_judgement_of_the_program(page: dict[str, Section]) -> None:
    """Each row's sales next to a long of 10; equal sales are interchangeable."""
    (rows,) = page["Order of execution"].tables
    assert rows
    for row in rows:
        orders = tuple(resting_sale(name) for name in row["resting sales"].split(", "))
        found = entry_indexes(account("1000", [position("L", "long", contracts="10")], orders=orders))
        stays, entries = (
            ", ".join(order.id for index, order in enumerate(orders) if (index in found) is wanted) or "—"
            for wanted in (False, True)
        )
        assert (stays, entries) == (row["stay"], row["entries"])


def test_the_ranking_table_is_the_result_of_the_default_ranking(page: dict[str, Section]) -> None:
    """Scores and ranks of the three positions."""
    rows, *_ = page["Ranking: the largest losses first"].tables
    ranked = rank(DEFAULT_RANKING, [candidate(row) for row in rows])
    assert {r.candidate.position.symbol: (f"{r.score:.4f}", str(r.rank)) for r in ranked} == {
        row["position"]: (row["score"], row["rank"]) for row in rows
    }


def test_the_table_of_component_risk_is_the_result_of_the_cut(page: dict[str, Section], repository: Path) -> None:
    """The remaining positions and the two variances; minimising by hand gives 250/7, 250/7 and 25/7."""
    _, rows, _ = page["Ranking: the largest losses first"].tables
    exposures = [float(number(row["exposure"])) for row in rows]
    covariance = [[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]
    kept = least_variance(exposures, covariance, [50.0, 50.0, 50.0], 75.0)
    assert kept == pytest.approx([250 / 7, 250 / 7, 25 / 7], rel=1e-6)
    assert [row["kept by component risk"] for row in rows] == [f"{each:.2f}" for each in kept]
    even = [float(number(row["kept in proportion"])) for row in rows]
    text = (repository / "docs" / "semantics.md").read_text(encoding="utf-8")
    said = f"a variance of {variance(even, covariance):.0f} in proportion, and of {variance(kept, covariance):.0f} by"
    assert said in text


def test_the_table_of_genesis_is_the_result_of_the_ranking(page: dict[str, Section]) -> None:
    """Scores and ranks, from marks whose three returns r, −r and 0 have the standard deviation r."""
    _, _, rows = page["Ranking: the largest losses first"].tables
    history = History((), HOUR, EquityTerms(HOUR, 0.001, MINUTE), {PriceSamples: [{"window": HOUR, "every": MINUTE}]})
    assert history.prices is not None
    for minute, swing in enumerate(((0, 0), (1, 0), (1, -1), (1, -1))):
        at = {
            ("main", row["position"]): math.prod(1 + k * float(number(row["volatility"])) for k in swing)
            for row in rows
        }
        history.prices.add(to_micros(after(minutes=minute)), at)
    history.last_at = to_micros(after(minutes=3))
    ranked, _ = by_genesis(replace(BUILT_IN["genesis"], least=3), [of_genesis(row) for row in rows], history)
    assert {r.candidate.position.symbol: (f"{r.score:.4f}", str(r.rank)) for r in ranked} == {
        row["position"]: (row["score"], row["rank"]) for row in rows
    }


def of_genesis(row: dict[str, str]) -> RankingCandidate:
    """A position of an account with its own currency, whose rate to the scope's currency is its share.

    The numbers in the accounts' currencies are therefore all equal, and only those in the scope's are the page's.
    """
    share = number(row["part of the gross"])
    return RankingCandidate(
        account=account("100000", currency=row["position"]),
        position=position(row["position"], "long"),
        value=Decimal(10_000),
        measured=share * 10_000,
        pnl_delta=float(number(row["change in the window"])),
        pnl=None,
        liquidation_distance=None,
        notional_share=float(share),
        margin_loss=None,
    )


def variance(kept: list[float], covariance: list[list[float]]) -> float:
    """x′Σx of A and C long and B short."""
    x = [kept[0], -kept[1], kept[2]]
    return sum(x[i] * covariance[i][j] * x[j] for i in range(3) for j in range(3))


def candidate(row: dict[str, str]) -> RankingCandidate:
    return RankingCandidate(
        account=account("100000"),
        position=position(row["position"], "long"),
        value=None,
        pnl_delta=float(number(row["change in the window"])),
        pnl=float(number(row["P&L"])),
        liquidation_distance=float(number(row["distance to liquidation"])),
        notional_share=float(number(row["part of the gross"])),
        margin_loss=float(number(row["loss ÷ margin"])),
    )


def test_the_lock_table_is_the_result_of_the_reader(page: dict[str, Section], tmp_path: Path) -> None:
    """Trading is open only if the file says so and a runner keeps it alive."""
    now = after(minutes=0)
    for row in page["The lock"].tables[0]:
        path = tmp_path / "lock.json"
        path.unlink(missing_ok=True)
        if row["the file contains"] == "half a file":
            path.write_text('{"locked": fal', encoding="utf-8")
        elif row["the file contains"] != "no file":
            path.write_text(lock_text(row, to_micros(now) // 1_000_000), encoding="utf-8")
        read = read_lock(path, now)
        assert (f"`{read.mode}`" if read.locked else "open") == row["a bot reads"], row


def lock_text(row: dict[str, str], now: int) -> str:
    mode = "all" if "`mode: all`" in row["the file contains"] else "reduce_only"
    locked = "true" if "`locked: true`" in row["the file contains"] else "false"
    alive = now + 10 if row["renewed"] == "yes" else now - 10
    return (
        f'{{"locked": {locked}, "scope": "account/main", "stage": "s", "reason": "r", "created_ts": {now}, '
        f'"expires_ts": {now + 60}, "details": {{}}, "mode": "{mode}", "generation": 1, "alive_until": {alive}}}'
    )


def test_only_the_last_line_of_the_arming_table_acts(page: dict[str, Section], tmp_path: Path) -> None:
    """Document and runner must both be armed."""
    rows: Rows = page["Live trading is armed twice"].tables[0]
    for row in rows:
        execution = row["Account document"].strip("`").removeprefix("execution: ")
        (tmp_path / "account.yaml").write_text(
            "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
            "spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', "
            f"execution: {execution}}}\n",
            encoding="utf-8",
        )
        (document,) = load([tmp_path]).documents
        assert isinstance(document.model, AccountDocument)
        live = row["runner started"] == "with `--live`"
        (opened,) = open_accounts([document.model], live=live).values()
        assert ("yes" if opened.armed else "no") == row["sends orders"]
    assert [row["sends orders"] for row in rows] == ["no", "no", "no", "yes"]


def test_with_an_order_of_unknown_status_the_next_order_assumes_the_worst_case(repository: Path) -> None:
    """Of 10 contracts with an order for 4 of unknown status, at most 6 are sent, as the section on targets says."""
    text = " ".join((repository / "docs" / "semantics.md").read_text(encoding="utf-8").split())
    assert "of 10 contracts with an order for 4 outstanding, at most 6" in text
    ledger = PositionLedger(anchor=Decimal(10), outstanding={"ks-1": Decimal(4)})
    assert ledger.closable(Decimal(10)) == 6
