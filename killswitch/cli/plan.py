"""`ksctl plan`: what the policies would do to the live book now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_PENDING

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.model.store import Store
    from killswitch.policy.loader import Loaded
    from killswitch.runner.preview import Preview


@click.command()
@click.option("--policies", "policies_at", type=click.Path(exists=True, path_type=Path), required=True,
              help="Folder or file of policies (and accounts).")  # fmt: skip
@click.option("--store", "store_at", type=click.Path(dir_okay=False, path_type=Path),
              help="The runner's store: history, stages and cooldowns are taken from it, read-only.")  # fmt: skip
@click.option("--snapshot", "recording", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Plan on the last line of this recording, with the lines before it as history.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="Seconds to wait for a venue's answer.")  # fmt: skip
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there is anything to do.")
def plan(
    policies_at: Path,
    store_at: Path | None,
    recording: Path | None,
    timeout: float,
    output: str,
    detailed_exitcode: bool,
) -> int:
    """Show what the policies would do right now. Changes nothing, anywhere."""
    from killswitch.cli.plan_text import plan_text
    from killswitch.cli.policies import compiled
    from killswitch.runner.preview import encode_preview

    if recording is not None and store_at is not None:
        raise click.UsageError("--snapshot brings its own history: leave --store out")
    policies, loaded = compiled(policies_at)
    if recording is not None:
        shown = _of_recording(policies, recording)
    else:
        shown = _of_venues(policies, loaded, store_at, timeout)
    click.echo(encode_preview(shown) if output == "json" else plan_text(shown))
    return EXIT_PENDING if detailed_exitcode and shown.pending else 0


def _of_recording(policies: PolicySet, recording: Path) -> Preview:
    from killswitch.lab.recording import RecordingError, read
    from killswitch.runner.preview import from_recording, preview

    try:
        interpreter, last, memory = from_recording(policies, read(recording))
    except RecordingError as error:
        raise click.ClickException(str(error)) from error
    if last is None:
        raise click.ClickException(f"{recording}: holds no snapshot")
    return preview(policies, last, interpreter, memory, frozenset())


def _of_venues(policies: PolicySet, loaded: Loaded, store_at: Path | None, timeout: float) -> Preview:
    import asyncio
    from datetime import UTC, datetime

    from killswitch.model.snapshot import Snapshot
    from killswitch.policy.documents import AccountDocument
    from killswitch.runner.adapters import AdapterError
    from killswitch.runner.credentials import CredentialError
    from killswitch.runner.opening import NoAccountsError, open_accounts, read_once
    from killswitch.runner.preview import from_store, preview

    documents = [document.model for document in loaded.documents if isinstance(document.model, AccountDocument)]
    try:
        accounts = open_accounts(documents, live=True)
    except (NoAccountsError, AdapterError, CredentialError) as error:
        raise click.ClickException(str(error)) from error
    store = _open(store_at)
    try:
        seen = asyncio.run(read_once(accounts, timeout))
        now = datetime.now(UTC)
        events = tuple(store.pending_events()) if store else ()
        snapshot = Snapshot(as_of=now, accounts=seen, format="killswitch.snapshot/v1", events=events)
        interpreter, memory = from_store(policies, store)
        armed = frozenset(name for name, account in accounts.items() if account.armed)
        return preview(policies, snapshot, interpreter, memory, armed)
    finally:
        if store is not None:
            store.close()


def _open(store_at: Path | None) -> Store | None:
    from killswitch.store.errors import StoreError
    from killswitch.store.sqlite import open_store

    if store_at is None:
        return None
    try:
        return open_store(str(store_at), read_only=True)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
