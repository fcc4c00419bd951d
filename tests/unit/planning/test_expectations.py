"""`expect` of a policy: compared with what there is, by `plan`, by a first start and by a run; never by what fires."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.accounts.opening import read_policies
from killswitch.cli import ksctl
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.snapshot import SNAPSHOT_FORMAT, AccountSnapshot, Snapshot, encode_snapshot
from killswitch.planning.expectations import compared
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.schema.expectation import at_most
from killswitch.runner.expectation_check import ExpectationCheck, has_begun
from killswitch.runner.observers import TickReport
from tests.worlds import START, account, position

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {MATCH}}
  max_gap: 10m
EXPECT
  triggers:
    any-loss: {signal: exposure.leverage, at_least: 0.001, on_unknown: hold}
  stages:
    - name: close-everything
      level: 3
      any: [any-loss]
      cooldown: 6h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""
ACCOUNT = """\
---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: NAME}
spec: {adapter: paper, market: swap, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:9'}
"""


def policies(folder: Path, expect: str = "", match: str = "") -> PolicySet:
    """The set with this expectation, and two accounts."""
    line = f"  expect: {expect}" if expect else ""
    text = POLICY.replace("EXPECT", line).replace("MATCH", match)
    text += "".join(ACCOUNT.replace("NAME", name) for name in ("a", "b"))
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    return read_policies([folder]).policies


def held(name: str, *symbols: str) -> AccountSnapshot:
    """An account that holds one position in each symbol."""
    rows = tuple(position(each, "long", "0", contracts="1", mark_price="100", notional="100") for each in symbols)
    return replace(account("1000", rows), account=name)


def texts(policy_set: PolicySet, *accounts: AccountSnapshot) -> list[str]:
    """The texts of what is exceeded."""
    return [each.text for each in compared(policy_set, accounts) if each.is_exceeded]


BOOK = (held("a", "BTC", "ETH"), held("b", "SOL"), held("c"), held("d", "XRP"))
"""Four accounts with four positions."""


@pytest.mark.parametrize(
    ("expect", "match", "found"),
    [
        ("{accounts: at most 4}", "", []),
        ("{accounts: at most 3}", "", ["`stop` expects at most 3 accounts, and has 4 accounts of 4: a, b, c, d"]),
        ("{accounts: at most 50%}", "account: [a, b]", []),
        ("{accounts: at most 49%}", "account: [a, b]",
         ["`stop` expects at most 49% accounts, and has 2 accounts of 4: a, b"]),
        ("{positions: at most 50%}", "account: a", []),
        ("{positions: at most 49.9%}", "account: a",
         ["`stop` expects at most 49.9% positions, and has 2 positions of 4: BTC on a, ETH on a"]),
        ("{positions: at most 0}", "account: b",
         ["`stop` expects at most 0 positions, and has 1 position of 4: SOL on b"]),
        ("{positions: at most 0%}", "account: c", []),
    ],
)  # fmt: skip
def test_found_and_total_are_named_where_it_is_more(expect: str, match: str, found: list[str], tmp_path: Path) -> None:
    """A share is of all accounts or positions of the set, and exact; a bound that is met is no matter."""
    assert texts(policies(tmp_path / "p", expect, match), *BOOK) == found


def test_positions_that_cannot_be_read_are_unknown_and_never_zero(tmp_path: Path) -> None:
    """Neither kept nor exceeded, with the reason; a count that is exceeded by what is known is exceeded."""
    down = replace(held("b"), positions=None, quality="down", reason="no answer")
    share = policies(tmp_path / "p", "{positions: at most 50%}", "account: a")
    (of_share,) = compared(share, (BOOK[0], down))
    assert (of_share.is_exceeded, of_share.unknown) == (False, "account b is down: no answer")
    count = policies(tmp_path / "p", "{positions: at most 2}", "account: a")
    (of_count,) = compared(count, (BOOK[0], down))
    assert (of_count.is_exceeded, of_count.unknown) == (False, None)
    both = policies(tmp_path / "p", "{positions: at most 1}")
    (of_both,) = compared(both, (BOOK[0], down))
    assert (of_both.is_exceeded, of_both.unknown) == (True, None)


def decisions(policy_set: PolicySet) -> list[Decision]:
    """What fires on the book, as if nothing but the digest differed."""
    snapshot = Snapshot(START, BOOK, SNAPSHOT_FORMAT)
    made = Interpreter(policy_set).tick(snapshot).decisions
    return [replace(each, policy_set="", id="") for each in made]


def test_nothing_that_fires_is_declined_or_cut(tmp_path: Path) -> None:
    """With an expectation of nothing at all the same stages close the same positions."""
    without = decisions(policies(tmp_path / "p"))
    assert len(without) == 3
    assert decisions(policies(tmp_path / "p", "{accounts: at most 0, positions: at most 0%}")) == without


def test_a_bound_that_is_spelled_otherwise_is_the_same_digest(tmp_path: Path) -> None:
    """And an expectation of its own is another one."""
    one = policies(tmp_path / "p", "{accounts: at most 3, positions: at most 20%}").digest
    assert policies(tmp_path / "p", "{positions: 'at  most 20.0 %', accounts: at most 3}").digest == one
    assert policies(tmp_path / "p", "{accounts: at most 3, positions: at most 20}").digest != one
    assert at_most("at most 100%") != at_most("at most 1")


def test_plan_exits_1_and_names_found_and_total(tmp_path: Path) -> None:
    """On a recording, where every account is readable; without the expectation it exits 0."""
    (tmp_path / "seen.jsonl").write_bytes(encode_snapshot(Snapshot(START, BOOK, SNAPSHOT_FORMAT)) + b"\n")
    arguments = ["plan", "--policies", str(tmp_path / "p"), "--snapshot", str(tmp_path / "seen.jsonl")]
    policies(tmp_path / "p", "{accounts: at most 3}")
    shown = CliRunner().invoke(ksctl, arguments, standalone_mode=False)
    assert shown.return_value == 1
    assert "NOT EXPECTED: `stop` expects at most 3 accounts, and has 4 accounts of 4: a, b, c, d" in shown.output
    assert "WOULD FIRE" in shown.output
    policies(tmp_path / "p", "{accounts: at most 4}")
    kept = CliRunner().invoke(ksctl, arguments, standalone_mode=False)
    assert kept.return_value == 0
    assert "NOT EXPECTED" not in kept.output


def report(*accounts: AccountSnapshot) -> TickReport:
    """The report of a tick with this snapshot."""
    return TickReport(Snapshot(START, accounts, SNAPSHOT_FORMAT), (), (), (), (), 0.0)


def test_a_run_pages_while_it_is_more(tmp_path: Path) -> None:
    """Unknown before the first tick and while an account that counts cannot be read; over once it is kept again."""
    check = ExpectationCheck(policies(tmp_path / "p", "{positions: at most 2}"))
    assert check.alerts.unknown == ("expect",)
    check.ticked(report(*BOOK))
    (alert,) = check.alerts.found
    assert (alert.key, alert.severity, alert.measure) == ("expect/stop/positions", "page", (Decimal(4),))
    assert "The policy acts as it is written" in alert.text
    check.ticked(report(replace(BOOK[0], positions=None, quality="down")))
    assert (check.alerts.found, check.alerts.unknown) == ((), ("expect/stop/positions",))
    check.ticked(report(BOOK[0]))
    assert (check.alerts.found, check.alerts.unknown) == ((), ())
    assert ExpectationCheck(policies(tmp_path / "p")).alerts.unknown == ()


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run of three ticks, on accounts that are down."""
    command = [sys.executable, "-c", "from killswitch.cli import main; main()", "run", "--policies", str(folder / "p")]
    command += ["--store", str(folder / "store.sqlite"), "--interval", "50ms", "--ticks", "3", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_first_start_refuses_and_a_later_one_pages_and_runs(tmp_path: Path) -> None:
    """Exit 69 with found and total, and no state; on the store of an earlier run it runs and pages."""
    policies(tmp_path / "p", "{accounts: at most 1}")
    refused = run(tmp_path)
    assert refused.returncode == 69
    assert "`stop` expects at most 1 accounts, and has 2 accounts of 2: a, b" in refused.stderr
    assert "This is a first start, and nothing was started" in refused.stderr
    policies(tmp_path / "p")
    assert run(tmp_path).returncode == 0
    policies(tmp_path / "p", "{accounts: at most 1}")
    later = run(tmp_path)
    assert later.returncode == 0, later.stderr
    assert "`stop` expects at most 1 accounts, and has 2 accounts of 2: a, b" in later.stderr


def test_an_account_that_cannot_be_read_refuses_no_start(tmp_path: Path) -> None:
    """Whether it is more is unknown then, and the book would be without its runner."""
    policies(tmp_path / "p", "{positions: at most 0}")
    assert run(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("states", "unfinished", "lock", "begun"),
    [((), (), False, False), (("state",), (), False, True), ((), ("close",), False, True), ((), (), True, True)],
)
def test_a_start_that_finds_stages_closes_or_locks_is_no_first_one(
    states: Any, unfinished: Any, lock: bool, begun: bool, tmp_path: Path
) -> None:
    """Each of them alone; a folder that is not there has no lock."""
    store: Any = SimpleNamespace(states=lambda: states, unfinished=lambda: unfinished)
    if lock:
        (tmp_path / "locks").mkdir()
        (tmp_path / "locks" / "account__a.json").write_text("{}")
    assert has_begun(store, tmp_path / "locks") is begun
