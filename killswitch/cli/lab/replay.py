"""`ksctl replay`: the policies over a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import example, output, policies, variant

if TYPE_CHECKING:
    from killswitch.model.snapshot import Snapshot


@click.command(epilog=example("ksctl replay --policies policies --snapshots run.jsonl.gz"))
@policies(required=True)
@click.option("--snapshots", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="Recording: .jsonl, .jsonl.gz or .jsonl.zst.")  # fmt: skip
@variant
@output
@click.option("--quiet", is_flag=True, help="Keep notices (unknown data, unexplained money) to yourself.")
def replay(policies_at: tuple[Path, ...], snapshots: Path, variant: str | None, output: str, quiet: bool) -> None:
    """Run the policies over a recording and print every decision.

    With --output json, stdout is one decision a line (killswitch.decision/v1); notices go to stderr.
    """
    from killswitch.cli.session import written
    from killswitch.cli.wording import as_written, decision_lines, instant, notice_line
    from killswitch.lab.recording import RecordingError, read
    from killswitch.lab.recording import replay as run
    from killswitch.model.decision import Decision, encode_decision, encode_notice

    found = written(policies_at, variant)
    thresholds = as_written(found.policies)
    count = 0
    missing: list[int] = []
    try:
        for news in run(found.policies, _counted(read(snapshots), missing)):
            if isinstance(news, Decision):
                count += 1
                lines = encode_decision(news) if output == "json" else "\n".join(decision_lines(news, thresholds))
                click.echo(lines)
            elif not quiet:
                said = f"{instant(news.as_of)}  {notice_line(news)}"
                click.echo(encode_notice(news) if output == "json" else said, err=True)
    except RecordingError as error:
        raise click.ClickException(str(error)) from error
    if output == "text":
        click.echo(f"{count} decision{'' if count == 1 else 's'}")
    if missing:
        click.echo(f"warning: the recording is not whole: snapshots are missing, {sum(missing)} in all", err=True)


def _counted(snapshots: Iterable[Snapshot], missing: list[int]) -> Iterator[Snapshot]:
    """The snapshots as they are; how many are missing before each of them goes into `missing`."""
    for snapshot in snapshots:
        if snapshot.missing:
            missing.append(snapshot.missing)
        yield snapshot
