"""`ksctl venues`: supported venues and account checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, EXIT_WARNINGS, completion, options
from killswitch.cli.options import DURATION, option
from killswitch.cli.terminal import print_answer, print_note, print_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.policy.schema.account import AccountDocument


@click.group(epilog=options.example_text("ksctl venues list", "ksctl venues check main --policies policies"))
def venues() -> None:
    """Supported venues and account checks."""


@options.verb("ksctl venues list", "ksctl venues list kraken", group=venues, name="list")
@click.argument("venue", required=False, shell_complete=completion.venues)
@options.page_output
def list_(venue: str | None, output: str) -> int:
    """List the supported venues, or show one of them in full.

    The paper venue is not listed: its terms define it. Sends no request to a venue.
    """
    from killswitch.accounts.plug_ins import load_plug_ins
    from killswitch.operations.pages.venues import listings_json, venue_page, venues_page

    found = load_plug_ins()
    listings = found.listings if venue is None else found.named(venue)
    if output == "json":
        click.echo(listings_json(listings, found.absent))
        return 0 if listings else EXIT_FAILED
    if listings:
        page = venue_page(listings) if venue is not None else venues_page(listings, found.others)
        print_page(page, output)
    for each in found.absent:
        print_note(str(each))
    return 0 if listings else EXIT_FAILED


@options.verb("ksctl venues check main --policies policies", group=venues)
@click.argument("accounts", metavar="[ACCOUNT]…", nargs=-1, shell_complete=completion.accounts)
@options.policies(required=True)
@option("--interval", type=DURATION, default="1s", help="Tick interval that the polling cost is compared with.")
@option("--within", type=DURATION, default="1m", help="Maximum time of a full close within the limits of the venue.")
@options.variant
@options.read_timeout("30s")
@click.option("--strict", is_flag=True, help="Exit 3 when there are warnings.")
@options.page_output
def check(
    accounts: tuple[str, ...], policies_at: tuple[Path, ...], interval: float, within: float, variant: str | None,
    read_timeout: float, strict: bool, output: str,
) -> int:  # fmt: skip
    """Check accounts before you trust them. Changes nothing, anywhere.

    Checks every Account document, or those named. For each account: connection and snapshot, clocks, key rights, modes,
    capabilities, positions that cannot be closed as they are, and whether the limits of the venue allow polling and the
    worst case of the policies in time.

    Exits 1 if an account fails; a key that may withdraw fails unless its document says allow_withdrawal_keys: true.
    """
    from datetime import UTC, datetime

    from killswitch.cli.session import load_policies
    from killswitch.operations.pages.check import check_page
    from killswitch.preflight.account_check import check_all, encode_check
    from killswitch.preflight.findings import CheckRequirements
    from killswitch.preflight.inspection import inspect_accounts
    from killswitch.runner import process
    from killswitch.runner.clock import SystemClock

    if interval <= 0:
        raise click.UsageError("--interval must be above zero")
    loaded = load_policies(policies_at, variant)
    inspected = process.run(inspect_accounts(chosen_accounts(loaded, accounts), read_timeout, SystemClock()))
    requirements = CheckRequirements(interval, within, datetime.now(UTC))
    result = check_all(inspected, loaded.accounts, loaded.policies, requirements)
    print_answer(output, lambda: encode_check(result), lambda: check_page(result))
    if result.verdict == "failed":
        return EXIT_FAILED
    return EXIT_WARNINGS if strict and result.verdict == "warnings" else 0


def chosen_accounts(loaded: LoadedPolicies, names: Sequence[str]) -> tuple[AccountDocument, ...]:
    """The Account documents of these names, or all; ClickException for an unknown name, and if there are none."""
    known = {each.metadata.name: each for each in loaded.accounts}
    if not known:
        raise click.ClickException(
            "the policies contain no Account document; add one (kind: Account) to the folder, or name its file with "
            "another --policies"
        )
    for name in names:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise click.ClickException(f"no Account document has the name {name}{hint}; there are {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names)) or loaded.accounts
