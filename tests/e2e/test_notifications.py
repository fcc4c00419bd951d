"""`ksctl run` at a real venue: notifications reach a file and a webhook, and status shows those that wait."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import POLICY, Site, ksctl, paper, terminate, until
from tests.webhooks import Webhook, free_port

CRASHING = ("--crash", "7", "--skip", "238", "--speed", "600", "--begin-after-readings", "3")

ROUTE = """
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {{name: desk}}
spec:
  match: {{}}
  targets:
    - file: {{path: {file}}}
    - apprise: {{url: "json://127.0.0.1:{port}/"}}
"""


def test_a_crash_is_notified_to_a_file_and_to_a_webhook_that_comes_up_later(tmp_path: Path) -> None:
    """The file is written while the webhook is down, and status shows that; the next run sends what waits, once."""
    webhook = Webhook(free_port())
    log = tmp_path / "notifications.jsonl"
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address, policy=POLICY + ROUTE.format(file=log, port=webhook.port))
        with site.running("--live") as runner:
            until(lambda: log.exists() and log.read_text(encoding="utf-8"), "the file is written")
            status = ksctl("status", "--store", str(site.store)).stdout
            assert "Notifications" in status
            assert terminate(runner)[0] == 0
        with webhook.listening(), site.running("--live") as runner:
            until(lambda: webhook.ids, "the webhook is notified")
            assert terminate(runner)[0] == 0
    assert len(set(webhook.ids)) == len(webhook.ids)
