"""`ksctl replay`: the policies over a recording, or one stored decision evaluated again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import IN_FILE, output, policies, variant, verb
from killswitch.cli.terminal import print_note, print_section, print_text
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.lab.reevaluation import ReplayedSet
    from killswitch.model.applied_set import SetChange
    from killswitch.model.decision import Decision
    from killswitch.model.snapshot import Snapshot
    from killswitch.store.sql import SqlStore


@verb(
    "ksctl replay --policies policies --snapshots run.jsonl.gz",
    "ksctl replay --decision 3f9a --store ks.sqlite --snapshots run.jsonl.gz",
)
@policies(required=False)
@click.option("--snapshots", type=IN_FILE, help="Recording: .jsonl, .jsonl.gz or .jsonl.zst.")
@click.option("--decision", metavar="ID", help="Evaluate this decision of --store again, and compare.")
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="With --decision: the store of the runner.")  # fmt: skip
@variant
@output
@click.option("--quiet", is_flag=True, help="Suppress notices (unknown data, unexplained money).")
def replay(
    policies_at: tuple[Path, ...], snapshots: Path | None, decision: str | None, store_at: str | None,
    variant: str | None, output: str, quiet: bool,
) -> None:  # fmt: skip
    """Run the policies over a recording and print every decision.

    With --output json, stdout has one decision per line (killswitch.decision/v1); notices go to stderr.

    With --decision, a decision of --store is evaluated again from the recording of its run, up to its tick: with the
    set that decided, which the store keeps, or with --policies if that is the same set. It says `bit-identical`, or
    every field that differs, and then exits 1. Without --snapshots it reads the recording that the last run on the
    store has written. A stage that fetched prices a second time may differ, because a recording has no such prices.
    """
    if decision is not None:
        if store_at is None:
            raise click.UsageError("--decision names a decision of a store: add --store FILE")
        _reevaluate(policies_at, snapshots, decision, store_at, output)
        return
    if snapshots is None or not policies_at:
        missing = "--snapshots" if snapshots is None else "--policies"
        raise click.UsageError(f"Missing option '{missing}', or --decision to evaluate one decision again.")
    _replay(policies_at, snapshots, variant, output, quiet=quiet)


def _replay(
    policies_at: tuple[Path, ...], snapshots: Path, variant: str | None, output: str, *, quiet: bool
) -> None:  # fmt: skip
    """Print every decision of the policies over the recording."""
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


def _reevaluate(
    policies_at: tuple[Path, ...], snapshots: Path | None, decision: str, store_at: str, output: str
) -> None:
    """Print whether the decision is bit-identical when it is evaluated again; exit 1 if it is not."""
    from killswitch.cli.session import opened_store
    from killswitch.cli.terminal import encode_record, print_answer
    from killswitch.lab.recording import read
    from killswitch.lab.reevaluation import reevaluate
    from killswitch.operations.pages.decision import reevaluation_page
    from killswitch.runner.status_blob import last_view, recording_of

    with opened_store(store_at, read_only=True) as store:
        try:
            stored = store.decision(decision)
        except LookupError as error:
            raise click.ClickException(str(error.args[0])) from error
        if stored is None:
            raise click.ClickException(f"the store has no decision whose id begins with {decision}")
        recording, view = snapshots or recording_of(store), last_view(store)
        if recording is None or not recording.exists():
            where = "the last run on the store wrote none" if recording is None else f"{recording} is not there"
            raise click.ClickException(
                f"a decision is evaluated again from a recording, and {where}: name it with --snapshots"
            )
        armed = None if view is None else [each.account for each in view.accounts if each.armed]
        found = reevaluate(_sets_until(store, policies_at, stored.decision), stored, read(recording), armed)
    page = partial(reevaluation_page, found, stored.decision, str(recording))
    print_answer(output, lambda: encode_record(found), page)
    if not found.is_identical:
        raise click.exceptions.Exit(1)


MOST_CHANGES = 100_000
"""Number of the newest changes of the set in force that are searched."""


def _sets_until(store: SqlStore, policies_at: tuple[Path, ...], decision: Decision) -> list[ReplayedSet]:
    """The sets in force up to the decision, oldest first, by the store; or --policies alone.

    ClickException if the last one is not the set that decided.
    """
    from killswitch.cli.session import load_policies
    from killswitch.lab.reevaluation import ReplayedSet

    if policies_at:
        policies = load_policies(policies_at).policies
        if policies.digest != decision.policy_set:
            raise click.ClickException(
                f"the decision was made by the set {decision.policy_set[:19]}, and --policies is {policies.digest[:19]}"
            )
        return [ReplayedSet(None, lambda: policies)]
    changes = [each for each in reversed(store.set_changes(MOST_CHANGES)) if each.at <= decision.as_of]
    if not changes or changes[-1].digest != decision.policy_set:
        raise click.ClickException(
            f"the store keeps no files of the set {decision.policy_set[:19]} that made the decision: name its files "
            "with --policies"
        )
    return [ReplayedSet(each.at, partial(_compiled, store, each)) for each in changes]


def _compiled(store: SqlStore, change: SetChange) -> PolicySet:
    """The set of a change, compiled again. ClickException if this program makes another one of its files."""
    from killswitch.accounts.opening import PolicyProblemsError, compiled
    from killswitch.policy.kinds import TESTS
    from killswitch.policy.loader import load_texts

    files = store.policy_files(change.digest, change.content)
    try:
        policies = compiled(load_texts(files or (), without=TESTS), change.origin.commit).policies
    except PolicyProblemsError as error:
        raise click.ClickException(f"this program cannot compile the set {change.digest[:19]}: {error}") from error
    if policies.digest != change.digest:
        raise click.ClickException(
            f"this program compiles the files of the set {change.digest[:19]} to {policies.digest[:19]}: use the "
            f"program that ran it ({change.program})"
        )
    return policies
