"""`ksctl blame`: who set the threshold that is in force, when, and who approved it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from killswitch.cli import options
from killswitch.cli.terminal import encode_record, print_answer

if TYPE_CHECKING:
    from killswitch.model.store import Store
    from killswitch.operations.blame import SetVersion

MOST_SETS: Final = 100_000
"""Number of the newest sets of a store that are searched."""


@options.verb(
    "ksctl blame futures-drawdown/fall --store ks.sqlite",
    "ksctl blame futures-drawdown/fall --policies my-desk/policies",
)
@click.argument("trigger", metavar="POLICY/TRIGGER")
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner: the sets that were in force, with signers and approvers.")  # fmt: skip
@options.policies(required=False)
@options.page_output
def blame(trigger: str, store_at: str | None, policies_at: tuple[Path, ...], output: str) -> None:
    """Name the change that gave a trigger its present threshold: commit, date, who signed it, and who approved it.

    With --store, among the sets that were in force on it; with --policies, among the commits of the git repository that
    holds them. What the documents say is compared, not their lines: a file that was moved or formatted, or a policy
    that was renamed by `formerly`, changes nothing. A signature is verified by a source of policies only, so that its
    signers are in the store; of a commit alone the authors are as it states them.
    """
    from killswitch.cli.session import opened_store
    from killswitch.operations.blame import UnknownTriggerError, blame_page
    from killswitch.operations.blame import blame as find
    from killswitch.operations.impact.revision import GitRevisionError

    policy, slash, name = trigger.partition("/")
    if not (policy and slash and name):
        raise click.UsageError(f"write POLICY/TRIGGER, such as futures-drawdown/fall, not {trigger}")
    try:
        if policies_at:
            found = find(policy, name, _committed(policies_at))
        elif store_at is not None:
            with opened_store(store_at, read_only=True) as store:
                found = find(policy, name, _in_force(store))
        else:
            raise click.UsageError("name the store of the runner with --store, or policies in git with --policies")
    except (UnknownTriggerError, GitRevisionError) as error:
        raise click.ClickException(str(error)) from error
    print_answer(output, lambda: encode_record(found), lambda: blame_page(found))


def _in_force(store: Store) -> Iterator[SetVersion]:
    """The sets that were in force on a store, the newest first."""
    from killswitch.operations.blame import SetVersion

    changes = store.set_changes(MOST_SETS)
    if not changes:
        raise click.ClickException("the store has no policy set on record: name policies in git with --policies")
    for change in changes:
        files = store.policy_files(change.digest, change.content)
        if files is not None:
            yield SetVersion(change.at, change.origin, tuple(files))


def _committed(policies_at: Sequence[Path]) -> Iterator[SetVersion]:
    """The files as they are, if they are not committed, then each commit that changed them, the newest first."""
    from killswitch.accounts.opening import files_at
    from killswitch.model.applied_set import PolicyOrigin
    from killswitch.model.instant import from_micros
    from killswitch.operations.blame import SetVersion
    from killswitch.operations.impact.revision import PolicyRepository
    from killswitch.policy.kinds import TESTS
    from killswitch.policy.loader import load

    repository = PolicyRepository(policies_at[0])
    source = str(repository.root)
    head = repository.commit("HEAD")
    if not repository.is_committed(head, policies_at):
        yield SetVersion(
            None, PolicyOrigin(source=source), files_at(policies_at, load(policies_at, without=TESTS).texts)
        )
    for change in repository.changes("HEAD", policies_at):
        claimed = tuple(dict.fromkeys((change.author, change.committer)))
        origin = PolicyOrigin(source=source, commit=change.id, claimed=claimed)
        files = repository.files(change.id, policies_at).files
        yield SetVersion(from_micros(change.at * 1_000_000), origin, files, change.has_signature)
