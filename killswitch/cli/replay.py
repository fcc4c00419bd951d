"""`ksctl replay`: the policies over a recording."""

from __future__ import annotations

from pathlib import Path

import click

from killswitch.cli.options import output, policies, variant


@click.command()
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
    from killswitch.lab.replay import replay as run
    from killswitch.model.decision import Decision, encode_decision, encode_notice

    found = written(policies_at, variant)
    thresholds = as_written(found.policies)
    count = 0
    try:
        for news in run(found.policies, read(snapshots)):
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
