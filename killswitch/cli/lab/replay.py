"""`ksctl replay`: the policies over a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import IN_FILE, output, policies, variant, verb
from killswitch.cli.terminal import print_note, print_section, print_text
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.model.snapshot import Snapshot


@verb("ksctl replay --policies policies --snapshots run.jsonl.gz")
@policies(required=True)
@click.option("--snapshots", type=IN_FILE, required=True, help="Recording: .jsonl, .jsonl.gz or .jsonl.zst.")
@variant
@output
@click.option("--quiet", is_flag=True, help="Suppress notices (unknown data, unexplained money).")
def replay(policies_at: tuple[Path, ...], snapshots: Path, variant: str | None, output: str, quiet: bool) -> None:
    """Run the policies over a recording and print every decision.

    With --output json, stdout has one decision per line (killswitch.decision/v1); notices go to stderr.
    """
    from killswitch.cli.session import load_policies
    from killswitch.incident.notify.message import trigger_texts
    from killswitch.lab.recording import read
    from killswitch.lab.recording import replay as run
    from killswitch.model.decision import Decision, encode_decision, encode_notice
    from killswitch.operations.pages.wording import decision_section, notice_line
    from killswitch.render.formats import instant

    loaded = load_policies(policies_at, variant)
    thresholds = trigger_texts(loaded.policies)
    count = 0
    missing: list[int] = []
    for item in run(loaded.policies, _counting_missing(read(snapshots), missing)):
        if isinstance(item, Decision):
            count += 1
            if output == "json":
                click.echo(encode_decision(item))
            else:
                print_section(decision_section(item, thresholds))
        elif not quiet:
            if output == "json":
                click.echo(encode_notice(item).decode(), err=True)
            else:
                print_note(f"{instant(item.as_of)}  {notice_line(item)}")
    if output == "text":
        print_text(count_of(count, "decision"))
    if missing:
        print_note(f"warning: the recording is incomplete: {count_of(sum(missing), 'snapshot')} missing")


def _counting_missing(snapshots: Iterable[Snapshot], missing: list[int]) -> Iterator[Snapshot]:
    """Pass the snapshots on, and append the number of missing snapshots before each one to `missing`."""
    for snapshot in snapshots:
        if snapshot.missing:
            missing.append(snapshot.missing)
        yield snapshot
