"""A runner that takes one edit after another while it closes, on the paper venue: the close does not notice."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.processes import Site, ksctl, paper, terminate, until
from tests.faults.test_killed_runs import CLOSED, MARKET, POLICY, check_orders, closed, ends

SLOW = """---
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: slow}
spec: {max_orders_per_minute: 20, ladder: [{order: market, tries: 2}]}
"""
"""An order in three seconds, so that several sets are taken between two of them."""
PACED = POLICY.replace("fraction: 100%", "fraction: 100%, unwinding: slow") + SLOW
EDITS = (
    ("cooldown: 6h", "cooldown: 2h"),
    ("level: 2", "level: 5"),
    ("at_least: 2%", "at_least: 9%"),
    ("fraction: 100%", "fraction: 20%"),
    ("{lock_trading: {mode: reduce_only}}, ", ""),
    ("name: close-everything", "name: flatten\n      formerly: close-everything"),
)
"""Each on top of those before it: looser, renumbered, smaller, without its lock, and under another name."""


def is_closing(site: Site) -> bool:
    """Whether an order of the last stage has been sent."""
    ids = {each.id for each in site.decisions() if each.stage == CLOSED}
    return any(each.kind == "sending" and each.decision in ids for each in site.journal())


def test_reloads_in_the_middle_of_a_close_delay_lose_and_repeat_no_order(tmp_path: Path) -> None:
    """R1: each position is closed once and whole, by orders that are sent once; the lock and the latch stay."""
    with paper(*MARKET) as address:
        site = Site(tmp_path, address, policy=PACED)
        held = {each.symbol: each.contracts for each in site.venue().positions or ()}
        policy, text = site.policies / "policy.yaml", PACED
        with site.running("--live") as runner:
            until(lambda: is_closing(site), "the close of everything is under way")
            during = []
            for edit in EDITS:
                assert edit[0] in text
                text = text.replace(*edit)
                policy.write_text(text, encoding="utf-8")
                answer = ksctl("reload", "--store", str(site.store), "--reason", "a test", "--output", "json")
                assert json.loads(answer.stdout)["status"] == "taken", answer.stdout + answer.stderr
                during.append(CLOSED not in ends(site))
            assert any(during), "some of the sets were taken while the close went on"
            until(lambda: runner.poll() is not None or CLOSED in ends(site), "the closing ends")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert site.venue().positions == ()
        check_orders(site)
        fired = [each.stage for each in reversed(site.decisions()) if each.kind is None]
        assert fired == [*(["halve"] if "halve" in fired else []), CLOSED], "nothing fires a second time"
        assert ends(site) == dict.fromkeys(fired, "flat")
        assert closed(site) == held
        view = site.status().view
        assert view is not None
        assert [(each.stage, each.level) for each in view.machines] == [("flatten", 5)]
        lock = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (lock["locked"], lock["mode"]) == (True, "reduce_only")
