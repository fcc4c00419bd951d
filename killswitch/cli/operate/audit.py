"""`ksctl audit`: verify the record, export it, follow it, and prove that one line is in it."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.options import COUNT, IN_FILE, OUT_FILE, PATH, RECORD_TEXT, option
from killswitch.cli.terminal import encode_record, print_answer, print_note, print_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from killswitch.record.anchors import FetchedAnchor
    from killswitch.store.sql import SqlStore


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it as 2026-03-01T00:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no offset: end it with Z for UTC")
    return found


Answer = TypeVar("Answer", int, None)
MOMENT = options.ParsedParam("time", _moment)
POLL = 0.5
"""Seconds between two reads of the store by `tail --follow`."""


@click.group(epilog=options.example_text("ksctl audit verify --store ks.sqlite"))
def audit() -> None:
    """Verify the record, export it, follow it, and prove that one line is in it."""


_store = click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
                      help="The store of the runner.")  # fmt: skip
_log = click.option("--log", "log_at", type=PATH, metavar="PATH",
                    help="A log in files instead of a store: a folder of segments, or one of them.")  # fmt: skip
_anchors = click.option(
    "--anchors", "anchors_at", type=PATH, multiple=True, metavar="PATH",
    help="Anchors that you fetched from where they are published: a file of anchor texts, a folder of such files with "
    "their time stamps, or a clone of a git repository. May be given more than once.",
)  # fmt: skip
_signers = click.option("--allowed-signers", type=IN_FILE, metavar="FILE",
                        help="The keys that sign commits with anchors, in the form of ssh-keygen.")  # fmt: skip
_certificates = click.option("--time-stamp-certificates", "certificates", type=IN_FILE, metavar="FILE",
                             help="The certificates (PEM) by which time stamps are verified.")  # fmt: skip
_branch = option("--branch", type=RECORD_TEXT, default="anchors", help="The branch of a clone that has the anchors.")


def with_anchors(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """The options for anchors and whom to trust for them."""
    return _anchors(_signers(_certificates(_branch(function))))


@options.verb("ksctl audit verify --store ks.sqlite", "ksctl audit verify --log audit --anchors anchors.txt",
              group=audit)  # fmt: skip
@_store
@_log
@with_anchors
@option("--bodies/--no-bodies", default=True, help="Whether to read what lines name by their digest.")
@options.output
def verify(
    store_at: str | None, log_at: Path | None, anchors_at: tuple[Path, ...], allowed_signers: Path | None,
    certificates: Path | None, branch: str, bodies: bool, output: str,
) -> int:  # fmt: skip
    """Verify the record of a store or of a log: every line, the tree, the bodies, and the anchors.

    With a store, also the record of its servers: logins, requests with an effect, and tokens.

    Prints a report, which goes on behind the first break and says how many entries no anchor covers. Exits 0 if it is
    verified, 1 if it is contradicted, and 4 if that cannot be told, such as with a segment missing. With --anchors, a
    record that no anchor confirms is not verified.
    """
    from killswitch.audit.log_files import verify_both, verify_log
    from killswitch.operations.pages.audit import record_page
    from killswitch.record.verification import EXIT_CODES, worst

    anchors = fetched(anchors_at, allowed_signers, certificates, branch)
    if log_at is not None:
        report, server = verify_log(log_at, anchors, needs_anchor=bool(anchors_at)), None
    else:
        with _opened(store_at) as store:
            path = Path(store.place)
            report, server = verify_both(path, store, anchors, needs_anchor=bool(anchors_at), with_bodies=bodies)
    verdict = worst(each.verdict for each in (report, server) if each is not None)
    shown = {"verdict": verdict, "report": report, "server": server}
    print_answer(output, lambda: encode_record(shown), lambda: record_page(report, server))
    return EXIT_CODES[verdict]


@options.verb("ksctl audit export --store ks.sqlite --to audit", group=audit)
@options.store
@click.option("--to", "target", type=PATH, required=True, metavar="PATH",
              help="The folder of the segments, which an export continues; for csv and parquet, the file.")  # fmt: skip
@option("--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), default="jsonl",
        help="jsonl: the lines byte for byte, which can be verified. The others are tables of them.")  # fmt: skip
@click.option("--bodies", is_flag=True, help="Also export what lines name by their digest, as whole decisions.")
def export(store_at: str, target: Path, form: str, bodies: bool) -> None:
    """Export the record, or continue an export: names and texts of persons stay in the store.

    A torn last line of a segment, as a crash leaves it, is cut and written again from the store.
    """
    from killswitch.audit.exporting import export_csv, export_parquet, export_segments
    from killswitch.cli.session import opened_store
    from killswitch.render.formats import count_of

    with opened_store(store_at, read_only=True) as store:
        if form == "jsonl":
            done = export_segments(store, target, with_bodies=bodies)
            if done.cut is not None:
                print_note(f"cut half a line of {done.cut[0]} bytes (SHA-256 {done.cut[1]}), and wrote it again")
            segments = count_of(done.segments, "segment")
            print_note(f"exported {count_of(done.lines, 'line')}; {target} ends at line {done.last:,} in {segments}")
        else:
            many = export_csv(store, target) if form == "csv" else export_parquet(store, target)
            print_note(f"exported {count_of(many, 'line')} to {target}")


@options.verb("ksctl audit tail --lines 20 --store ks.sqlite", group=audit)
@options.store
@option("--lines", "-n", "many", type=COUNT, default=10, help="How many of the last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until interrupted.")
def tail(store_at: str, many: int, follow: bool) -> None:
    """Print the last lines of the record as they are stored, one line of JSON each."""
    from killswitch.cli.session import opened_store

    with opened_store(store_at, read_only=True) as store:
        tip = store.record_tip()
        following = 1 if tip is None else max(1, tip.number - many + 1)
        while True:
            for line in store.record_lines(following):
                click.echo(line.text.decode())
                following = line.number + 1
            if not follow:
                return
            time.sleep(POLL)


@options.verb("ksctl audit prove 3f9c --store ks.sqlite", group=audit)
@click.argument("wanted", metavar="NUMBER|DECISION")
@_store
@_log
@click.option("--size", type=click.IntRange(min=1),
              help="Number of the anchor that the proof is for. Default: all lines so far.")  # fmt: skip
@click.option("--out", type=OUT_FILE, help="Write to this file. Default: stdout.")
def prove(wanted: str, store_at: str | None, log_at: Path | None, size: int | None, out: Path | None) -> None:
    """Prove that a line is in the record: below 2 KB, checked without the record by `ksctl audit check`.

    NUMBER is that of the line, DECISION the beginning of a decision's id.
    """
    from killswitch.audit.proving import prove_from_log, prove_from_source
    from killswitch.record.tree import encode_proof

    if log_at is not None:
        proof = prove_from_log(log_at, wanted, size)
    else:
        with _opened(store_at) as store:
            proof = prove_from_source(store, wanted, size)
    if out is None:
        click.echo(encode_proof(proof))
        return
    with options.file_errors(f"cannot write {out}"):
        out.write_bytes(encode_proof(proof) + b"\n")


@options.verb("ksctl audit check proof.json --anchors anchors.txt", group=audit)
@click.argument("proof_at", metavar="PROOF", type=IN_FILE)
@with_anchors
def check(
    proof_at: Path, anchors_at: tuple[Path, ...], allowed_signers: Path | None, certificates: Path | None, branch: str
) -> int:
    """Check a proof against anchors that you fetched; no record is needed.

    Prints the line that it proves. Exits 1 with the reason if it does not prove it.
    """
    from killswitch.audit.proving import check_proof
    from killswitch.record.tree import decode_proof

    with options.file_errors(f"cannot read {proof_at}"):
        text = proof_at.read_bytes()
    try:
        proof = decode_proof(text)
    except ValueError as error:
        raise click.ClickException(f"{proof_at}: {error}") from error
    answer = check_proof(proof, fetched(anchors_at, allowed_signers, certificates, branch))
    if answer.why is not None:
        print_text(f"line {proof.number} is not proved: {answer.why}", err=True)
        return EXIT_FAILED
    assert answer.anchor is not None
    print_note(f"line {proof.number} is in the record of the anchor of number {proof.size} ({answer.anchor.place})")
    click.echo(proof.line)
    return 0


@options.verb("ksctl audit erase 'ingrid@desk.example' --store ks.sqlite", group=audit)
@click.argument("value", metavar="TEXT", type=RECORD_TEXT)
@options.store
def erase(value: str, store_at: str) -> int:
    """Erase a name, an address or a text of a person that the record has by its salted digest.

    Value and salts are deleted, so that nobody can see what the digests are of; the chain stays whole. What other
    tables have of it, such as the author of a command, is not changed. Exits 1 if it is nowhere.
    """
    from killswitch.cli.session import opened_store
    from killswitch.render.formats import count_of

    with opened_store(store_at, read_only=False) as store:
        many = store.erase_values(value.encode())
    print_note(f"erased in {count_of(many, 'entry')}")
    return 0 if many else EXIT_FAILED


@options.verb("ksctl audit anchor --to anchors.toml --store ks.sqlite", group=audit)
@click.option("--to", "settings_at", type=IN_FILE, required=True, metavar="FILE",
              help="The file that declares where anchors are published, as for `ksctl run --anchors`.")  # fmt: skip
@options.store
def anchor(settings_at: Path, store_at: str) -> int:
    """Publish an anchor of the record now. Exits 1 if a place did not get it; `ksctl run --anchors` does it by itself.

    The anchor is an entry of the record too.
    """
    from killswitch.audit.anchor_settings import read_anchor_settings
    from killswitch.audit.anchor_worker import AnchorWorker, publishers, tip_of_servers
    from killswitch.cli.session import opened_store
    from killswitch.runner.clock import SystemClock

    settings, clock = read_anchor_settings(settings_at), SystemClock()
    with opened_store(store_at, read_only=False) as store:
        worker = AnchorWorker(
            store, publishers(settings), settings.seconds, clock.now, clock.monotonic, lambda: tip_of_servers(store_at)
        )
        worker.publish()
        tip = store.record_tip()
    for problem in worker.alerts.found:
        print_note(problem.text)
    if not worker.alerts.found:
        print_note(
            "there is no record yet" if tip is None else f"published an anchor; the record has {tip.number} lines"
        )
    return EXIT_FAILED if worker.alerts.found else 0


@options.verb(
    "ksctl audit statement --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z --store ks.sqlite",
    "ksctl audit statement --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z --log audit",
    group=audit,
)
@click.option("--from", "begin", type=MOMENT, required=True, help="Beginning of the period (RFC 3339).")
@click.option("--to", "end", type=MOMENT, required=True, help="End of the period (RFC 3339).")
@_store
@_log
@click.option("--out", type=OUT_FILE, help="Write to this file. Default: stdout.")
def statement(begin: datetime, end: datetime, store_at: str | None, log_at: Path | None, out: Path | None) -> None:
    """State what the record has of a period, in figures that a stranger can compute again.

    With --log, of an exported log alone: also what has left the store. It is widened to the anchors around the period.
    Give it away with the segments of `ksctl audit export` and the file of `ksctl audit checker`; the anchors they fetch
    themselves.
    """
    from killswitch.audit.log_files import LinesOfLog
    from killswitch.audit.statement import encode_statement, make_statement

    if end <= begin:
        raise click.UsageError("--to is not after --from: the period is empty")
    if log_at is not None:
        text = encode_statement(make_statement(LinesOfLog(log_at), begin, end))
    else:
        with _opened(store_at) as store:
            text = encode_statement(make_statement(store, begin, end))
    if out is None:
        click.echo(text, nl=False)
        return
    with options.file_errors(f"cannot write {out}"):
        out.write_bytes(text)


@options.verb("ksctl audit checker", group=audit)
def checker() -> None:
    """Print the file that checks a statement: it needs Python alone, and nothing of this program.

    `python checker.py statement.json --log FOLDER --anchors FILE` exits 0 if the statement is verified, 1 if it is
    contradicted, and 4 if that cannot be told.
    """
    from killswitch.audit.statement import checker_text

    click.echo(checker_text(), nl=False)


def fetched(
    places: tuple[Path, ...], signers: Path | None, certificates: Path | None, branch: str
) -> tuple[FetchedAnchor, ...]:
    """The anchors at the places that `with_anchors` has read. Raises AuditError."""
    from killswitch.audit.proving import AnchorTrust, fetched_anchors

    trust = AnchorTrust(signers, certificates, branch)
    return tuple(each for place in places for each in fetched_anchors(place, trust))


def _opened(store_at: str | None) -> AbstractContextManager[SqlStore]:
    from killswitch.cli.session import opened_store

    if store_at is None:
        raise click.UsageError("Name a record: --store FILE, or --log PATH.")
    return opened_store(store_at, read_only=True)
