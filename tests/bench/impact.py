"""`ksctl impact` over the six crash folders of the shared data with a book of three accounts.

Its reference is the sum of its backtests: each folder read and run with the base, and again with the head, in this
process, as one would without the comparison. The proof of the change is part of what is measured, the reference has
none.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import backtest
from killswitch.lab.bars import read_market
from killswitch.lab.impact.replays import ReplayedAccount, generated_books
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import POLICIES, local, written
from tests.bench.measure import Measure

REPOSITORY = Path(__file__).resolve().parents[2]
PROMISED = 15.0
"""Seconds of the whole command."""
MOST_OF_BACKTESTS, ROUNDS = 1.2, 3
ACCOUNTS = tuple(ReplayedAccount(name) for name in ("alpha", "beta", "gamma"))
ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {name}}}
spec: {{adapter: paper, market: swap, currency: USDT, execution: observe}}
"""
CHANGE = ("at_least: 7%, confirm: 1m", "at_least: 6%, confirm: 1m")


def measures() -> Iterator[Measure]:
    """Promised: under 15 s, and at most 1.2 × the sum of its backtests."""
    shared = Path(os.environ.get("KILLSWITCH_SHARED") or REPOSITORY.parent / "shared") / "data" / "market"
    folders = [folder for folder in sorted(shared.glob("20*")) if folder.is_dir()]
    if len(folders) != 6:
        raise AssertionError(f"{shared} has {len(folders)} crash folders, and six are promised")
    text = (POLICIES / "futures-drawdown" / "policy.yaml").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        base, head = Path(folder) / "base", Path(folder) / "head"
        for side, policy in ((base, text), (head, text.replace(*CHANGE))):
            side.mkdir()
            accounts = "---\n".join(ACCOUNT.format(name=each.account) for each in ACCOUNTS)
            (side / "accounts.yaml").write_text(accounts, encoding="utf-8")
            (side / "policy.yaml").write_text(policy, encoding="utf-8")

        def impact() -> None:
            crashes = [word for each in folders for word in ("--crashes", str(each))]
            words = ["impact", str(head), "--against", str(base), *crashes, "-o", "json"]
            found = CliRunner().invoke(ksctl, words, catch_exceptions=False)
            if '"conclusion": "analysed"' not in found.stdout:
                raise AssertionError(found.output)

        sets = written(text), written(text.replace(*CHANGE))
        impact()  # imports what it needs
        begun = perf_counter()
        impact()
        elapsed = perf_counter() - begun
        ours, alone = processor_times(impact, lambda: backtests(folders, sets))
    name = "impact over six crash folders with three accounts, two books each"
    yield Measure(name, elapsed * 1e3, PROMISED * 1e3, "promised", 1.0)
    name += ", processor time"
    yield Measure(name, ours * 1e3, alone * 1e3, "the sum of its backtests", MOST_OF_BACKTESTS)


def processor_times(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float]:
    """The least processor time of each in seconds, in alternate rounds: other load does not change it."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for spent, work in zip(times, (ours, reference), strict=True):
            gc.collect()
            begun = process_time()
            work()
            spent.append(process_time() - begun)
    return min(times[0]), min(times[1])


def backtests(folders: list[Path], sets: tuple[PolicySet, PolicySet]) -> None:
    """Every backtest of the comparison on its own."""
    for folder in folders:
        for policies in sets:
            matrix = PriceMatrix(read_market(folder))
            for book in generated_books(matrix.symbols, ACCOUNTS):
                asyncio.run(backtest(policies, matrix, book, rule="staged", venue=local))
