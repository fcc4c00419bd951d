"""`ksctl flag`: what people report, and policies read as `flag.set(NAME)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, WORD, option

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
