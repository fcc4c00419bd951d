"""`ksctl flag`, `pause` and `resume`: flags that policies read as `flag.set(NAME)`, pauses of scopes and policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.parts import id_option, lasting, named_symbols, part_options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, WORD, option
from killswitch.model.flags import OF_POLICY

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.model.snapshot import Side


@click.group(
    epilog=options.example_text("ksctl flag set maintenance --for 2h --reason 'venue upgrade' --store ks.sqlite")
)
def flag() -> None:
    """Set or clear a flag that policies read."""


_scope = click.option("--scope", type=RECORD_TEXT, shell_complete=completion.scopes,
                      help="account/NAME, venue/NAME or portfolio.")  # fmt: skip
_reason = click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")


@options.verb("ksctl flag set maintenance --for 2h --reason 'venue upgrade' --store ks.sqlite", group=flag, name="set")
@click.argument("name", type=WORD)
@_reason
@option("--for", "length", type=options.DURATION, help="How long. Default: until it is cleared.")
@_scope
@operator_options
def set_flag(
    name: str, reason: str, length: float | None, scope: str | None, site: CommandSite, live: bool, author: str,
    wait: float, output: str,
) -> None:  # fmt: skip
    """Set the flag NAME, for the portfolio or for --scope.

    A flag has an effect only where a policy reads it: the answer names the policies that do. A flag of a scope is set
    for every narrower one. Setting it again replaces its end. It outlives restarts. A running runner processes the
    command at its next tick; without one, this command takes the lease and ticks once, which needs --live if a document
    says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("flag", scope, author, reason, flag=name, is_set=True)
    deliver(CommandRequest(command, wait, output == "json", lasts=length), site, live=live)


@options.verb("ksctl flag clear maintenance --reason 'upgrade is over' --store ks.sqlite", group=flag, name="clear")
@click.argument("name", type=WORD)
@_reason
@_scope
@operator_options
def clear_flag(
    name: str, reason: str, scope: str | None, site: CommandSite, live: bool, author: str, wait: float, output: str
) -> None:
    """Clear the flag NAME in every scope, or in --scope alone.

    A flag that is not set is a warning, which lists those that are. Where no runner is alive, see `ksctl flag set`.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("flag", scope, author, reason, flag=name, is_set=False)
    deliver(CommandRequest(command, wait, output == "json"), site, live=live)


def _is_policy(scope: str) -> bool:
    """Whether it names a policy. A usage error for a name without a kind."""
    if scope == OF_POLICY:
        raise click.UsageError(f"name the policy, as in {OF_POLICY}futures-drawdown")
    if scope.startswith(OF_POLICY):
        return True
    if "/" not in scope and scope != "portfolio":
        raise click.UsageError(f"write {OF_POLICY}{scope}, if it is the policy of that name, or account/{scope}")
    return False


_paused = click.argument("scope", metavar="policy/NAME|SCOPE", type=RECORD_TEXT, shell_complete=completion.policies)


@options.verb(
    "ksctl pause policy/futures-drawdown --for 2h --reason 'fires on a bad index' --store ks.sqlite",
    "ksctl pause account/main --side long --reason 'news at noon' --store ks.sqlite",
)
@_paused
@part_options("Pause")
@_reason
@click.option("--dry-run", is_flag=True, help="Of a scope: show the lock without any change.")
@operator_options
def pause(
    scope: str, side: Side | None, symbols: tuple[str, ...], length: float | None, end: str | None, reason: str,
    dry_run: bool, site: CommandSite, live: bool, author: str, wait: float, output: str,
) -> None:  # fmt: skip
    """Pause trading on a scope, or a policy.

    A paused SCOPE takes on no risk: bots may only reduce, at the gate and by the lock file. It is that of `ksctl lock`.
    Without --for or --until the pause lasts until `ksctl resume` names it. Nothing is closed or cancelled.

    A paused policy (policy/NAME) fires nothing new until its time is over; --for is required. It is evaluated as
    before, on every scope. What it has begun goes on: latches, locks, resets, and every close that is open or waits for
    an account. A stage that would fire meanwhile sends a page. Pausing it again replaces the end. At its end the policy
    fires what holds then.

    A pause outlives restarts, reloads and edits. It is shown by `status`, `plan`, metrics and alerts. A running runner
    processes the command at once; without one, this command takes the lease and ticks once, which needs --live if a
    document says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    lasts = lasting(length, end, site)
    if not _is_policy(scope):
        command = given(
            "pause", scope, author, reason, lock="reduce_only", side=side, symbols=named_symbols(scope, symbols)
        )
        request = CommandRequest(command, wait, output == "json", lasts=lasts)
        if dry_run:
            from killswitch.cli.operate.preview import preview_command

            preview_command(request, site, None)
        else:
            deliver(request, site, live=live)
        return
    if dry_run:
        raise click.UsageError("--dry-run is for a scope: a pause of a policy sends and locks nothing")
    if side is not None or symbols or end is not None or length is None:
        raise click.UsageError("a pause of a policy takes --for, and neither --until, --side nor --symbol")
    deliver(CommandRequest(given("pause", scope, author, reason), wait, output == "json", lasts=lasts), site, live=live)


@options.verb(
    "ksctl resume policy/futures-drawdown --reason 'the index is right again' --store ks.sqlite",
    "ksctl resume account/main --id 5f0c2a --reason 'news are out' --store ks.sqlite",
)
@_paused
@id_option
@_reason
@operator_options
def resume(
    scope: str, ids: tuple[str, ...], reason: str, site: CommandSite, live: bool, author: str, wait: float, output: str
) -> None:
    """End the pause of a scope, or of a policy before its time.

    Of several pauses of a scope those of --id end, so that one that somebody orders at the same moment stays; --id may
    also name a lock or a halt. The tick that processes the resume of a policy fires what holds then; a policy that is
    not paused is refused, with a list of those that are. Where no runner is alive, see `ksctl pause`.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    named = None if _is_policy(scope) else ids
    request = CommandRequest(given("resume", scope, author, reason), wait, output == "json", named=named)
    deliver(request, site, live=live)
