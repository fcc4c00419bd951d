"""What is pushed to a git source while a close goes on at the paper venue, with real processes and keys."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import paper, until
from tests.e2e.test_policy_files import PACED, check_closed_once, is_closing
from tests.faults.test_killed_runs import CLOSED, MARKET, ends
from tests.source.signed_repositories import KeyRing
from tests.source.test_live_repository import RepositorySite

UNHURRIED = PACED.replace("max_orders_per_minute: 20", "max_orders_per_minute: 12")
"""An order in five seconds: the polls and reviews of three commits end well before the close."""


def test_r1_pushes_in_the_middle_of_a_close_lose_and_repeat_no_order(tmp_path: Path, keys: KeyRing) -> None:
    """S1, R1: a forged and a broken commit are refused, a tightening is taken, and each position is closed once."""
    with paper(*MARKET) as address:
        site = RepositorySite(tmp_path, address, keys, UNHURRIED)
        held = {each.symbol: each.contracts for each in site.venue().positions or ()}
        with site.following() as runner:
            anchor = site.host.head
            until(lambda: is_closing(site), "the close of everything is under way")
            site.host.git("checkout", "--quiet", "--detach")  # so that the branch never names the honest commit
            honest = site.push("1.9%", "alice", "a change")
            forged = site.host.put(site.host.write_object(site.host.raw(honest).replace(b"a change", b"a chance")))
            until(lambda: (site.source()["culprit"] or {}).get("commit") == forged, "the forged commit is seen")
            assert site.source()["culprit"]["code"] == "KS8104", "the signature is not of these bytes"
            seen_in_close = [CLOSED not in ends(site)]
            site.host.reset(anchor)
            broken = site.host.commit({"policies/policy.yaml": site.policy.replace("at_least", "at_laest")}, "alice")
            until(lambda: (site.source()["culprit"] or {}).get("file") is not None, "the broken file is seen")
            seen_in_close.append(CLOSED not in ends(site))
            assert site.source()["commit"] == anchor, broken
            tight = site.push("1.9%", "alice")
            until(lambda: site.is_at(tight), "the next honest commit is in force")
            seen_in_close.append(CLOSED not in ends(site))
            assert all(seen_in_close), "all of it while the close went on"
            assert CLOSED in check_closed_once(site, runner, held)
