"""The program decides the worked examples of docs/semantics.md on losses and flows as the page shows, each second.

A table row is the venue's state from that second on: marks, contracts, wallet, ledger rows. Equity is checked to be
the sum of its parts, so that no table can show a fall that did not happen; drawdown, decisions and pages are computed
by the program. In the seconds between two rows nothing changes and nothing is decided.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Mark, Position, Rate
from killswitch.model.store import HistoryRow
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.unit.docs.pages import Section, compiled, number, percent, sections
from tests.worlds import account, after, fill, flow, position, rules, snapshot

HEADING = "Losses and transfers"
BEFORE = 15 * 60
"""Seconds without a change before an example."""
ENTRY = Decimal(100)
"""The entry price of `L` without a column `entry`."""
SEVERITIES = ("info", "warning", "page")

Row = dict[str, str]


def page_text() -> str:
    return (Path(__file__).resolve().parents[3] / "docs" / "semantics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> dict[str, Section]:
    return sections(page_text())


def worked_examples() -> list[object]:
    """Every table of the section with an account over seconds, by its index."""
    tables = sections(page_text())[HEADING].tables
    return [place for place, rows in enumerate(tables) if next(iter(rows[0])) == "second"]


def second(row: Row) -> int:
    return int(row["second"].split(" ")[0])


def time_at(seconds: float) -> datetime:
    return after(seconds=BEFORE + seconds)


class Example:
    """An account with the state of a table row, and the interpreter that evaluates it."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.policies = compiled(folder, policy)
        self.interpreter = Interpreter(self.policies)
        self.stored: list[HistoryRow] = []

    def tick(self, row: Row, seconds: float, *, rows: bool) -> Outcome:
        """Evaluate the row's state at a second, with the row's ledger entries or without."""
        outcome = self.interpreter.tick(snapshot(time_at(seconds), account_of(row, seconds, rows=rows)))
        self.stored += self.interpreter.rows()
        return outcome

    def restart(self) -> None:
        """Restore another interpreter from the stored states and history."""
        states = self.interpreter.states()
        self.interpreter = Interpreter(self.policies)
        self.interpreter.restore(states, lambda *_: list(self.stored))

    def cell(self, column: str, row: Row, outcome: Outcome) -> str:
        """The program's value for a column; the given value for an input column."""
        if column == "drawdown":
            return drawdown(self.interpreter)
        if column.startswith("decides"):
            return "; ".join(decision_text(each) for each in outcome.decisions) or "—"
        if column == "notice":
            severities = [each.severity for each in outcome.notices if each.kind == "unexplained"]
            return max(severities, key=SEVERITIES.index, default="—")
        return row[column]


def decision_text(decision: Decision) -> str:
    if decision.kind == "suspicion":
        assert decision.lock is not None
        assert decision.lock.until is not None
        assert not decision.intents
        return f"lock until {(to_micros(decision.lock.until) - to_micros(time_at(0))) // 1_000_000}"
    orders = ", ".join(f"{each.side} {each.contracts.normalize():,f} {each.symbol}" for each in decision.intents)
    return f"{decision.stage}: {orders}" if orders else f"{decision.stage}"


def account_of(row: Row, seconds: float, *, rows: bool) -> AccountSnapshot:
    """The account of a row: a swap account that holds `L`, or a spot account if the row has no wallet."""
    ledger = ledger_of(row, seconds) if rows else []
    proven = time_at(min(float(row.get("read to") or 0), seconds))
    spot = "wallet" not in row
    balances, positions = [], []
    wallet = number(row["USDT" if spot else "wallet"])
    equity, unrealized = wallet, Decimal(0)
    balances.append(Balance("USDT", wallet, Decimal(1), wallet=wallet))
    if coins := row.get("BTC"):
        amount, price = map(number, coins.split(" at "))
        balances.append(Balance("BTC", amount, price, wallet=amount))
        equity += amount * price
        if spot:
            holding = {"contracts": str(amount), "mark_price": str(price), "notional": str(amount * price)}
            positions.append(position("BTC/USDT", "long", **holding))
    mark = row.get("mark", "—")
    held = row.get("L", "0")
    positions_known = held != "unknown"
    contracts = number(held) if positions_known else Decimal(1000)
    entry = number(row["entry"]) if "entry" in row else ENTRY
    if contracts:
        unrealized = contracts * (number(mark) - entry)
        equity += unrealized
        positions.append(long(contracts, number(mark), entry))
    equity += number(row.get("beside", "0"))
    assert f"{equity.normalize():,f}".replace("-", "−") == row["equity"], row
    return account(
        str(equity),
        positions if positions_known else None,
        market="spot" if spot else "swap",
        balances=tuple(balances),
        unrealized=None if spot else unrealized,
        fills=[each for each in ledger if isinstance(each, Fill)],
        flows=[each for each in ledger if isinstance(each, Flow)],
        fills_as_of=proven,
        flows_as_of=proven,
        complete=False if row.get("complete") == "false" else None,
        marks=(Mark("L", number(mark)),) if mark != "—" else None,
        instruments=[rules("L"), rules("BTC/USDT")],
    )


def long(contracts: Decimal, mark: Decimal, entry: Decimal) -> Position:
    return position(
        "L", "long", str(contracts * (mark - entry)), contracts=str(contracts), mark_price=str(mark),
        notional=str(contracts * mark), entry_price=str(entry),
    )  # fmt: skip


def ledger_of(row: Row, seconds: float) -> list[Fill | Flow]:
    """`withdrawal −30,000`, `fill −1,000 at 89`, each with `of 1` if its time differs from its row's."""
    entries: list[Fill | Flow] = []
    for place, text in enumerate(each for each in row.get("rows", "").split("; ") if each not in ("", "—")):
        parts = re.fullmatch(r"(\w+) ([−\d,]+)(?: at ([\d,.]+))?(?: of (\d+))?", text)
        assert parts, text
        kind, amount, price, of = parts.groups()
        when = time_at(float(of) - 0.5 if of else seconds - 0.5)
        name = f"{seconds}-{place}"
        if kind == "fill":
            side = "sell" if number(amount) < 0 else "buy"
            entries.append(fill(name, when, "L", side, str(abs(number(amount))), price))
        else:
            entries.append(flow(name, when, str(number(amount)), kind))
    return entries


def policy_for(page: dict[str, Section], rows: list[Row]) -> str:
    """The policy at the top of the page, with the key in the header of the `decides` column."""
    (text,) = page[""].yaml
    (column,) = [each for each in rows[0] if each.startswith("decides")]
    key = re.search(r"`(.+)`", column)
    return text if key is None else text.replace("  max_gap: 30m\n", f"  max_gap: 30m\n  {key[1]}\n")


@pytest.mark.parametrize("place", worked_examples())
def test_an_example_is_decided_as_the_page_says(page: dict[str, Section], tmp_path: Path, place: int) -> None:
    """Each row's equity is the sum of its parts; its drawdown, decisions and notices are those of the policy."""
    table = page[HEADING].tables[place]
    example = Example(tmp_path, policy_for(page, table))
    for minute in (0, 5, 10, 14):
        example.tick({**table[0], "read to": str(60 * minute - BEFORE)}, 60 * minute - BEFORE, rows=False)
    before, then = table[0], -1
    for row in table:
        for seconds in range(then + 1, second(row)):
            outcome = example.tick(before, seconds, rows=False)
            assert not outcome.decisions, (seconds, outcome.decisions)
        if "restart" in row["second"]:
            example.restart()
        outcome = example.tick(row, second(row), rows=True)
        assert {column: example.cell(column, row, outcome) for column in row} == row
        before, then = row, second(row)


UNCHANGED = {"second": "0", "mark": "100", "L": "1,000", "wallet": "100,000", "equity": "100,000"}


@pytest.mark.parametrize(
    ("observation", "row"),
    [
        ("the same, by more than 20%", {"L": "200", "wallet": "80,000", "equity": "80,000"}),
        ("a position grows, the wallet falls, no fill", {"L": "1,100", "wallet": "88,000", "equity": "88,000"}),
    ],
)
def test_a_change_that_the_page_classifies_as_money_fires_no_stage(
    page: dict[str, Section], tmp_path: Path, observation: str, row: Row
) -> None:
    """20,000 against 800 × 100 sold, 12,000 against 100 × 100 bought: both exceed a fifth."""
    rows = [each for table in page[HEADING].tables for each in table]
    (classified,) = [each for each in rows if each.get("what is seen") == observation]
    assert "money" in classified["classified as"]
    fired = decisions_until(90, Example(tmp_path, page[""].yaml[0]), row, is_ledger_read=True)
    assert [each for each in fired if not each[1].startswith("lock until")] == []


def test_an_unavailable_ledger_delays_a_pending_fall_by_the_grace_period(
    page: dict[str, Section], tmp_path: Path
) -> None:
    """The stops are far from the mark, and the ledger rows stay unknown: 60 s, as in the table of keys."""
    keys = {each["key"]: each["default"] for rows in page[HEADING].tables for each in rows if "key" in each}
    assert keys["`unexplained.flow_grace`"].startswith("60 s")
    row = {"mark": "95", "L": "100", "wallet": "89,200", "equity": "88,700"}
    fired = decisions_until(90, Example(tmp_path, page[""].yaml[0]), row, is_ledger_read=False)
    assert fired == [(6, "lock until 26"), (61, "everything: sell 100 L")]


def decisions_until(end: int, example: Example, row: Row, *, is_ledger_read: bool) -> list[tuple[int, str]]:
    """The decisions with their times for an account in the state `row` from second 1 on."""
    for seconds in (-900, -600, -300, -60):
        example.tick({**UNCHANGED, "read to": str(seconds)}, seconds, rows=False)
    decisions = []
    for seconds in range(end):
        now = {**UNCHANGED, **(row if seconds else {}), "read to": str(seconds if is_ledger_read else 0)}
        outcome = example.tick(now, seconds, rows=False)
        decisions += [(seconds, decision_text(each)) for each in outcome.decisions]
    return decisions


def test_a_portfolio_with_an_unavailable_venue_is_decided_as_the_page_says(
    page: dict[str, Section], tmp_path: Path
) -> None:
    """Worked out: `a` lost 4 × 10,500; `b` held 50,000, which moved by 21%: 168,500 or 147,500 are left of 200,000."""
    (text,) = page[""].yaml
    policy = text.replace("each: account", "each: portfolio").replace("at_least: 10%", "at_least: 15%")

    def accounts(row: Row) -> list[AccountSnapshot]:
        return [account_of_two(name, held, row) for name, held in (("a", 4), ("b", 1))]

    assert_decisions(compiled(tmp_path, policy), page["Partly unknown values are bounded"].tables[1], accounts)


def account_of_two(name: str, held: int, row: Row) -> AccountSnapshot:
    """An account of 100,000 that is long `held` at 50,000, at its price in the row."""
    known = {"name": name, "venue": name, "instruments": [rules("BTC")]}
    price = row[f"price at `{name}`"]
    if price == "down":
        return account(None, None, quality="down", reason="no answer", **known)
    profit = held * (number(price) - 50_000)
    assert 100_000 + profit == number(row[f"equity of `{name}`"])
    book = position(
        "BTC", "long", str(profit), contracts=str(held), mark_price=str(number(price)),
        notional=str(held * number(price)), entry_price="50000",
    )  # fmt: skip
    return account(str(100_000 + profit), [book], unrealized=profit, **known)


def test_accounts_of_two_currencies_are_decided_as_the_page_says(page: dict[str, Section], tmp_path: Path) -> None:
    """Worked out: the USDT of `a`, and the USDC of `b` and `c` times the rate."""
    section = page["Several currencies: the reference currency"]

    def accounts(row: Row) -> list[AccountSnapshot]:
        rate, a, b, c = (number(row[name]) for name in ("USDC in USD", "`a`, USDT", "`b`, USDC", "`c`, USDC"))
        assert a + rate * (b + c) == number(row["together, USD"])
        rates = (Rate("USD", rate),)
        return [
            account_in_currency("a", "USDT", a, a - 100_000, None),
            account_in_currency("b", "USDC", b, b - 50_000, rates),
            account_in_currency("c", "USDC", c, c - 50_000, rates),
        ]

    assert_decisions(compiled(tmp_path, *section.yaml), section.tables[1], accounts)


def account_in_currency(
    name: str, currency: str, equity: Decimal, profit: Decimal, rates: tuple[Rate, ...] | None
) -> AccountSnapshot:
    """An account that is long 500 from 100 and has made the profit with it."""
    mark = ENTRY + profit / 500
    book = position(
        "L", "long", str(profit), contracts="500", mark_price=str(mark), notional=str(500 * mark), entry_price="100"
    )
    return account(
        str(equity), [book], name=name, venue=name, currency=currency, unrealized=profit, rates=rates,
        instruments=[rules("L")],
    )  # fmt: skip


def assert_decisions(policies: PolicySet, rows: list[Row], accounts: Callable[[Row], list[AccountSnapshot]]) -> None:
    """Assert drawdown and decisions of each row, after a quarter of an hour in the state of the first."""
    interpreter = Interpreter(policies)
    for minute in (0, 5, 10, 14):
        interpreter.tick(snapshot(after(minutes=minute), *accounts(rows[0])))
    for row in rows:
        outcome = interpreter.tick(snapshot(time_at(int(row["second"])), *accounts(row)))
        assert (drawdown(interpreter), decisions_by_account(outcome)) == (row["drawdown"], row["decides"])


def drawdown(interpreter: Interpreter) -> str:
    (machine,) = interpreter.status()
    (observed,) = [each for each in machine.triggers if each.name == "fall-10"]
    low, high = (round(end, 5) for end in observed.value or (0.0, 1.0))
    return percent(low) if low == high else f"{percent(low)} … {percent(high)}"


def decisions_by_account(outcome: Outcome) -> str:
    """Stages with their orders and accounts."""
    texts = []
    for decision in outcome.decisions:
        orders = [f"{it.side} {it.contracts.normalize():,f} {it.symbol} of {it.account}" for it in decision.intents]
        texts.append(f"{decision.stage}: {', '.join(sorted(orders, key=lambda text: text[-1]))}")
    return "; ".join(texts) or "—"
