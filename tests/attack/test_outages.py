"""A venue that fails one poll, and a silent one: operator commands work, and status, reset and report agree."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.e2e.processes import Site, address_of, ksctl, paper, paused, process, until

FEED = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: feed}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    silent: {signal: venue.age, at_least: 1s, on_unknown: hold}
  stages:
    - name: stop
      level: 1
      any: [silent]
      cooldown: 1s
      reset: manual
      actions: [{lock_trading: {mode: all}}]
"""


@contextmanager
def answering_503(venue: str, failures: int) -> Iterator[str]:
    """The address of a server before `venue` that answers the first `failures` snapshots with 503."""
    left = iter(range(failures))

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            if "snapshot" in self.path and next(left, None) is not None:
                self.reply(503, b"")
                return
            headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            forwarded = urllib.request.Request(venue + self.path, body, headers, method=self.command)
            try:
                with urllib.request.urlopen(forwarded) as found:
                    self.reply(found.status, found.read())
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.read())

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that the standard library calls

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_one_503_does_not_consume_an_operator_close(tmp_path: Path) -> None:
    """Without a runner, the first poll of the command fails, the next one succeeds, and the book is closed."""
    with paper("--crash", "7", "--skip", "1", "--speed", "0.001") as venue:
        site = Site(tmp_path, venue)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        with answering_503(venue, 1) as endpoint:
            account = site.policies / "account.yaml"
            account.write_text(account.read_text(encoding="utf-8").replace(venue, endpoint), encoding="utf-8")
            closed = ksctl("close", "--reason", "operator: now", *site.place, "--live")
        assert (closed.returncode, site.venue().positions) == (0, ()), closed.stderr
        assert "answered 503" in closed.stdout
        assert "flat, 8 positions reduced" in closed.stdout


def test_status_reset_and_report_agree_on_a_stage_that_fired_at_a_silent_venue(tmp_path: Path) -> None:
    """It locks during the outage; status shows it latched, and a reset after the outage ends lock and incident."""
    with process("paper", "--crash", "7", "--skip", "1", "--speed", "0.001") as server:
        site = Site(tmp_path, address_of(server), policy=FEED)
        with site.running("--live", "--read-timeout", "500ms"):
            with paused(server):
                until(lambda: _stage(site) is not None, "the stage is shown")
                status = site.status()
                assert (_stage(site), [each.ordered for each in status.locks]) == ((1, "stop", True), [True])
                assert not any("should fire" in notice.text for notice in status.notices)
            until(lambda: _is_polled(site), "the venue is polled again")
            reset = ksctl("reset", "account/main", "--reason", "seen", "--store", str(site.store))
            assert reset.returncode == 0, reset.stderr
            assert "reset from level 1" in reset.stdout
            assert "account/main is not locked" in reset.stdout
        listed = ksctl("report", "list", "--store", str(site.store)).stdout.splitlines()
        assert [("closed" in line, "open" in line) for line in listed if "1 stop" in line] == [(True, False)]


def _stage(site: Site) -> tuple[int, str, bool] | None:
    """Level and name of the stage that status shows, and whether it is latched."""
    view = site.status().view
    (machine,) = () if view is None else view.machines
    return None if machine.stage is None else (machine.level, machine.stage, machine.latched)


def _is_polled(site: Site) -> bool:
    view = site.status().view
    return view is not None and all(each.quality == "ok" for each in view.accounts)
