"""`ksctl notify` and `acknowledge`: who gets a message, what was delivered, silences, and acknowledgements."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from msgspec import structs, to_builtins

from killswitch.cli import EXIT_FAILED, completion, options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, WORD
from killswitch.cli.terminal import print_json, print_page, print_section
from killswitch.model.words import NotificationEvent, Severity
from killswitch.render.document import Code, Items, Page, Section

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.graph.routing import MessageAttributes
    from killswitch.operations.notifying import SilenceView


@click.group(epilog=options.example_text("ksctl notify test --policies policies"))
def notify() -> None:
    """Test the notification routes, show what they did, and silence messages."""


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
    if not policies.has_routes:
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


@options.verb("ksctl notify match --event fired --severity page --policy swaps --policies policies", group=notify)
@options.policies(required=True)
@click.option("--event", type=click.Choice(get_args(NotificationEvent)), default="notice", help="The event.")
@click.option("--severity", type=click.Choice(get_args(Severity)), default="page", help="The severity.")
@click.option("--policy", type=WORD, default="runner", help="The policy. Default: runner, the program itself.")
@click.option("--scope", type=RECORD_TEXT, default="runner", help="The scope, such as account/main.")
@click.option("--level", type=click.IntRange(1, 9), help="The level of the stage.")
@click.option("--notify", "names", type=WORD, multiple=True, help="A name under `notify` of the stage; repeatable.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label of the policy; repeatable.")
@click.option("--observed", is_flag=True, help="A firing of `observe`, of a shadow set or of a drill: not urgent.")
@options.output
@click.pass_context
def match(
    context: click.Context, policies_at: tuple[Path, ...], event: str, severity: str, policy: str, scope: str,
    level: int | None, names: tuple[str, ...], labels: tuple[str, ...], observed: bool, output: str,
) -> None:  # fmt: skip
    """Show which receiver would get a message, as a tree.

    A firing and what a close leaves are urgent: nothing holds them. For any other message the silences of the documents
    and the mute times of this moment are shown. Exits 1 if nobody would get it. Reads the policies alone.
    """
    from killswitch.cli.session import load_policies
    from killswitch.graph.routing import MessageAttributes
    from killswitch.model.instant import to_micros
    from killswitch.operations.notifying import match_lines, tree_text
    from killswitch.planning.routing.tree import tree_of

    tree = tree_of(load_policies(policies_at).policies)
    if tree is None:
        raise click.ClickException("the policies have no NotificationRoute, so nobody is notified")
    pairs = tuple(sorted((key, value) for key, _, value in (each.partition("=") for each in labels)))
    subject: MessageAttributes = MessageAttributes(
        event, severity, policy, scope, level, names, pairs,  # type: ignore[arg-type] # of the choices
    )  # fmt: skip
    is_urgent = event in ("fired", "residual") and not observed
    lines = match_lines(tree, subject, to_micros(datetime.now(UTC)), is_urgent=is_urgent)
    if output == "json":
        print_json({"urgent": is_urgent, "nodes": [structs.asdict(line) for line in lines]})
    else:
        title = f"{'Urgent' if is_urgent else 'Not urgent'}: {event}, {severity}, {policy} on {scope}"
        print_section(Section(title, (Code(tuple(tree_text(lines))),)))
    if not any(line.takes for line in lines):
        context.exit(EXIT_FAILED)


@options.verb("ksctl notify log --store ks.sqlite", group=notify)
@options.store
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The most lines.")
@options.output
def log(store_at: str, limit: int, output: str) -> None:
    """Show deliveries, and the messages that nobody was sent with the reason of each; the newest first."""
    from killswitch.cli.session import opened_store
    from killswitch.operations.notifying import log_rows, log_text

    with opened_store(store_at, read_only=True) as store:
        rows = log_rows(store, limit)
    if output == "json":
        print_json({"messages": [structs.asdict(row) for row in rows]})
        return
    lines = tuple(log_text(rows)) or ("no message was sent or suppressed",)
    print_section(Section("Notifications, the newest first", (Code(lines),)))


@options.verb(
    "ksctl notify silence --policy swaps --for 2h --reason 'venue upgrade' --store ks.sqlite",
    "ksctl notify silence severity=warning account=main 'level>=2' desk=eu --for 2h --reason upgrade --store ks.sqlite",
    "ksctl notify silence --end hand-4f2a --reason 'the upgrade is over' --store ks.sqlite", group=notify,
)  # fmt: skip
@click.argument("matchers", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--policy", type=WORD, help="The policy whose messages are held.")
@click.option("--scope", type=RECORD_TEXT, shell_complete=completion.scopes, help="The scope whose messages are held.")
@click.option("--for", "length", type=options.DURATION, help="How long.")
@click.option("--end", "ended", metavar="ID", type=WORD, help="End this silence instead, by the beginning of its id.")
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@operator_options
def silence(
    matchers: tuple[str, ...], policy: str | None, scope: str | None, length: float | None, ended: str | None,
    reason: str, site: CommandSite, live: bool, author: str, wait: float, output: str,
) -> None:  # fmt: skip
    """Hold the messages that match every condition for a time; what still lasts is sent when it ends.

    The keys are policy, scope, account, strategy, severity, event, notify, level (as level>=N), and the labels of the
    policy; of a key that is repeated any value matches. Nothing urgent is held: no firing, no remainder and no failed
    close. It outlives restarts. `ksctl notify silences` and `ksctl status` list it with what it holds, and --end ends
    it. A document of kind Silence does the same.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given
    from killswitch.operations.notifying import matchers_of

    if (ended is None) == (length is None):
        raise click.UsageError("name --for, how long it holds, or --end, the silence that ends now")
    if ended is not None:
        if matchers or policy is not None or scope is not None:
            raise click.UsageError("--end ends one silence: it combines with no condition")
        command = given("silence", None, author, reason, ids=(_silence_to_end(site.store_at, ended),))
        deliver(CommandRequest(command, wait, output == "json"), site, live=live)
        return
    try:
        matching = matchers_of(matchers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if policy is None and scope is None and not matching:
        raise click.UsageError("name what is silenced, such as severity=warning or --policy swaps: never every message")
    command = given("silence", scope, author, reason, policy=policy, matching=matching or None)
    deliver(CommandRequest(command, wait, output == "json", lasts=length), site, live=live)


def _silence_to_end(store_at: str, begin: str) -> str:
    """The id of the silence by command that begins so; ClickException with those that there are if it is not one."""
    found = _silences(store_at)
    ids = [each.id for each in found if each.id.startswith(begin)]
    if len(ids) != 1:
        listed = "; ".join(each.line for each in found) or "none"
        raise click.ClickException(f"{begin} begins the id of {len(ids) or 'no'} silences. There are: {listed}")
    if next(each for each in found if each.id == ids[0]).is_document:
        raise click.ClickException(f"the silence {ids[0]} is declared by a document: it ends with an edit of it")
    return ids[0]


def _silences(store_at: str) -> tuple[SilenceView, ...]:
    from killswitch.cli.session import opened_store
    from killswitch.model.store import ROUTING
    from killswitch.operations.notifying import silence_views
    from killswitch.planning.routing.state import read_routing
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time

    with opened_store(store_at, read_only=True) as store:
        return silence_views(read_routing(store.live(ROUTING)), tick_time(store, SystemClock()))


@options.verb("ksctl notify silences --store ks.sqlite", group=notify)
@options.store
@options.output
def silences(store_at: str, output: str) -> None:
    """List the silences that have not ended, the first to end first: who, why, what and until when."""
    found = _silences(store_at)
    if output == "json":
        print_json({"silences": [to_builtins(each) for each in found]})
        return
    print_section(Section("Silences", (Code(tuple(each.line for each in found) or ("no message is silenced",)),)))


@options.verb("ksctl acknowledge 48d4ba2ec34e --store ks.sqlite")
@click.argument("id_", metavar="INCIDENT|MESSAGE", type=WORD)
@click.option("--reason", type=RECORD_TEXT, default="seen", show_default=True, help="The reason, for the record.")
@operator_options
def acknowledge(id_: str, reason: str, site: CommandSite, live: bool, author: str, wait: float, output: str) -> None:
    """Acknowledge the firings of an incident, or those of one message: they no longer escalate.

    It covers what is recorded now, and nothing of a later firing. Reminders go on until the reset. ID is that of the
    incident, of one of its decisions or of a message; its beginning is enough.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given
    from killswitch.cli.session import opened_store
    from killswitch.operations.notifying import UnknownPageError, acknowledgeable

    with opened_store(site.store_at, read_only=True) as store:
        try:
            found = acknowledgeable(store, id_)
        except UnknownPageError as error:
            raise click.ClickException(str(error)) from error
    command = given("acknowledge", None, author, reason, decision=found.about, number=found.number)
    deliver(CommandRequest(command, wait, output == "json"), site, live=live)
