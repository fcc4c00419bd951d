"""The worked numbers of docs/semantics.md are what the program computes."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.closing.ledger import PositionLedger
from killswitch.gate.reading import read_lock
from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Flow, Position, Snapshot
from killswitch.planning.ranking import Candidate, rank
from killswitch.planning.readings import Reading
from killswitch.planning.tick import Interpreter
from killswitch.policy.account_document import AccountDocument
from killswitch.policy.loader import load
from killswitch.risk.cut import least_variance
from killswitch.runner.opening import open_accounts
from tests.graphs import DEFAULT_RANKING
from tests.unit.docs.pages import Rows, Section, sections
from tests.worlds import account, after, flow, hand, position, rules, snapshot

BEFORE = 15
"""Minutes of quiet before an example."""


@pytest.fixture(scope="module")
def page(repository: Path) -> dict[str, Section]:
    return sections((repository / "docs" / "semantics.md").read_text(encoding="utf-8"))


def worked() -> list[object]:
    """Every table of the page that is an account over time, as (section, place in it)."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "semantics.md").read_text(encoding="utf-8")
    return [
        pytest.param(heading, place, id=f"{heading.split(':')[0]}-{place}")
        for heading, section in sections(text).items()
        for place, rows in enumerate(section.tables)
        if next(iter(rows[0])).startswith("minute")
    ]


def compiled(folder: Path, *texts: str) -> PolicySet:
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
    policies, problems = compile_loaded(load([folder]))
    assert problems == ()
    assert policies is not None
    return policies


def number(text: str) -> Decimal:
    """A number as the page writes it: `−4,000`, `10%`."""
    plain = text.replace("−", "-").replace(",", "")
    return Decimal(plain[:-1]) / 100 if plain.endswith("%") else Decimal(plain)


class Account:
    """The account of the examples, moved by the columns of a table."""

    def __init__(self) -> None:
        self.moved = Decimal(0)

    def at(self, row: dict[str, str]) -> Snapshot:
        """What a row says, as a snapshot; its equity is worked out here unless nothing explains it."""
        minute = Decimal(re.match(r"\d+", next(iter(row.values())))[0])  # type: ignore[index]  # rows begin with a minute
        now = after(minutes=BEFORE + float(minute))
        long, short = (row.get(f"{side} P&L", "0") for side in ("long", "short"))
        flows: list[Flow] = []
        if moved := row.get("moved"):
            self.moved += number(moved)
            kind = "deposit" if number(moved) > 0 else "withdrawal"
            flows = [flow(f"moved-{minute}", now, str(number(moved)), kind)]
        if row["equity"] == "down":
            return snapshot(now, account(None, None, quality="down", reason="no answer"))
        equity = number(row["equity"])
        books = [held("L", "long", str(number(long))), held("S", "short", str(number(short)))]
        events = [hand("reset", now, id_=f"reset-{minute}")] if "reset" in next(iter(row.values())) else []
        return snapshot(
            now, account(str(equity), books, flows=flows, instruments=[rules("L"), rules("S")]), events=events
        )


def held(symbol: str, side: str, pnl: str) -> Position:
    return position(symbol, side, pnl, contracts="10", notional="50000", margin="10000")


QUIET = {"minute": "0", "equity": "100,000", "long P&L": "0", "short P&L": "0"}


def quiet(minutes: int) -> Snapshot:
    """The account at the given minute before an example, when nothing had happened."""
    calm = Account().at(QUIET)
    return Snapshot(as_of=after(minutes=minutes), accounts=calm.accounts, format=calm.format)


@pytest.mark.parametrize(("heading", "place"), worked())
def test_an_account_over_time_is_what_the_page_says(
    page: dict[str, Section], tmp_path: Path, heading: str, place: int
) -> None:
    """Each row's drawdown, trigger, firing, level, source and orders come out of the policy of the page."""
    rows = page[heading].tables[place]
    interpreter = Interpreter(compiled(tmp_path, *page[""].yaml, *page[heading].yaml))
    if "minute" in rows[0]:
        for minute in (0, 5, 10, 14):
            interpreter.tick(quiet(minute))
    moving = Account()
    for row in rows:
        outcome = interpreter.tick(moving.at(row))
        assert {column: told(column, row, interpreter, outcome.decisions) for column in row} == row


def told(column: str, row: dict[str, str], interpreter: Interpreter, decisions: tuple[Decision, ...]) -> str:
    """What the program says of a column; of one that is given, what is given."""
    machine = interpreter.status()[-1 if len(interpreter.status()) == 1 else 0]
    readings = {reading.trigger.name: reading for reading in machine.readings}
    fired = [decision for decision in decisions if decision.stage is not None and decision.kind is None]
    if column == "drawdown":
        low, high = readings["fall-10"].value or (0.0, 1.0)
        return percent(low) if low == high else f"{percent(low)} … {percent(high)}"
    if column in readings:
        return truth(readings[column])
    if column == "fires":
        return ", ".join(str(decision.stage) for decision in fired) or "—"
    if column == "level":
        return str(machine.level)
    if column == "whose loss":
        return ", ".join(d.attribution.source for d in fired if d.attribution is not None)
    if column in ("closes", "orders"):
        verb = column == "orders"
        orders = [intent for decision in fired for intent in decision.intents]
        return ", ".join(f"{o.side + ' ' if verb else ''}{o.contracts.normalize():f} {o.symbol}" for o in orders)
    return row[column]


def percent(share: float) -> str:
    return f"{round(share * 100, 6):g}%"


def truth(reading: Reading) -> str:
    if reading.truth is None:
        return "unknown"
    if not reading.truth:
        return "false"
    return "confirmed" if reading.confirmed else "true"


def test_equity_is_the_sum_of_what_the_columns_say(page: dict[str, Section]) -> None:
    """100,000 and all that was moved, won and lost; only where the page says "nothing explains" it is not."""
    unexplained = page["Unit value: money moved is no loss"].tables[3]
    for section in page.values():
        for rows in section.tables:
            if not next(iter(rows[0])).startswith("minute") or rows == unexplained:
                continue
            moved = Decimal(0)
            for row in rows:
                moved += number(row.get("moved") or "0")
                total = 100_000 + moved + number(row.get("long P&L", "0")) + number(row.get("short P&L", "0"))
                assert row["equity"] in ("down", f"{total:,}".replace("-", "−")), row


def test_the_ranking_table_is_what_the_default_ranking_says(page: dict[str, Section]) -> None:
    """Scores and places of the three positions."""
    rows, _ = page["Ranking: the worst first, and only harm counts"].tables
    ranked = rank(DEFAULT_RANKING, [candidate(row) for row in rows])
    assert {r.candidate.position.symbol: (f"{r.score:.4f}", str(r.rank)) for r in ranked} == {
        row["position"]: (row["score"], row["rank"]) for row in rows
    }


def test_the_table_of_component_risk_is_what_the_cut_leaves(page: dict[str, Section], repository: Path) -> None:
    """What is kept of each position, and the two variances; minimising by hand gives 250/7, 250/7 and 25/7."""
    _, rows = page["Ranking: the worst first, and only harm counts"].tables
    exposures = [float(number(row["exposure"])) for row in rows]
    covariance = [[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]
    kept = least_variance(exposures, covariance, [50.0, 50.0, 50.0], 75.0)
    assert kept == pytest.approx([250 / 7, 250 / 7, 25 / 7], rel=1e-6)
    assert [row["kept by component risk"] for row in rows] == [f"{each:.2f}" for each in kept]
    even = [float(number(row["kept in proportion"])) for row in rows]
    text = (repository / "docs" / "semantics.md").read_text(encoding="utf-8")
    said = f"a variance of {variance(even, covariance):.0f} in proportion, and of {variance(kept, covariance):.0f} by"
    assert said in text


def variance(kept: list[float], covariance: list[list[float]]) -> float:
    """x′Σx of A and C long and B short."""
    x = [kept[0], -kept[1], kept[2]]
    return sum(x[i] * covariance[i][j] * x[j] for i in range(3) for j in range(3))


def candidate(row: dict[str, str]) -> Candidate:
    return Candidate(
        account=account("100000"),
        position=position(row["position"], "long"),
        worth=None,
        pnl_delta=float(number(row["change in the window"])),
        pnl=float(number(row["P&L"])),
        liquidation_distance=float(number(row["distance to liquidation"])),
        notional_share=float(number(row["part of the gross"])),
        margin_loss=float(number(row["loss ÷ margin"])),
    )


def test_the_lock_table_is_what_the_reader_says(page: dict[str, Section], tmp_path: Path) -> None:
    """Open only where the file says so and somebody keeps it alive."""
    now = after(minutes=0)
    for row in page["The lock"].tables[0]:
        path = tmp_path / "lock.json"
        path.unlink(missing_ok=True)
        if row["the file says"] == "half a file":
            path.write_text('{"locked": fal', encoding="utf-8")
        elif row["the file says"] != "there is none":
            path.write_text(lock_text(row, to_micros(now) // 1_000_000), encoding="utf-8")
        verdict = read_lock(path, now)
        assert (f"`{verdict.mode}`" if verdict.locked else "open") == row["a bot reads"], row


def lock_text(row: dict[str, str], now: int) -> str:
    mode = "all" if "`mode: all`" in row["the file says"] else "reduce_only"
    locked = "true" if "`locked: true`" in row["the file says"] else "false"
    alive = now + 10 if row["kept alive"] == "yes" else now - 10
    return (
        f'{{"locked": {locked}, "scope": "account/main", "stage": "s", "reason": "r", "created_ts": {now}, '
        f'"expires_ts": {now + 60}, "details": {{}}, "mode": "{mode}", "generation": 1, "alive_until": {alive}}}'
    )


def test_only_the_last_line_of_the_arming_table_acts(page: dict[str, Section], tmp_path: Path) -> None:
    """The document's word and the runner's are both needed."""
    rows: Rows = page["Live is armed twice"].tables[0]
    for row in rows:
        execution = row["the Account says"].strip("`").removeprefix("execution: ")
        (tmp_path / "account.yaml").write_text(
            "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
            "spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', "
            f"execution: {execution}}}\n",
            encoding="utf-8",
        )
        (document,) = load([tmp_path]).documents
        assert isinstance(document.model, AccountDocument)
        live = row["the runner was started"] == "with `--live`"
        (opened,) = open_accounts([document.model], live=live).values()
        assert ("yes" if opened.armed else "no") == row["acts"]
    assert [row["acts"] for row in rows] == ["no", "no", "no", "yes"]


def test_with_an_order_outstanding_the_worst_case_is_what_may_be_sent(repository: Path) -> None:
    """Of 10 contracts with an order for 4 of unknown fate, at most 6, as the section on targets says."""
    text = " ".join((repository / "docs" / "semantics.md").read_text(encoding="utf-8").split())
    assert "of 10 contracts with an order for 4 outstanding, at most 6" in text
    ledger = PositionLedger(anchor=Decimal(10), outstanding={"ks-1": Decimal(4)})
    assert ledger.free(Decimal(10)) == 6
