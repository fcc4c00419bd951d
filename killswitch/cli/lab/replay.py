"""`ksctl replay`: the policies over a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import output, policies, variant, verb
from killswitch.cli.terminal import mention, show
from killswitch.render.formats import counted

if TYPE_CHECKING:
    from killswitch.model.snapshot import Snapshot


@verb("ksctl replay --policies policies --snapshots run.jsonl.gz")
@policies(required=True)
@click.option("--snapshots", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="Recording: .jsonl, .jsonl.gz or .jsonl.zst.")  # fmt: skip
@variant
@output
@click.option("--quiet", is_flag=True, help="Suppress notices (unknown data, unexplained money).")
def replay(policies_at: tuple[Path, ...], snapshots: Path, variant: str | None, output: str, quiet: bool) -> None:
    """Run the policies over a recording and print every decision.

    With --output json, stdout has one decision per line (killswitch.decision/v1); notices go to stderr.
    """
    from killswitch.cli.session import written
    from killswitch.cli.wording import decision_lines, notice_line
    from killswitch.incident.notify.message import as_written
    from killswitch.lab.recording import read
    from killswitch.lab.recording import replay as run
    from killswitch.model.decision import Decision, encode_decision, encode_notice
    from killswitch.render.formats import instant

    found = written(policies_at, variant)
    thresholds = as_written(found.policies)
    count = 0
    missing: list[int] = []
    for news in run(found.policies, _missing_noted(read(snapshots), missing)):
        if isinstance(news, Decision):
            count += 1
            if output == "json":
                click.echo(encode_decision(news))
            else:
                show("\n".join(decision_lines(news, thresholds)))
        elif not quiet:
            if output == "json":
                click.echo(encode_notice(news).decode(), err=True)
            else:
                mention(f"{instant(news.as_of)}  {notice_line(news)}")
    if output == "text":
        show(counted(count, "decision"))
    if missing:
        mention(f"warning: the recording is incomplete: {counted(sum(missing), 'snapshot')} missing")


def _missing_noted(snapshots: Iterable[Snapshot], missing: list[int]) -> Iterator[Snapshot]:
    """Pass the snapshots on, and append the number of missing snapshots before each one to `missing`."""
    for snapshot in snapshots:
        if snapshot.missing:
            missing.append(snapshot.missing)
        yield snapshot
