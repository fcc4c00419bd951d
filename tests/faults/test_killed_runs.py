"""A runner that is killed again and again, between single writes of its store and at random instants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from tests.e2e.fork_client import REPOSITORY
from tests.e2e.processes import WAIT_LIMIT, Site, paper, terminate, until

MARKET = ("--crash", "7", "--skip", "240", "--speed", "30", "--begin-after-readings", "3")
"""A bar in two seconds: the fall, and the close that waits for its volume, take longer than several runners live."""
MOST_LIVES = 25
"""How many runners are killed, while the last close has not ended, before the one that is left alone."""
WRITES = (6, 45)
"""Least and most writes of a life: a start has nine, a tick a few, and a close of this book some thirty."""
CLOSED = "close-everything"
POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    little: {signal: equity.loss_from_start, at_least: 1%, on_unknown: hold}
    much: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}
  stages:
    - name: halve
      level: 1
      any: [little]
      cooldown: 6h
      reset: manual
      actions: [{cancel_orders: {kind: entry}}, {close: {side: both, fraction: 50%}}]
    - name: close-everything
      level: 2
      any: [much]
      cooldown: 6h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""


def one_life(site: Site, kill_at: str | None, seconds: float) -> int:
    """A runner that dies at the write, or after so many seconds; its exit code."""
    run = ("run", *site.place, "--interval", "100ms", "--live")
    command = [sys.executable, "-m", "tests.faults.killed_runner", kill_at or "0-before", *run]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        try:
            running.wait(WAIT_LIMIT if kill_at is not None else seconds)
        except subprocess.TimeoutExpired:
            running.kill()
        _, err = running.communicate(timeout=WAIT_LIMIT)
        assert running.returncode == -9, err.decode()
        return running.returncode


def check_orders(site: Site) -> None:
    """Each name was sent once, and the venue has one order of it."""
    journal = site.journal()
    sent = Counter((each.account, each.client_order_id) for each in journal if each.kind == "sending")
    assert set(sent.values()) == {1}, "an order was sent a second time under its name"
    orders: dict[str, set[str | None]] = {}
    for fill in site.venue().fills or ():
        if fill.client_order_id is not None:
            orders.setdefault(fill.client_order_id, set()).add(fill.order)
    assert all(len(each) == 1 for each in orders.values()), "the venue has two orders of one name"
    assert set(orders) <= {name for _, name in sent}, "the venue has an order that was not journaled before"


def closed(site: Site) -> dict[str | None, Decimal]:
    """Symbol → contracts that our orders closed."""
    found: dict[str | None, Decimal] = {}
    for each in site.journal():
        if each.kind == "filled":
            found[each.symbol] = found.get(each.symbol, Decimal(0)) + Decimal(each.data["filled"] or 0)
    return found


def ends(site: Site) -> dict[str | None, str | None]:
    """Stage → how its close ended; asserts that each ended once."""
    names = {each.id: each.stage for each in site.decisions()}
    found = [
        (names[each.decision], each.data["status"])
        for each in site.journal()
        if each.kind == "finished" and each.account and each.data["status"] != "locked"
    ]
    assert len(dict(found)) == len(found), found
    return dict(found)


@pytest.mark.parametrize("seed", [None, 1, 2], ids=["left alone", "seed 1", "seed 2"])
def test_kill_9_at_any_write_or_instant_loses_no_stage_and_sends_no_order_twice(
    tmp_path: Path, seed: int | None
) -> None:
    """The end is that of a run that nobody kills: each stage fires at most once, the last one surely, what is held is
    closed once, and level and lock are there.

    The base of the loss is stored by the first runner, before the fall begins. The first stage may be passed over while
    no runner lives: then both losses are true in one tick, and the higher stage fires.
    """
    random = Random(seed)
    with paper(*MARKET) as address:
        site = Site(tmp_path, address, policy=POLICY)
        held = {each.symbol: each.contracts for each in site.venue().positions or ()}
        if seed is not None:
            with site.running("--live", fresh=True) as runner:
                runner.kill()
                runner.wait()
            for life in range(MOST_LIVES):
                side = random.choice(("before", "after"))
                at = f"{random.randint(*WRITES)}-{side}" if life % 3 else None
                one_life(site, at, random.uniform(0.8, 1.8))
                if CLOSED in ends(site):
                    break
        with site.running("--live", fresh=True) as runner:
            until(lambda: runner.poll() is not None or CLOSED in ends(site), "the closing ends")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert site.venue().positions == ()
        check_orders(site)
        fired = [each.stage for each in reversed(site.decisions()) if each.kind is None]
        assert fired == [*(["halve"] if "halve" in fired else []), CLOSED]
        assert ends(site) == dict.fromkeys(fired, "flat")
        assert closed(site) == held
        view = site.status().view
        assert view is not None and [each.level for each in view.machines] == [2]
        lock = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (lock["locked"], lock["mode"], lock["stage"]) == (True, "reduce_only", CLOSED)
