"""Saved plans as files: written once, never over another."""

from __future__ import annotations

from pathlib import Path

import click

from killswitch.planning.operator.plan_file import PlanFileError, SavedPlan, decode_plan, encode_plan


def require_new(out: Path | None) -> None:
    """Refuse, before anything is read, a file that is there already: an old plan must not pass for the new one."""
    if out is not None and out.exists():
        raise click.ClickException(f"{out} is there already: remove it, or name another file")


def save(plan: SavedPlan | None, out: Path) -> None:
    """Write the plan, or say that there is none; stderr tells which."""
    if plan is None:
        click.echo(f"nothing that `ksctl apply` would carry out: {out} was not written", err=True)
        return
    try:
        with out.open("xb") as file:
            file.write(encode_plan(plan))
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror or error}") from error
    apply = f"ksctl apply {out} --store STORE --live"
    click.echo(f"saved plan {plan.short} in {out}: `{apply}` does exactly that", err=True)


def read(path: Path) -> SavedPlan:
    """The plan in a file; one that is none, or was altered, is refused."""
    try:
        return decode_plan(path.read_bytes())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from error
    except PlanFileError as error:
        raise click.ClickException(f"{path}: {error}") from error
