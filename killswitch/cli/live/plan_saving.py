"""Files of saved plans: written once, never overwritten."""

from __future__ import annotations

from pathlib import Path

import click

from killswitch.cli.options import file_errors
from killswitch.cli.terminal import mention
from killswitch.planning.operator.plan_file import PlanFileError, SavedPlan, decode_plan, encode_plan


def require_new(out: Path | None) -> None:
    """Refuse a file that already exists, before any account is read: an old plan must not pass for the new one."""
    if out is not None and out.exists():
        raise click.ClickException(f"{out} already exists: remove it, or name another file")


def save(plan: SavedPlan | None, out: Path) -> None:
    """Write the plan, or report on stderr that there is none."""
    if plan is None:
        mention(f"nothing to apply: {out} was not written")
        return
    with file_errors(str(out)), out.open("xb") as file:
        file.write(encode_plan(plan))
    apply = f"ksctl apply {out} --store STORE --live"
    mention(f"saved plan {plan.short} in {out}: `{apply}` applies it")


def read(path: Path) -> SavedPlan:
    """Read a saved plan; refuse a file that is not a plan or was altered."""
    try:
        with file_errors(str(path)):
            return decode_plan(path.read_bytes())
    except PlanFileError as error:
        raise click.ClickException(f"{path}: {error}") from error
