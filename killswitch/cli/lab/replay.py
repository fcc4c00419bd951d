"""`ksctl replay`: the policies over a recording, or one stored decision evaluated again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import IN_FILE, output, policies, variant, verb
from killswitch.cli.terminal import print_note, print_section, print_text
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
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
        policies = _deciding_set(store, policies_at, stored.decision)
    if recording is None or not recording.exists():
        where = "the last run on the store has written none" if recording is None else f"{recording} is not there"
        raise click.ClickException(
            f"a decision is evaluated again from a recording, and {where}: name it with --snapshots"
        )
    armed = None if view is None else [each.account for each in view.accounts if each.armed]
    found = reevaluate(policies, stored, read(recording), armed)
    print_answer(
        output, lambda: encode_record(found), lambda: reevaluation_page(found, stored.decision, str(recording))
    )
    if not found.is_identical:
        raise click.exceptions.Exit(1)


def _deciding_set(store: SqlStore, policies_at: tuple[Path, ...], decision: Decision) -> PolicySet:
    """The set that made the decision: of the store, or --policies. ClickException if neither has its digest."""
    from killswitch.accounts.next_set import set_in_force
    from killswitch.accounts.opening import PolicyProblemsError, compiled
    from killswitch.cli.session import load_policies
    from killswitch.policy.kinds import TESTS
    from killswitch.policy.loader import load_texts

    if policies_at:
        policies = load_policies(policies_at).policies
        if policies.digest != decision.policy_set:
            raise click.ClickException(
                f"the decision was made by the set {decision.policy_set[:19]}, and --policies is {policies.digest[:19]}"
            )
        return policies
    kept = set_in_force(store, decision.policy_set)
    if kept is None:
        raise click.ClickException(
            f"the store keeps no files of the set {decision.policy_set[:19]} that made the decision: name its files "
            "with --policies"
        )
    try:
        policies = compiled(load_texts(kept.files, without=TESTS), kept.origin.commit).policies
    except PolicyProblemsError as error:
        raise click.ClickException(f"this program cannot compile the set that made the decision: {error}") from error
    if policies.digest != decision.policy_set:
        raise click.ClickException(
            f"this program compiles the files of the set {decision.policy_set[:19]} to {policies.digest[:19]}: use the "
            f"program that ran it ({kept.program})"
        )
    return policies
