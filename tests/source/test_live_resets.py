"""A reset and a step of the way back that a second person signs, carried over the API to a live runner."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from killswitch.gate.lock_reader import read_lock
from killswitch.model.instant import HOUR, to_micros
from killswitch.operations.approving import (
    next_step,
    plain_statement,
    reset_to_approve,
    sign,
    ssh_signing_key,
)
from killswitch.server.access import TokenFile, issue, write_tokens
from killswitch.source.settings import read_settings
from killswitch.source.statements import Purpose, given_by, join_signature
from killswitch.store.sqlite import open_store
from tests.e2e.processes import POLICY, Site, ksctl, paper, process, terminate, until
from tests.source.signed_repositories import KeyRing

CRASHING = ("--crash", "7", "--skip", "238", "--speed", "600", "--begin-after-readings", "3")
PLAN = """
---
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: main}
spec: {match: {}, stale_after: 10s, leverage: 4}
---
apiVersion: killswitch.dev/v1
kind: RecoveryPlan
metadata: {name: back}
spec:
  policies: stop
  level: 1
  health: {when: 'equity.loss_from_start < 0.5', for: 0s}
  start: {share: 25%}
  ramp: {steps: 1, every: 1s, approvals: 1, thresholds: fixed}
"""
PLACE = "stop/account/main"


class Desk(Site):
    """A site whose policies come from a source with one approver, carol, and a server next to it."""

    def __init__(self, folder: Path, address: str, keys: KeyRing) -> None:
        super().__init__(
            folder, address, policy=POLICY.replace("reset: manual", "reset: manual\n      reset_approvals: 1") + PLAN
        )
        self.carol = Path(keys["carol"].private)
        public = " ".join(self.carol.with_name(f"{self.carol.name}.pub").read_text().split()[:2])
        head = "apiVersion: killswitch.dev/v1\nkind: {}\nmetadata: {{name: desk}}\nspec: "
        (folder / "trust.yaml").write_text(
            head.format("PolicyTrust")
            + f"{{version: 1, approvals: 1, keys: [{{principal: carol@example.com, ssh: {public}, may: [approve]}}]}}\n"
        )
        self.source = folder / "source.yaml"
        self.source.write_text(
            head.format("PolicySource") + f"{{directory: {{path: {self.policies}}}, trust: trust.yaml}}\n"
        )
        self.tokens = folder / "tokens.json"
        self.token, record = issue("viewer", "viewer", ("portfolio",), datetime.now(UTC), None)
        write_tokens(self.tokens, TokenFile((record,)))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"

    @property
    def place(self) -> tuple[str, ...]:
        return ("--source", str(self.source), "--store", str(self.store), "--lock-dir", str(self.locks))

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = ("serve", "--store", str(self.store), "--tokens", str(self.tokens), "--listen", self.host)
        with process(*server):
            until(self._answers, "the server answers")
            yield

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def approve(self, purpose: Purpose) -> int:
        """Sign as carol, and carry it over the API by a token that may only read; the status of the answer."""
        settings = read_settings(self.source)
        store = open_store(str(self.store), read_only=True)
        try:
            subject, _ = (reset_to_approve if purpose == "reset" else next_step)(store, PLACE)
        finally:
            store.close()
        key = ssh_signing_key(self.carol)
        statement = plain_statement(settings, purpose, (None, None), subject)
        signed = sign(given_by(statement, key.fingerprint, to_micros(datetime.now(UTC)), HOUR), key)
        return self.carry(join_signature(signed.signed, signed.signature))

    def carry(self, statement: bytes) -> int:
        request = urllib.request.Request(
            f"http://{self.host}/v1/approvals", json.dumps({"statement": statement.decode()}).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}, method="POST",
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def phase(self) -> str | None:
        view = self.status().view
        return next((f"{each.phase} {each.step}" for each in (view.recoveries or () if view else ())), None)

    def is_locked(self) -> bool:
        return read_lock(self.locks / "account__main.json", datetime.now(UTC)).locked


def test_a_reset_and_a_step_take_a_second_person_whose_statement_the_api_carries(tmp_path: Path, keys: KeyRing) -> None:
    """Refused and locked without carol; with her statement the reset is carried out, and so is the step after it."""
    with paper(*CRASHING) as address:
        site = Desk(tmp_path, address, keys)
        with site.running("--live") as runner, site.serving():
            until(site.is_locked, "the stage has locked")
            reset = ("reset", "account/main", "--reason", "seen", "--author", "ada", "--store", str(site.store))
            refused = ksctl(*reset)
            assert refused.returncode == 1, refused.stdout
            assert "needs 1 approval by other people" in refused.stdout + refused.stderr
            assert site.is_locked()
            assert "its reset needs 1 approval by other people" in ksctl("status", "--store", str(site.store)).stdout
            assert site.approve("reset") in (200, 202)
            until(lambda: ksctl(*reset).returncode == 0, "the approved reset is carried out")
            until(lambda: not site.is_locked(), "the lock is lifted")
            until(lambda: site.phase() == "ramp 0", "the ramp begins")
            assert site.approve("recovery") in (200, 202)
            until(lambda: site.phase() is None, "the approved step is the full size")
            assert terminate(runner)[0] == 0


def test_a_run_without_trust_says_that_nobody_can_approve(tmp_path: Path) -> None:
    """At its start, with the places; a statement that is carried to its server is refused for the same reason."""
    with paper(*CRASHING) as address:
        policy = POLICY.replace("reset: manual", "reset: manual\n      reset_approvals: 1") + PLAN
        site = Site(tmp_path, address, policy=policy)
        done = ksctl("run", *site.place, "--interval", "100ms", "--ticks", "1")
        assert done.returncode == 0, done.stderr
        shown = " ".join(done.stderr.split())
        assert "nobody can approve the reset of close-everything of stop (" in shown
        assert "this run follows no source with a trust file" in shown
