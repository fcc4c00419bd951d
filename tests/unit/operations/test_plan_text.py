"""The text of `ksctl plan` and of a dry run: one number format, each reason once, and every cancel in words."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from killswitch.accounts.opening import read_policies
from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.close_causes import group_orders, order_texts
from killswitch.model.decision import Cancel, Decision, Intent
from killswitch.model.snapshot import SNAPSHOT_FORMAT, AccountSnapshot, Order, Snapshot
from killswitch.operations.preview import Preview, preview
from killswitch.planning.interpreter import Interpreter
from tests.shown import effects_text, plan_text
from tests.worlds import START, account, position, rules

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold}
    deep: {signal: equity.drawdown, window: 15m, at_least: 30%, on_unknown: hold}
  stages:
    - name: close-everything
      level: 3
      any: [fall]
      cooldown: 6h
      reset: manual
      actions: [{cancel_orders: {kind: all}}, {close: {side: both, fraction: 100%}}]
    - name: deeper
      level: 4
      any: [deep]
      cooldown: 6h
      reset: manual
      actions: [{close: {side: both, fraction: 100%}}]
---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:9', execution: live}
"""
ENTRIES = tuple(Order(f"e{n}", "BTC", "buy", Decimal(1), price=Decimal(50 + n)) for n in range(5))
STOP = Order("s1", "BTC", "sell", Decimal(10), trigger_price=Decimal(80), reduce_only=True)
WHY = "binanceusdm load_markets: 127.0.0.1:9 refused the connection"


def policies(folder: Path) -> PolicySet:
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return read_policies([folder]).policies


def account_of(equity: str, *orders: Order) -> AccountSnapshot:
    """10 BTC at 100; the unrealised loss is what equity lacks to 1,000."""
    lost = str(Decimal(equity) - 1000)
    book = (position("BTC", "long", lost, contracts="10", mark_price="100", notional="1000"),)
    return account(equity, book, orders=orders, instruments=(rules("BTC"),))


def previewed(folder: Path, *accounts: AccountSnapshot) -> Preview:
    """The plan on the last of these snapshots of the account, a minute apart."""
    policy_set = policies(folder)
    interpreter = Interpreter(policy_set)
    *before, last = [
        Snapshot(START + timedelta(minutes=minute), (each,), SNAPSHOT_FORMAT) for minute, each in enumerate(accounts)
    ]
    for each in before:
        interpreter.tick(each)
    return preview(policy_set, last, interpreter, "scripted", frozenset({"main"}))


def test_a_fraction_is_printed_in_per_cent_in_table_and_reason(tmp_path: Path) -> None:
    """A fifth of equity is lost in a window whose start was not observed: both places show the same interval."""
    text = plan_text(previewed(tmp_path, account_of("1000"), account_of("800")))
    (row,) = [line for line in text.splitlines() if line.startswith("  fall ")]
    assert "  at least 20.00%  " in row
    assert "  because fall: at least 20.00% against >= 10%: the run had seen" in text
    assert "0.2" not in text


def test_cancels_name_their_orders_and_further_ones_of_a_kind_are_counted(tmp_path: Path) -> None:
    """Five entry orders: three are named, two counted; the stop order is named with its trigger price."""
    text = plan_text(previewed(tmp_path, account_of("1000"), account_of("800", *ENTRIES, STOP)))
    assert (
        "  cancel first: 5 entry orders of BTC on main: e0 (buy 1 at 50), e1 (buy 1 at 51), e2 (buy 1 at 52) and 2 more"
    ) in text.splitlines()
    assert "  cancel at the end: protective order s1 (sell 10, trigger 80) of BTC on main" in text.splitlines()
    assert " in main" not in text


def test_the_reason_of_an_unavailable_account_is_printed_once(tmp_path: Path) -> None:
    """It is a footnote of the accounts above the triggers; triggers and summary refer to it."""
    down = replace(account(None, None), quality="down", reason=WHY)
    text = plan_text(previewed(tmp_path, down))
    assert text.count(WHY) == 1
    assert f"  [1] main: {WHY}" in text.splitlines()
    assert text.count("unknown: main is down, see above") == 2
    assert text.endswith("Unknown: main is down, see above. Nothing was changed.")
    assert max(len(line) for line in text.splitlines() if WHY not in line) < 120


def test_a_trigger_with_a_window_longer_than_the_history_shows_how_far_it_reaches(tmp_path: Path) -> None:
    """A first plan has no headroom to show, the value is a lower bound, and the loss that is left an upper one."""
    text = plan_text(previewed(tmp_path, account_of("1000"), account_of("950"))).splitlines()
    rows = [line.split("  ") for line in text if "unknown: history" in line]
    shown = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    why = "unknown: history 60 s of 15 min"
    assert shown == [
        ["fall", "at least 5.00%", ">= 10%", "-", "at most −50.00 USDT more", why],
        ["deep", "at least 5.00%", ">= 30%", "-", "at most −250.00 USDT more", why],
    ]  # fmt: skip
    assert not [line for line in text if "100.00%]" in line]


def test_a_long_reason_of_many_triggers_is_printed_once_below_their_table(tmp_path: Path) -> None:
    """Two triggers of an unavailable account: two footnote marks, one reason, and that of the account above."""
    down = replace(account(None, None), account="a-name-that-is-long", quality="down", reason=WHY)
    text = plan_text(previewed(tmp_path, down)).splitlines()
    assert [line.split()[0] for line in text if line.endswith("unknown: [1]")] == ["fall", "deep"]
    assert [line for line in text if line.startswith("  [1] ")] == [
        f"  [1] a-name-that-is-long: {WHY}", "  [1] a-name-that-is-long is down, see above",
    ]  # fmt: skip


def slices(count: int) -> tuple[Intent, ...]:
    """A close in `count` slices of 100 and one of 50."""
    slice_of_100 = Intent("main", "BTC", "long", "sell", Decimal(100), Decimal(0), reduce_only=True, rank=1)
    return (*[slice_of_100] * count, replace(slice_of_100, contracts=Decimal(50)))


def test_many_slices_of_one_size_are_one_line() -> None:
    """1,550 is closed by fifteen slices of 100 and one of 50: after the fifteen, 50 is left; the total is kept."""
    orders = slices(15)
    assert [(each.number, each.amount, each.leaves) for each in group_orders(orders)] == [
        (15, "15 × 100", Decimal(50)), (1, "50", Decimal(0)),
    ]  # fmt: skip
    assert order_texts(orders) == (
        "sell 15 × 100 BTC (long) on main, leaving 50", "sell 50 BTC (long) on main, leaving 0",
    )  # fmt: skip


def test_a_few_slices_are_one_line_each() -> None:
    """Three of 100 and one of 50: four lines, each with the remaining quantity."""
    assert [each.rpartition(" ")[2] for each in order_texts(slices(3))] == ["250", "150", "50", "0"]


def test_a_dry_run_prints_slices_and_cancels_as_a_plan_does() -> None:
    """Without a snapshot the orders are described from the decision."""
    decision = Decision(
        "d1", START, "operator", "sha256:0", "portfolio", "enforce", None, 0, 0, kind="manual", intents=slices(15),
        cancels=(Cancel("main", "BTC", "e1", "entry"), Cancel("main", "BTC", "s1", "all")),
    )  # fmt: skip
    lines = effects_text(decision, None).splitlines()
    assert [line.split()[2:] for line in lines[2:4]] == [
        ["sell", "15", "×", "100", "BTC", "(long)", "50", "-", "reduce-only"],
        ["sell", "50", "BTC", "(long)", "0", "-", "reduce-only"],
    ]
    assert lines[4:] == [
        "  cancel first: entry order e1 of BTC on main",
        "  cancel at the end: exit or protective order s1 of BTC on main",
    ]


def test_a_plan_without_any_known_trigger_does_not_claim_that_nothing_is_to_do(tmp_path: Path) -> None:
    """The account is available, but its equity in the reference currency is unknown: so is every trigger."""
    text = POLICY.replace("{each: account, match: {}}", "{each: portfolio, match: {}}")
    (tmp_path / "policy.yaml").write_text(
        text.replace("  max_gap", "  reference: {currency: USD}\n  max_gap"), encoding="utf-8"
    )
    policy_set = read_policies([tmp_path]).policies
    snapshot = Snapshot(START, (account("1000", ()),), SNAPSHOT_FORMAT)
    previewed = preview(policy_set, snapshot, Interpreter(policy_set), "nothing", frozenset())
    last = plan_text(previewed).splitlines()[-1]
    assert last == "Unknown: every trigger of stop on portfolio is unknown, see above. Nothing was changed."
