"""`ksctl`: one module per verb group, imported when its verb runs.

Exit codes of every verb: 0 success, 1 failure, 2 changes or actions pending (with --detailed-exitcode), 3 warnings
(with --strict), 4 trouble (status --detailed-exitcode), 64 wrong usage, 69 a run that could not start, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from keyword import iskeyword
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_FAILED = 1
EXIT_PENDING = 2
EXIT_WARNINGS = 3
EXIT_TROUBLE = 4
EXIT_USAGE = 64
EXIT_NOT_STARTED = 69

# verb → (module under killswitch.cli that holds a click command of that name, one-line help); `import_` for a keyword
VERBS: dict[str, tuple[str, str]] = {
    "init": ("policy.init", "Write a first folder of policies for a book, with its accounts."),
    "import": ("policy.importing", "Turn the configuration of another tool into a folder of policies."),
    "validate": ("policy.verbs", "Check policies: every mistake in one pass."),
    "fmt": ("policy.fmt", "Lay out policy files uniformly, without changing what they mean."),
    "lint": ("policy.lint", "Find what is valid in policies and probably not meant."),
    "schema": ("policy.verbs", "Print the JSON Schemas of the documents, or the signal catalogue."),
    "graph": ("policy.verbs", "Print the compiled decision graph as Mermaid or DOT."),
    "prove": ("policy.prove", "Prove properties of the policies, or show a witness against them."),
    "approve": ("policy.approve", "Show a change of policies, and sign its approval."),
    "blame": ("policy.blame", "Name the change that set a threshold: commit, signers and approvers."),
    "explain": ("policy.explain", "Explain a diagnostic code, or a decision."),
    "plan": ("live.plan", "Show what the policies would do right now. Changes nothing."),
    "show": ("live.plan", "Show a saved plan, whatever its state. Changes nothing."),
    "apply": ("operate.verbs", "Apply a saved plan exactly, or list what has changed."),
    "run": ("live.run", "Evaluate the policies at an interval, and act where armed."),
    "reload": ("operate.reload", "Take the policy files of a running runner between two of its ticks."),
    "status": ("live.status", "Show stages, locks and closes."),
    "top": ("live.top", "Follow a run in the terminal, the worst first."),
    "history": ("live.status", "List past decisions and their results."),
    "report": ("live.report", "Report an incident: what happened, why, and what to do next."),
    "audit": ("operate.audit", "Verify the record, export it, follow it, and prove that one line is in it."),
    "store": ("operate.store_files", "Back a store up, restore it, and verify it."),
    "lock": ("operate.locks", "Lock trading on a scope for the bots that read its lock file."),
    "unlock": ("operate.locks", "Lift the locks by hand on a scope."),
    "halt": ("operate.holds", "Stop everything that adds risk on a scope, and close nothing."),
    "cancel": ("operate.holds", "Cancel the resting orders that add risk on a scope, once."),
    "reset": ("operate.verbs", "Return a scope to normal."),
    "restate": ("operate.verbs", "Determine what an unexplained change of equity was."),
    "close": ("operate.verbs", "Close positions by an operator command."),
    "source": ("operate.source", "Show the source of the policies, suspend it, or go back to an earlier set."),
    "acknowledge": ("operate.notify", "Acknowledge firings, so that they no longer escalate."),
    "pause": ("operate.flags", "Pause trading on a scope, or a policy."),
    "resume": ("operate.flags", "End the pause of a scope or of a policy."),
    "flag": ("operate.flags", "Set or clear a flag that policies read."),
    "deadman": ("operate.deadman", "Send heartbeats, and watch dead man's switches."),
    "backtest": ("lab.backtest", "Show what the policies would have done in a crash, and the alternatives."),
    "impact": ("lab.impact", "Show what a change of policies loosens, and what it would have done."),
    "test": ("lab.scenarios", "Run the scenarios next to policies, and what they cover."),
    "replay": ("lab.replay", "Run the policies over a recording."),
    "venues": ("venues.verbs", "List supported venues, and check accounts before you trust them."),
    "notify": ("operate.notify", "Test the notification routes."),
    "serve": ("live.serve", "Serve the HTTP API: status, heartbeats and operator commands."),
    "shadow": ("live.shadow", "Show what policy sets in shadow would have done."),
    "size": ("live.size", "Show how large a position may be. Sends nothing."),
    "snapshot": ("live.snapshot", "Read one account once, in the public format. Changes nothing."),
    "market": ("lab.market", "Fetch bars for backtests from a venue's public history."),
    "paper": ("lab.paper", "Serve a paper venue on loopback."),
    "drill": ("lab.drill", "Rehearse a crash, and measure until the book is flat."),
    "demo": ("lab.demo", "Run the policies through a crash on the paper venue."),
}


class LazyGroup(click.Group):
    """A click group that lists its verbs and their help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _ = VERBS[cmd_name]
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(f"killswitch.cli.{module}"), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs with their help without importing them; click completes the options."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(verb, help=text) for verb, (_, text) in VERBS.items() if verb.startswith(incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a verb, and suggest the closest one for a misspelled verb."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0].lower(), VERBS, n=1, cutoff=0.6)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


def print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print the version.

    The package metadata is read only for `--version`, because that takes a tenth of the start-up time.
    """
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"ksctl {version('killswitch')}")
    ctx.exit()


def choose_color(context: click.Context, _param: click.Parameter, choice: str) -> None:
    """Apply `--color` to all output of this process."""
    from killswitch.cli.terminal import choose_color

    context.color = choose_color(choice)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]},
             epilog="\b\nExample:\n  ksctl plan --policies policies/")  # fmt: skip
@click.option("--version", is_flag=True, callback=print_version, expose_value=False, is_eager=True,
              help="Show the version and exit.")  # fmt: skip
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
              callback=choose_color, expose_value=False,
              help="Color alarms and reports: auto on a terminal, unless NO_COLOR is set. JSON is never colored."
              )  # fmt: skip
def ksctl() -> None:
    """Stop a trading book that goes wrong."""


def main() -> None:
    """Run `ksctl` and map click's exit code 2 for wrong usage to 64; every other error has its own, usually 1."""
    try:
        status = ksctl.main(standalone_mode=False)
    except click.ClickException as error:
        _print_error(error)
        sys.exit(EXIT_USAGE if isinstance(error, click.UsageError) else error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _print_error(error: click.ClickException) -> None:
    """Print a click error within the width of the terminal."""
    from io import StringIO

    from killswitch.cli.terminal import print_note

    text = StringIO()
    error.show(text)
    print_note(text.getvalue().rstrip("\n"), "error")
