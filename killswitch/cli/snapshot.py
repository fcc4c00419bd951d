"""`ksctl snapshot`: one reading of one account, in the public format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.venues import chosen_accounts

if TYPE_CHECKING:
    from killswitch.model.snapshot import Snapshot
    from killswitch.policy.account_document import AccountDocument


@click.command()
@click.argument("account")
@options.policies(required=True)
@options.read_timeout("30s")
@click.option("--output", type=click.Choice(["json", "text"]), default="json", show_default=True,
              help="A line of a recording, or tables.")  # fmt: skip
def snapshot(account: str, policies_at: tuple[Path, ...], read_timeout: float, output: str) -> int:
    """Read one account once, and print it as a line of a recording. Changes nothing, anywhere.

    What is printed is what `replay --snapshots` and `plan --snapshot` read. Exits 1 if the account could not be
    read well; it is printed all the same, and the reason goes to stderr.
    """
    from killswitch.cli.session import friendly, written
    from killswitch.cli.snapshot_text import snapshot_text
    from killswitch.model.snapshot import encode_snapshot

    (document,) = chosen_accounts(written(policies_at), (account,))
    with friendly():
        seen = _read(document, read_timeout)
    click.echo(encode_snapshot(seen).decode() if output == "json" else snapshot_text(seen))
    (found,) = seen.accounts
    if found.quality == "ok":
        return 0
    click.echo(f"Error: account {found.account} is {found.quality}: {found.reason or 'no reason given'}", err=True)
    return EXIT_FAILED


def _read(document: AccountDocument, patience: float) -> Snapshot:
    from datetime import UTC, datetime

    from killswitch.model.snapshot import Snapshot
    from killswitch.runner import event_loop
    from killswitch.runner.opening import open_accounts, read_once

    seen = event_loop.run(read_once(open_accounts([document], live=False), patience))
    return Snapshot(datetime.now(UTC), seen, "killswitch.snapshot/v1")
