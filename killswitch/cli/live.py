"""`ksctl status` and `ksctl history`: what stands, and what was decided, read from the store alone."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from killswitch.cli import options


@click.command()
@options.store
@click.option("--notices", "notice_count", type=click.IntRange(min=0), default=5, show_default=True,
              help="How many of the newest notices to show.")  # fmt: skip
@click.option("--watch", is_flag=True,
              help="Follow what is being closed until nothing is; exit 1 if a target was not reached.")  # fmt: skip
@options.output
def status(store_at: str, notice_count: int, watch: bool, output: str) -> int:
    """Show stages, locks and closings as they are. Changes nothing, and asks no venue.

    A stage's latch and a lock's life are two things, and both are shown. What a dead runner saw last is dated.

    --watch redraws every close each second on a terminal; elsewhere, and as JSON, it writes a line for each change.
    """
    if watch:
        return _watched(store_at, as_json=output == "json")
    from killswitch.cli.session import friendly, opened_store
    from killswitch.cli.status_text import status_text
    from killswitch.runner.standing import encode_standing, standing_of

    with friendly(), opened_store(store_at, read_only=True) as store:
        standing = standing_of(store, datetime.now(UTC), notice_count)
    click.echo(encode_standing(standing) if output == "json" else status_text(standing, store_at))
    return 0


def _watched(store_at: str, *, as_json: bool) -> int:
    import sys

    from killswitch.cli.closing_watch import follow
    from killswitch.cli.session import friendly, opened_store

    with friendly(), opened_store(store_at, read_only=True) as store:
        return follow(store, as_json=as_json, terminal=sys.stdout.isatty())


@click.command()
@options.store
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many of the newest.")
@options.output
def history(store_at: str, limit: int, output: str) -> None:
    """List past decisions and their results, newest first.

    With --output json one object a line: the decision record and its result.
    """
    import msgspec

    from killswitch.cli.session import friendly, opened_store
    from killswitch.cli.status_text import history_text
    from killswitch.incident.results import decided
    from killswitch.model.decision import decision_record

    with friendly(), opened_store(store_at, read_only=True) as store:
        found = decided(store, limit)
    if output == "text":
        click.echo(history_text(found))
        return
    encoder = msgspec.json.Encoder(decimal_format="string")
    for decision, result in found:
        click.echo(encoder.encode({"decision": decision_record(decision), "result": result}))
