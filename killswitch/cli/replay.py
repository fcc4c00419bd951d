"""`ksctl replay`: the policies over a recording."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--policies", "policies_at", type=click.Path(exists=True, path_type=Path), required=True,
              help="Folder (or file) of policies.")  # fmt: skip
@click.option("--snapshots", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="Recording: .jsonl, .jsonl.gz or .jsonl.zst.")  # fmt: skip
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", is_flag=True, help="Keep notices (unknown data, unexplained money) to yourself.")
def replay(policies_at: Path, snapshots: Path, output: str, quiet: bool) -> None:
    """Run the policies over a recording and print every decision.

    With --output json, stdout is one decision a line (killswitch.decision/v1); notices go to stderr.
    """
    from killswitch.cli.policies import compiled
    from killswitch.lab.recording import RecordingError, read
    from killswitch.lab.replay import replay as run
    from killswitch.model.decision import Decision, encode_decision, encode_notice

    policies, _ = compiled(policies_at)
    count = 0
    try:
        for news in run(policies, read(snapshots)):
            if isinstance(news, Decision):
                count += 1
                click.echo(encode_decision(news) if output == "json" else describe(news))
            elif not quiet:
                said = encode_notice(news).decode() if output == "json" else _line(news.as_of, news.scope, news.text)
                click.echo(said, err=True)
    except RecordingError as error:
        raise click.ClickException(str(error)) from error
    if output == "text":
        click.echo(f"{count} decision{'' if count == 1 else 's'}")


def _line(at: object, scope: str, text: str) -> str:
    from datetime import datetime

    from killswitch.model.instant import rfc3339

    assert isinstance(at, datetime)
    return f"{rfc3339(at)}  {scope}  {text}"


def describe(decision: object) -> str:
    """One decision in a few aligned lines."""
    from killswitch.model.decision import Decision

    assert isinstance(decision, Decision)
    if decision.kind == "reset":
        return _line(decision.as_of, decision.scope, f"{decision.policy}: reset from level {decision.previous_level}")
    what = f"{decision.policy}: {decision.stage or 'close by hand'}, level {decision.previous_level} → {decision.level}"
    lines = [_line(decision.as_of, decision.scope, what)]
    for trigger in decision.triggers:
        low, high = trigger.value or (None, None)
        value = f"{low}" if low == high else f"[{low}, {high}]"
        lines.append(f"    {trigger.name}: {value} against {trigger.threshold}")
    if decision.attribution is not None:
        shares = f"long {decision.attribution.long_share}, short {decision.attribution.short_share}"
        lines.append(f"    loss: {decision.attribution.source} ({shares}, {decision.attribution.window})")
    lines += [
        f"    {intent.side} {intent.contracts} {intent.symbol} ({intent.position_side}), leaves {intent.target}"
        for intent in decision.intents
    ]
    return "\n".join(lines)
