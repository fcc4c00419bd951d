"""Broker suspension at Alpaca, requested by `ksctl run` through the real client."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from tests.e2e import processes
from tests.e2e.processes import until
from tests.e2e.wire_venues import VENUES, Site, World, venue

POLICY: Final = processes.POLICY.replace("2%", "0.5%").replace("reduce_only", "all").replace("entry", "all")
"""A full lock, and all orders cancelled, at a loss of half a percent."""


def test_the_broker_is_suspended_after_the_close_over_a_restart_and_until_a_reset(tmp_path: Path) -> None:
    """Suspended once, when nothing is held any more; the next run does not lift it; a reset lifts it at once."""
    with venue(VENUES["alpaca"]) as world:
        site = Site(tmp_path, world, POLICY, options="{suspend_trade: true}")
        with site.running("--interval", "1s") as run:
            until(lambda: run.has_ended or site.view() is not None, "the runner ticks")
            world.move("price", symbol="AAPL", price="50")  # 1% of the account, which the mark explains
            until(lambda: run.has_ended or _suspensions(world), "the broker is suspended")
            until(lambda: run.has_ended or _shown(site), "status shows it")
            assert _suspensions(world) == [[True, 0]], run.stderr
            assert world.held() == {}
            assert world.state()["resting"] == 0
            assert run.terminate() == 0, run.stderr
        assert _suspensions(world) == [[True, 0]], "a stop lifts nothing"
        with site.running("--interval", "1s") as run:
            until(
                lambda: run.has_ended or (len(_suspensions(world)) > 1 and _shown(site)),
                "the next run requests it again",
            )
            reset = world.ksctl("reset", "account/main", "--store", str(site.store), "--reason", "looked at")
            assert reset.returncode == 0, reset.stderr + run.stderr
            until(lambda: run.has_ended or not _suspensions(world)[-1][0], "the suspension is lifted")
            until(lambda: run.has_ended or not _shown(site), "status shows it no more")
            run.process.send_signal(signal.SIGTERM)
            assert run.process.wait(60) == 0, run.stderr
        # Never lifted in between: requested again by the second run, then lifted by the reset.
        assert _suspensions(world) == [[True, 0], [True, 0], [False, 0]]
        assert "could not be" not in run.stderr


def _suspensions(world: World) -> list[list[object]]:
    found: list[list[object]] = world.state()["suspensions"]
    return found


def _shown(site: Site) -> bool:
    view = site.view()
    return view is not None and view.suspended == ("main",)
