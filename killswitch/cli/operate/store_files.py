"""`ksctl store`: back a store up, restore it, verify it, and remove what is older than declared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.operate.audit import fetched, with_anchors
from killswitch.cli.options import IN_FILE, OUT_FILE, RECORD_TEXT
from killswitch.cli.terminal import encode_record, print_answer, print_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from killswitch.audit.restoring import StoreCheck
    from killswitch.audit.retaining import Removal
    from killswitch.render.document import Page


@click.group(epilog=options.example_text("ksctl store backup --store ks.sqlite --to ks.backup.sqlite"))
def store() -> None:
    """Back a store up, restore it, verify it, and remove what is older than declared."""


@options.verb("ksctl store backup --store ks.sqlite --to ks.backup.sqlite", group=store)
@options.store
@click.option("--to", "target", type=OUT_FILE, required=True, metavar="FILE", help="The new file of the backup.")
def backup(store_at: str, target: Path) -> int:
    """Copy a store to a new file, also while a runner writes to it, and verify the copy.

    A copy by `cp` is none: SQLite keeps the newest writes in a second file. Exits 1 if the copy is not whole.
    """
    from killswitch.audit.restoring import back_up

    checked = back_up(_path(store_at), target)
    print_note(f"{target} ends at line {checked.record.last or 0} of the record")
    return _code(checked)


@options.verb("ksctl store verify --store ks.sqlite", group=store)
@options.store
@with_anchors
@options.output
def verify(
    store_at: str, anchors_at: tuple[Path, ...], allowed_signers: Path | None, certificates: Path | None, branch: str,
    output: str,
) -> int:  # fmt: skip
    """Verify the file of a store, and its record. Exits 1 if one of both is not whole.

    With --anchors also the length: a restored store is shorter than its newest anchor, and one that no anchor confirms
    is not whole.
    """
    from killswitch.audit.restoring import check_store

    checked = check_store(_path(store_at), fetched(anchors_at, allowed_signers, certificates, branch))
    print_answer(output, lambda: encode_record(checked), lambda: _page(checked))
    return _code(checked)


@options.verb("ksctl store restore ks.backup.sqlite --store ks.sqlite --reason 'the disk failed'", group=store)
@click.argument("backup_at", metavar="BACKUP", type=IN_FILE)
@options.store
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@click.option("--author", type=RECORD_TEXT, help="Name of the operator. Default: the user of this session.")
@with_anchors
def restore(
    backup_at: Path, store_at: str, reason: str, author: str | None, anchors_at: tuple[Path, ...],
    allowed_signers: Path | None, certificates: Path | None, branch: str,
) -> None:  # fmt: skip
    """Restore a backup to a new store, and begin an epoch of the record there.

    The venue is ahead of it: unfinished closes verify their positions before they send, and use no client order id that
    the lost time may have used. docs/backup.md has the steps before and after.
    """
    from getpass import getuser

    from killswitch.audit.restoring import restore as restore_store
    from killswitch.runner.clock import SystemClock

    anchors = fetched(anchors_at, allowed_signers, certificates, branch)
    done = restore_store(backup_at, _path(store_at), author or getuser(), reason, SystemClock().now(), anchors)
    lost = "unknown, name --anchors" if done.lost is None else f"{done.lost:,}"
    print_note(f"restored {store_at}: epoch {done.chain} begins at line {done.line}; entries lost: {lost}")
    print_note(f"{done.unfinished} unfinished positions are verified at the venue before their closes go on")


@options.verb("ksctl store retain --declared retention.toml --dry-run --store ks.sqlite", group=store)
@click.option("--declared", "declared_at", type=IN_FILE, required=True, metavar="FILE",
              help="The file that declares how long what is kept (docs/audit.md has an example).")  # fmt: skip
@options.store
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and what is kept although it is older.")
@click.option("--author", type=RECORD_TEXT, help="Name of the operator. Default: the user of this session.")
@options.output
def retain(declared_at: Path, store_at: str, dry_run: bool, author: str | None, output: str) -> None:
    """Remove what is older than declared, also while a runner writes to the store.

    Nothing is removed that a restart, an open incident, a latch or a lock in force needs, nor a line of the record that
    is not in a sealed segment of the archive. Each removal is announced in the record with its digest, and
    `ksctl audit verify` goes on from there.
    """
    from getpass import getuser

    from killswitch.audit.retaining import Retainer
    from killswitch.audit.retention_settings import read_retention_settings
    from killswitch.runner.clock import SystemClock

    settings, now = read_retention_settings(declared_at), SystemClock().now()
    removed = Retainer(_path(store_at), settings, now, author or getuser(), dry_run=dry_run).retain()
    print_answer(output, lambda: encode_record(removed), lambda: _retention_page(removed, dry_run=dry_run))


def _path(store_at: str) -> Path:
    return Path(store_at.removeprefix("sqlite:///"))


def _page(checked: StoreCheck) -> Page:
    from msgspec.structs import replace

    from killswitch.operations.pages.audit import record_page
    from killswitch.render.document import Items, Section

    page = record_page(checked.record)
    if not checked.damage:
        return page
    return replace(page, sections=(Section("Damage of the file", (Items(checked.damage),)), *page.sections))


def _retention_page(removed: Sequence[Removal], *, dry_run: bool) -> Page:
    from killswitch.render.document import Page, Section, Table

    rows = [
        (
            each.what,
            ", ".join(f"{many:,} {name}" for name, many in each.counts.items() if many) or "nothing",
            "" if each.through is None else f"line {each.through:,}",
            each.kept_because or "",
        )
        for each in removed
    ]
    title = "Would be removed" if dry_run else "Removed"
    table = Table(("class", title.lower(), "up to", "kept although older, because"), tuple(rows))
    return Page("Retention", sections=(Section(title, (table,)),))


def _code(checked: StoreCheck) -> int:
    if checked.is_whole:
        return 0
    for each in checked.damage:
        print_note(each)
    return EXIT_FAILED
