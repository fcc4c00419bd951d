"""`ksctl notify`: test of the notification routes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.terminal import print_json, print_page
from killswitch.render.document import Items, Page, Section


@click.group(epilog=options.example_text("ksctl notify test --policies policies"))
def notify() -> None:
    """Test the notification routes."""


@options.verb("ksctl notify test --policies policies", group=notify)
@options.policies(required=True)
@options.option("--severity", type=click.Choice(["info", "warning", "page"]), default="info",
                help="Severity of the test message; a pager may ignore all but pages.")  # fmt: skip
@options.output
@click.pass_context
def test(context: click.Context, policies_at: tuple[Path, ...], severity: str, output: str) -> None:
    """Send a test message to every target of every route.

    The match rules of the routes are ignored. Exits 1 if a delivery fails or there is no target. Writes to no store and
    sends no request to a venue.
    """
    from killswitch.cli.session import load_policies
    from killswitch.incident.notify.message import trial_message
    from killswitch.runner.notify.target_check import deliver

    policies = load_policies(policies_at).policies
    if not policies.routes:
        raise click.ClickException("the policies have no NotificationRoute, so nobody is notified")
    results = deliver(policies, trial_message(severity, datetime.now(UTC)))  # type: ignore[arg-type] # one of the choices
    if output == "json":
        rows = [{"target": each.target, "routes": each.routes, "taken": each.error is None, "error": each.error}
                for each in results]  # fmt: skip
        print_json({"targets": rows})
    else:
        lines = (
            f"{each.target} ({', '.join(each.routes)}): "
            f"{'delivered' if each.error is None else f'FAILED: {each.error}'}"
            for each in results
        )
        print_page(Page("Test of the notification routes", sections=(Section("", (Items(tuple(lines)),)),)))
    if any(each.error is not None for each in results):
        context.exit(EXIT_FAILED)
