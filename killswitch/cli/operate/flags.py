"""`ksctl flag`, `pause` and `resume`: flags that policies read as `flag.set(NAME)`, and pauses of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, WORD, option
from killswitch.model.flags import OF_POLICY

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite


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


def _policy(_context: click.Context, _param: click.Parameter, scope: str) -> str:
    """The scope of a policy; a usage error for anything else."""
    if scope.startswith(OF_POLICY) and scope != OF_POLICY:
        return scope
    if "/" in scope or scope == "portfolio":
        raise click.BadParameter(
            f"only a policy can be paused, as in policy/futures-drawdown; {scope} is a scope. A pause stops no close: "
            "`ksctl close --give-up DECISION` ends one"
        )
    raise click.BadParameter(f"write {OF_POLICY}{scope}, if it is the policy of that name")


_paused = click.argument("policy", metavar="policy/NAME", type=RECORD_TEXT, callback=_policy,
                         shell_complete=completion.policies)  # fmt: skip


@options.verb("ksctl pause policy/futures-drawdown --for 2h --reason 'fires on a bad index' --store ks.sqlite")
@_paused
@_reason
@click.option("--for", "length", type=options.DURATION, required=True, help="How long; 30 days at the most.")
@operator_options
def pause(
    policy: str, reason: str, length: float, site: CommandSite, live: bool, author: str, wait: float, output: str
) -> None:
    """Pause a policy: it fires nothing new until its time is over.

    It is evaluated as before, on every scope. What it has begun goes on: latches, locks, resets, and every close that
    is open or waits for an account. A stage that would fire meanwhile sends a page. Pausing it again replaces the end.
    A pause outlives restarts, reloads and edits of the policy; `ksctl resume` ends it early. At its end the policy
    fires what holds then. It is shown by `status`, `plan`, metrics and alerts, and is notified again every day.

    A running runner processes the command at its next tick; without one, this command takes the lease and ticks once,
    which needs --live if a document says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("pause", policy, author, reason)
    deliver(CommandRequest(command, wait, output == "json", lasts=length), site, live=live)


@options.verb("ksctl resume policy/futures-drawdown --reason 'the index is right again' --store ks.sqlite")
@_paused
@_reason
@operator_options
def resume(policy: str, reason: str, site: CommandSite, live: bool, author: str, wait: float, output: str) -> None:
    """End the pause of a policy before its time.

    The tick that processes the command fires what holds then. A policy that is not paused is refused, with a list of
    those that are. Where no runner is alive, see `ksctl pause`.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    deliver(CommandRequest(given("resume", policy, author, reason), wait, output == "json"), site, live=live)
