"""Anchors in a real git repository and from a real time stamping authority on loopback, and their verification."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import copytree, ignore_patterns, which
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from killswitch.audit.anchor_settings import AnchorSettings, GitAnchors, TimeStamps, read_anchor_settings
from killswitch.audit.anchor_worker import AnchorWorker, publishers
from killswitch.audit.log_files import AuditError, verify_source
from killswitch.audit.proving import AnchorTrust, fetched_anchors
from killswitch.audit.time_stamps import time_stamp_request
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.record.anchors import Anchor, FetchedAnchor, anchor_text
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
pytestmark = pytest.mark.skipif(
    not all(map(which, ("git", "ssh-keygen", "openssl"))), reason="needs git, ssh-keygen and openssl"
)


def shell(folder: Path, *command: object) -> str:
    done = subprocess.run([str(part) for part in command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(str(tmp_path / "ks.sqlite"))
    orders(opened, 5)
    yield opened
    opened.close()


def orders(store: SqlStore, many: int) -> None:
    for number in range(many):
        store.append(JournalEntry("d1", "verified", NOW, "main", "BTC/USDT:USDT", "long", data={"n": str(number)}))


class Repository:
    """A bare repository that others can fetch, a key that signs anchors, and the file of allowed signers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bare = folder / "public.git"
        shell(folder, "git", "init", "--quiet", "--bare", self.bare)
        shell(folder, "git", "-C", self.bare, "config", "receive.denyNonFastForwards", "true")
        self.signers = folder / "signers"
        self.key = self.new_key("anchor")
        self.signers.write_text(f"* {self.key.with_suffix('.pub').read_text()}")

    def new_key(self, name: str) -> Path:
        key = self.folder / name
        shell(self.folder, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        return key

    def settings(self, key: Path | None = None) -> AnchorSettings:
        git = GitAnchors(str(self.bare), "anchors", str(key or self.key))
        return AnchorSettings(str(self.folder / "anchors"), "1h", git)

    def trust(self) -> AnchorTrust:
        return AnchorTrust(signers=self.signers)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def worker_of(store: SqlStore, settings: AnchorSettings, clock: list[float] | None = None) -> AnchorWorker:
    times = clock if clock is not None else [0.0]
    return AnchorWorker(store, publishers(settings), settings.seconds, lambda: NOW, lambda: times[0])


def published(store: SqlStore) -> list[tuple[Any, Any]]:
    """Place and result of each entry about an anchor."""
    import json

    lines = (json.loads(line.text) for line in store.record_lines())
    return [(each["place"], each["result"]) for each in lines if each["kind"] == "anchor"]


def test_each_anchor_is_a_signed_commit_on_the_one_before(store: SqlStore, repository: Repository) -> None:
    """A clone shows one sequence; the log is confirmed up to the newest one."""
    worker = worker_of(store, repository.settings())
    worker.publish()
    orders(store, 3)
    worker.publish()
    found = fetched_anchors(repository.bare, repository.trust())
    assert [(each.anchor.number, each.refused) for each in found] == [(6, None), (10, None)]
    assert shell(repository.bare, "git", "rev-list", "--count", "anchors").strip() == "2"
    report = verify_source(store, found, needs_anchor=True)
    assert report.verdict == "verified"
    assert [each.state for each in report.anchors] == ["confirmed", "confirmed"]
    assert report.uncovered == (11, 11), "the entry about the newest anchor itself"
    assert published(store) == [("git", "published")] * 2


def test_nothing_new_is_not_published_again(store: SqlStore, repository: Repository) -> None:
    """The entry about an anchor is no reason for another one."""
    worker = worker_of(store, repository.settings())
    for _ in range(3):
        worker.publish()
    assert published(store) == [("git", "published")]


@pytest.mark.parametrize("trust", ["nobody", "another key"])
def test_a_commit_that_no_allowed_key_has_signed_is_not_genuine(
    store: SqlStore, repository: Repository, trust: str
) -> None:
    """It confirms nothing, and without a confirmed anchor the record is not verified."""
    worker_of(store, repository.settings(repository.new_key("mallory"))).publish()
    signers = None if trust == "nobody" else repository.signers
    found = fetched_anchors(repository.bare, AnchorTrust(signers=signers))
    assert [each.refused is None for each in found] == [False]
    report = verify_source(store, found, needs_anchor=True)
    assert (report.verdict, len(report.refused)) == ("could not tell", 1)


def forged_by_settings(clone: Path, key: Path) -> None:
    """A commit that another key has signed, and a program named in the settings of the clone that calls it good."""
    program = clone.parent / "confirms"
    program.write_text("#!/bin/sh\necho 'Good \"git\" signature for anchor@x with ED25519 key SHA256:x'\n")
    program.chmod(0o755)
    commit_forged(clone, "-c", "gpg.format=ssh", "-c", f"user.signingKey={key}", "commit-tree", "-S")
    shell(clone, "git", "config", "gpg.ssh.program", program)


def forged_by_keyring(clone: Path, _key: Path) -> None:
    """A commit that an OpenPGP key has signed, whose keyring is in the clone."""
    with TemporaryDirectory() as home:  # short enough for the socket of an agent
        gpg = ("gpg", "--homedir", home, "--batch", "--passphrase", "")
        shell(clone, *gpg, "--quick-generate-key", "mallory@example.com", "ed25519", "sign")
        wrapper = clone.parent / "gpg-of-mallory"
        wrapper.write_text(f'#!/bin/sh\nexec gpg --homedir {home} --batch "$@"\n')
        wrapper.chmod(0o755)
        commit_forged(
            clone, "-c", "gpg.format=openpgp", "-c", f"gpg.program={wrapper}",
            "-c", "user.signingKey=mallory@example.com", "commit-tree", "-S",
        )  # fmt: skip
        shell(clone, "gpgconf", "--homedir", home, "--kill", "all")
        copytree(home, clone / ".gnupg", ignore=ignore_patterns("S.*"))


def forged_by_replacement(clone: Path, _key: Path) -> None:
    """The genuine commit, and another file of anchors that git shows in place of that in the commit."""
    blob = shell(clone, "git", "rev-parse", "anchors:anchors").strip()
    shell(clone, "git", "replace", blob, forged_blob(clone))


def forged_by_damage(clone: Path, _key: Path) -> None:
    """The genuine commit, and a file of an object that holds another one than its name says."""
    blob = shell(clone, "git", "rev-parse", "anchors:anchors").strip()
    other = forged_blob(clone)
    objects = Path(shell(clone, "git", "rev-parse", "--git-path", "objects").strip())
    target, source = (clone / objects / each[:2] / each[2:] for each in (blob, other))
    target.unlink()
    target.write_bytes(source.read_bytes())


FORGED = Anchor("ab" * 16, 3, "cd" * 32)


def forged_blob(clone: Path) -> str:
    (clone.parent / "forged").write_text(anchor_text(FORGED))
    return shell(clone, "git", "hash-object", "-w", clone.parent / "forged").strip()


def commit_forged(clone: Path, *command: str) -> None:
    row = f"100644 blob {forged_blob(clone)}\tanchors\n"
    made = subprocess.run(["git", "mktree"], cwd=clone, input=row, check=True, capture_output=True, text=True)
    identity = ("-c", "user.name=a", "-c", "user.email=anchor@x")
    commit = shell(clone, "git", *identity, *command, made.stdout.strip(), "-m", "Anchor", "-p", "anchors").strip()
    shell(clone, "git", "update-ref", "refs/heads/anchors", commit)


@pytest.mark.parametrize(
    "forge",
    [forged_by_settings, forged_by_keyring, forged_by_replacement, forged_by_damage],
    ids=lambda it: it.__name__,
)
def test_a_clone_that_somebody_else_has_made_confirms_no_forged_anchor(
    store: SqlStore, repository: Repository, forge: Callable[[Path, Path], None]
) -> None:
    """What the folder of a clone says of itself, its settings, keys and replacements, has no part in the judgement."""
    worker_of(store, repository.settings()).publish()
    clone = repository.folder / "received"
    shell(repository.folder, "git", "clone", "--quiet", "--branch", "anchors", repository.bare, clone)
    assert [each.refused for each in fetched_anchors(clone, repository.trust())] == [None]
    forge(clone, repository.new_key("mallory"))
    try:
        found = fetched_anchors(clone, repository.trust())
    except AuditError:
        return  # a damaged clone cannot be read
    assert FORGED not in [each.anchor for each in found if each.refused is None]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give a folder away")
def test_a_clone_of_another_user_is_to_be_copied(store: SqlStore, repository: Repository) -> None:
    """As on a disk that an auditor was given: git reads it for nobody else, and no setting of git is read here."""
    worker_of(store, repository.settings()).publish()
    clone, copy = repository.folder / "given", repository.folder / "copied"
    shell(repository.folder, "git", "clone", "--quiet", "--branch", "anchors", repository.bare, clone)
    shell(repository.folder, "chown", "-R", "4321", clone)
    with pytest.raises(AuditError, match=r"it belongs to another user, .*: copy it first \(`cp -r "):
        fetched_anchors(clone)
    shell(repository.folder, "cp", "-r", clone, copy)
    assert len(fetched_anchors(copy, repository.trust())) == 1
    with pytest.raises(AuditError, match="couldn't find remote ref other"):
        fetched_anchors(copy, AnchorTrust(branch="other"))


def test_a_store_that_was_rewritten_is_contradicted_by_the_anchors(
    store: SqlStore, repository: Repository, tmp_path: Path
) -> None:
    """A log with a whole chain of its own, of the same length, is another chain; a cut one is shorter."""
    worker_of(store, repository.settings()).publish()
    found = fetched_anchors(repository.bare, repository.trust())
    forged = open_store(str(tmp_path / "forged.sqlite"))
    orders(forged, 20)
    assert verify_source(forged, found, needs_anchor=True).verdict == "contradicted"
    tip = forged.record_tip()
    assert tip is not None
    newer = FetchedAnchor(Anchor(tip.chain, tip.number, tip.root.hex()), "a test", publication="a later commit")
    assert verify_source(forged, [*found, newer], needs_anchor=True).verdict == "contradicted"
    forged.close()
    with store_at(tmp_path / "ks.sqlite") as raw:
        raw.execute("DELETE FROM record WHERE number > 4")
        raw.execute("DELETE FROM record_tip")
    assert verify_source(store, found, needs_anchor=True).verdict == "contradicted"


def store_at(path: Path) -> Any:
    import sqlite3
    from contextlib import closing, contextmanager

    @contextmanager
    def opened() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(path)) as raw, raw:
            yield raw

    return opened()


def test_a_place_that_fails_is_an_entry_and_a_page_and_is_tried_again(store: SqlStore, repository: Repository) -> None:
    """It ends when the place has the newest anchor."""
    moved = repository.bare.rename(repository.folder / "elsewhere.git")
    worker = worker_of(store, repository.settings())
    worker.publish()
    (page,) = worker.alerts.found
    assert page.key == "anchor/git"
    assert "the anchor of line 6 was not published to git" in page.text
    assert worker.gauges().failing == {"git": True}
    moved.rename(repository.bare)
    worker.publish()
    assert worker.alerts.found == ()
    assert published(store) == [("git", "failed"), ("git", "published")]
    assert worker.gauges().uncovered == 1


def decision(**more: Any) -> Decision:
    return Decision(
        id="d7", as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce", stage="close",
        level=1, previous_level=0, **more,
    )  # fmt: skip


class Ticked:
    """What a tick reports to the worker."""

    def __init__(self, decisions: tuple[Decision, ...] = (), closings: tuple[Closing, ...] = ()) -> None:
        self.decisions = decisions
        self.snapshot = Snapshot(as_of=NOW, accounts=(), format="killswitch.snapshot/v1", closings=closings)


def test_a_firing_a_reset_and_the_end_of_a_close_force_an_anchor(store: SqlStore, tmp_path: Path) -> None:
    """A suspicion and a quiet tick do not; without either there is one an interval."""
    clock, places = [0.0], []
    worker = AnchorWorker(
        store, {"here": lambda anchors: places.append(anchors[0].number)}, 3600.0, lambda: NOW, lambda: clock[0]
    )
    closing = Closing("d7", "closing", scope="account/main")
    steps = [
        (Ticked(), True),  # the first one of a run
        (Ticked(), False),
        (Ticked((decision(kind="suspicion"),)), False),
        (Ticked((decision(),)), True),
        (Ticked(closings=(closing,)), False),
        (Ticked(), True),  # the close has ended
        (Ticked((decision(kind="reset"),)), True),
    ]
    for number, (report, is_forced) in enumerate(steps):
        orders(store, 1)
        before = len(places)
        worker.ticked(report)
        if is_forced:
            assert wait_for(lambda before=before: len(places) > before), f"step {number}"
        else:
            assert len(places) == before, f"step {number}"
    orders(store, 1)
    clock[0] = 3600.0
    before = len(places)
    worker.ticked(Ticked())
    assert wait_for(lambda: len(places) > before)
    assert worker.finish()


def wait_for(condition: Any, within: float = 10.0) -> bool:
    """Whether a condition came true; the other thread needs milliseconds."""
    event = threading.Event()
    for _ in range(int(within / 0.01)):
        if condition():
            return True
        event.wait(0.01)
    return False


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimeStamps]:
    """A time stamping authority on loopback that answers with `openssl ts`."""
    folder = tmp_path / "tsa"
    folder.mkdir()
    (folder / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=Test authority\n"
        "[tsa_cert]\nextendedKeyUsage=critical,timeStamping\nbasicConstraints=CA:FALSE\n"
        f"[tsa]\ndefault_tsa=tsa1\n[tsa1]\ndir={folder}\nserial={folder}/serial\ncrypto_device=builtin\n"
        f"signer_cert={folder}/tsa.pem\nsigner_key={folder}/tsa.key\ncerts={folder}/ca.pem\nsigner_digest=sha256\n"
        "default_policy=1.2.3.4.1\ndigests=sha256\naccuracy=secs:1\nordering=no\ntsa_name=no\n"
    )
    (folder / "serial").write_text("01\n")
    make = ("openssl", "req", "-config", "ca.cnf", "-newkey", "rsa:2048", "-nodes")
    shell(folder, *make, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30")
    shell(folder, *make, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test stamps")
    shell(folder, "openssl", "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
          "-out", "tsa.pem", "-days", "30", "-extfile", "ca.cnf", "-extensions", "tsa_cert")  # fmt: skip

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            shell(folder, "openssl", "ts", "-reply", "-config", "ca.cnf", "-queryfile", "query", "-out", "answer")
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((folder / "answer").read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield TimeStamps(f"http://127.0.0.1:{server.server_port}/", str(folder / "ca.pem"))
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_time_stamp_is_kept_next_to_its_anchor_and_verified_offline(
    store: SqlStore, authority: TimeStamps, tmp_path: Path
) -> None:
    """It has the time of the authority; with other certificates, or of another anchor, it is not genuine."""
    settings = AnchorSettings(str(tmp_path / "stamps"), "1h", None, (authority,))
    worker_of(store, settings).publish()
    certificates = Path(authority.certificates)
    (found,) = fetched_anchors(tmp_path / "stamps", AnchorTrust(certificates=certificates))
    assert (found.anchor.number, found.refused) == (6, None)
    assert found.at is not None
    assert abs(datetime.fromisoformat(found.at) - datetime.now(UTC)).total_seconds() < 600
    assert verify_source(store, [found], needs_anchor=True).verdict == "verified"
    (unknown,) = fetched_anchors(tmp_path / "stamps")
    assert unknown.refused == "no certificates are named by which its time stamp can be verified"
    (file,) = (tmp_path / "stamps").glob("*.anchor")
    file.write_text(file.read_text().replace("number 6", "number 5"))
    (forged,) = fetched_anchors(tmp_path / "stamps", AnchorTrust(certificates=certificates))
    assert "openssl ts -verify" in (forged.refused or "")


def test_two_contradicting_roots_are_both_stamped_and_contradict_each_other(
    store: SqlStore, authority: TimeStamps, tmp_path: Path
) -> None:
    """A time stamp shows the time, and not that no other root was stamped."""
    settings = AnchorSettings(str(tmp_path / "stamps"), "1h", None, (authority,))
    worker_of(store, settings).publish()
    tip = store.record_tip()
    assert tip is not None
    (tmp_path / "other").mkdir()
    publish = publishers(AnchorSettings(str(tmp_path / "other"), "1h", None, (authority,)))["rfc3161"]
    publish((Anchor(tip.chain, 6, "ab" * 32),))
    trust = AnchorTrust(certificates=Path(authority.certificates))
    both = [*fetched_anchors(tmp_path / "stamps", trust), *fetched_anchors(tmp_path / "other", trust)]
    assert [each.refused for each in both] == [None, None]
    assert verify_source(store, both, needs_anchor=True).verdict == "contradicted"


def test_a_request_is_what_openssl_reads_as_one(tmp_path: Path) -> None:
    """Version 1, SHA-256 of the text, a nonce, and the wish for certificates."""
    (tmp_path / "query").write_bytes(time_stamp_request(b"abc", 0x7FFF_FFFF_FFFF_FFFF))
    shown = shell(tmp_path, "openssl", "ts", "-query", "-in", "query", "-text")
    assert "Hash Algorithm: sha256" in shown
    assert "ba 78 16 bf 8f 01 cf ea-41 41 40 de 5d ae 22 23" in shown, "FIPS 180-2, B.1"
    assert "Nonce: 0x7FFFFFFFFFFFFFFF" in shown
    assert "Certificate required: yes" in shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('folder = "a"\n', "names nobody who gets the anchors"),
        (
            'folder = "a"\nevery = "soon"\n[git]\nremote = "r"\nbranch = "b"\nkey = "k"\n',
            "docs/audit.md has an example",
        ),
        ('folder = "a"\nwhat = 1\n', "unknown field `what`"),
        ('folder = "a"\n[[time_stamps]]\nurl = "http://tsa.example"\ncertificates = "c"\n', "requested by https"),
        ("folder = ", "docs/audit.md"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_the_file(tmp_path: Path, text: str, why: str) -> None:
    """And with what to write."""
    file = tmp_path / "anchors.toml"
    file.write_text(text)
    with pytest.raises(AuditError, match=why) as error:
        read_anchor_settings(file)
    assert str(file) in str(error.value)


def test_the_example_of_the_settings_is_read_with_whole_paths(tmp_path: Path) -> None:
    """The one in the documentation of the module and on the page."""
    import killswitch.audit.anchor_settings as module

    file = tmp_path / "anchors.toml"
    lines = (module.__doc__ or "").splitlines()
    file.write_text("\n".join(line.strip() for line in lines if line.startswith("    ")))
    found = read_anchor_settings(file)
    assert (found.seconds, found.folder) == (3600.0, str(tmp_path / "anchors"))
    assert found.git is not None
    assert found.git.key == str(tmp_path / "anchor_ed25519")
    assert found.time_stamps[0].certificates == str(tmp_path / "tsa.pem")
