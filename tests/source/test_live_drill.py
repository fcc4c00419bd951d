"""A live drill with real processes: a paper venue, a runner, two people's keys, and the verb that opens and closes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.processes import ksctl, paper, terminate
from tests.source.test_live_directory import UNMOVING, SourceSite
from tests.unit.source.approval_keys import Signer, ssh_signer

ANN, BEN = ssh_signer("ann@desk.example"), ssh_signer("ben@desk.example")
SYMBOL = "BTC_USDT"
DRILL = """apiVersion: killswitch.dev/v1
kind: Drill
metadata: {name: quarterly}
spec:
  mode: live
  every: 90d
  live: {account: main, symbol: BTC_USDT, most: 1}
"""


BOOK = """name: one
accounts:
  - account: main
    market: swap
    currency: USDT
    equity: 100000
    positions: [{symbol: ETH_USDT, side: long, notional: 10000, leverage: 5}]
"""


class DrillSite(SourceSite):
    """A site with a live drill, whose loosenings two people approve."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder, address)
        (self.policies / "drills.yaml").write_text(DRILL, encoding="utf-8")
        keys = "".join(
            f"    - {{principal: {each.principal}, ssh: {' '.join(each.public.split()[:2])}, may: [approve]}}\n"
            for each in (ANN, BEN)
        )
        head = "apiVersion: killswitch.dev/v1\nkind: PolicyTrust\nmetadata: {name: desk}\nspec:\n"
        (folder / "trust.yaml").write_text(f"{head}  version: 1\n  approvals: 2\n  keys:\n{keys}", encoding="utf-8")
        self.file.write_text(self.file.read_text() + "  trust: trust.yaml\n", encoding="utf-8")

    def approve(self, by: Signer, *options: str) -> None:
        """Sign the drill as its document is now."""
        done = ksctl(
            "approve", "--source", str(self.file), "--purpose", "drill", "--drill", "quarterly", "--head",
            str(self.policies), "--key", str(by.private), "--yes", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def drill(self, *options: str, policies: Path | None = None) -> tuple[int, str]:
        """The exit code and the output of `ksctl drill live`. `policies`: in place of those that the runner follows."""
        done = ksctl(
            "drill", "live", "quarterly", "--policies", str(policies or self.policies), "--source", str(self.file),
            "--store", str(self.store), "--folder", str(self.folder / "drills"), "--author", "olga", *options,
        )  # fmt: skip
        return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_two_people_approve_a_live_drill_and_the_runner_closes_it(tmp_path: Path) -> None:
    """One approval is not enough, two are, once. One file and one delivered approval; nothing is left at the venue."""
    book = tmp_path / "book.yaml"
    book.write_text(BOOK, encoding="utf-8")
    with paper(*UNMOVING, "--book", str(book)) as address:
        site = DrillSite(tmp_path, address)
        ann = tmp_path / "ann.approval"
        with site.running("--live") as runner:
            site.approve(ANN, "--out", str(ann))
            code, text = site.drill("--approval", str(ann), "--live")
            assert (code, "2 approvals are needed, and 1 count" in text) == (1, True), text
            assert not site.decisions()
            site.approve(BEN, "--store", str(site.store))
            code, text = site.drill("--approval", str(ann))
            assert (code, "nothing was sent: with --live it would buy" in text) == (0, True), text
            elsewhere = tmp_path / "elsewhere"
            shutil.copytree(site.policies, elsewhere)
            account = elsewhere / "account.yaml"
            account.write_text(account.read_text().replace("127.0.0.1", "localhost"), encoding="utf-8")
            code, text = site.drill("--approval", str(ann), "--live", policies=elsewhere)
            assert (code, "are not those that the runner has in force" in text) == (1, True), text
            code, text = site.drill("--approval", str(ann), "--live", "--output", "json")
            assert "opening " in text and "the runner closes it by the command hand-" in text, text
            (kept,) = (json.loads(line) for line in (tmp_path / "drills" / "drills.jsonl").read_text().splitlines())
            assert kept["ended"] == "completed", kept
            assert [each for each in site.venue().positions or () if each.symbol == SYMBOL] == []
            (closed,) = site.decisions()
            assert (closed.cause, closed.author) == ("drill", "olga")
            assert "approved by ann@desk.example and ben@desk.example" in (closed.reason or "")
            code, text = site.drill("--approval", str(ann), "--live")
            assert (code, "KS8310" in text) == (1, True), text
            assert len(site.decisions()) == 1
            report = ksctl("report", "--store", str(site.store)).stdout
            assert "DRILL" in report.splitlines()[0], report
            assert terminate(runner)[0] == 0
