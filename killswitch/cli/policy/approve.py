"""`ksctl approve`: shows a change of policies, and signs the statement that approves it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.options import (
    DURATION,
    IN_FILE,
    IN_FOLDER,
    OUT_FILE,
    WORD,
    file_errors,
    option,
    page_output,
    verb,
)
from killswitch.cli.terminal import print_json, print_note, print_page

if TYPE_CHECKING:
    from killswitch.operations.approving import ChangeToApprove, SigningKey
    from killswitch.source.polling import SourceSettings
    from killswitch.source.statements import Purpose, SignedStatement, Statement

_DAY = 86_400.0


@verb("ksctl approve --source source.yaml --store ks.sqlite --key id_ed25519",
      "ksctl approve --source source.yaml --base main --head wider --key id_ed25519 --out ann.approval")  # fmt: skip
@click.option("--source", "source_at", type=IN_FILE, required=True, help="The source file of the runner.")
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner: approve what it waits with, and deliver the approval to it.")  # fmt: skip
@click.option("--base", metavar="REF", help="The set in force, instead of --store: a folder, or a git revision.")
@click.option("--head", metavar="REF", help="The proposed set, with --base: a folder, or a git revision.")
@click.option("--repository", type=IN_FOLDER, default=Path(), help="The clone that has the revisions. Default: here.")
@click.option("--key", "key_at", type=IN_FILE, help="The SSH key to sign with; its .pub if an agent holds it.")
@click.option("--openpgp", metavar="FINGERPRINT", type=WORD, help="The OpenPGP key to sign with, instead of --key.")
@click.option("--expires", type=DURATION,
              help="How long it is valid. Default: 7d, and 365d for a manifest; at most 14d for others.")  # fmt: skip
@option("--limit", type=DURATION, default="120s", help="Time of the proof, with --base.")
@click.option("--out", type=OUT_FILE,
              help="Write the approval into this new file, for the folder of the repository; with --store it is "
              "delivered as well.")  # fmt: skip
@click.option("--purpose", default="change",
              type=click.Choice(["change", "merge", "trust", "manifest", "anchor", "recovery", "reset", "drill"]),
              help="change: what the runner waits for. merge: replaces the signature of a merge by the host. trust: a "
              "changed trust file, with --base and --head as files. manifest: the folder --head as it is. "
              "anchor: the commit --head, to which `ksctl source anchor` moves. recovery: the next step of the way "
              "back --head POLICY/SCOPE, with --store. reset: the reset of what is in force at --head POLICY/SCOPE, "
              "with --store. drill: the drill --drill of the documents --head.")  # fmt: skip
@click.option("--drill", metavar="NAME", type=WORD, help="With --purpose drill: the name of the live drill.")
@click.option("--manifest-version", type=click.IntRange(1, 999_999_999), metavar="N",
              help="With --purpose manifest: the version, above the one before.")  # fmt: skip
@click.option("--yes", "is_sure", is_flag=True, help="Sign without asking.")
@page_output
def approve(
    source_at: Path,
    store_at: str | None,
    base: str | None,
    head: str | None,
    repository: Path,
    key_at: Path | None,
    openpgp: str | None,
    expires: float | None,
    limit: float,
    out: Path | None,
    purpose: Purpose,
    drill: str | None,
    manifest_version: int | None,
    is_sure: bool,
    output: str,
) -> None:
    """Show what a change of policies loosens and what it would fire on arrival, and sign its approval.

    The approval is of exactly this change: another base or another result void it. It counts if the trust set of the
    runner has the key, for a person with no part in the change. What needs no approval is not signed. What could not be
    analysed is shown as UNDECIDED before anything is signed.
    """
    from killswitch.operations.approving import ApprovalError
    from killswitch.operations.impact.revision import GitRevisionError
    from killswitch.source.statements import encode_statement

    _require_sides(purpose, store_at, base, head, manifest_version)
    if (purpose == "drill") != (drill is not None):
        raise click.UsageError("name --drill NAME and --head FOLDER for --purpose drill, and for no other purpose")
    if (key_at is None) == (openpgp is None):
        raise click.UsageError("name one key: --key FILE or --openpgp FINGERPRINT")
    if out is None and store_at is None:
        raise click.UsageError("name --out FILE for the approval: without --store there is no runner to deliver it to")
    if out is not None and out.exists():
        raise click.ClickException(f"{out} already exists: remove it, or name another file")
    settings = _settings(source_at)
    lasts = (_DAY * (365 if purpose == "manifest" else 7)) if expires is None else expires
    try:
        key = _key(key_at, openpgp)
        if purpose == "change":
            change = _change(settings, store_at, (base, head), repository, limit)
            statements = _of_change(change, key, lasts, output)
        else:
            if purpose in ("recovery", "reset"):
                statement = _of_command(settings, purpose, head or "", store_at or "")
            elif purpose == "drill":
                statement = _drill(settings, Path(head or ""), drill or "")
            else:
                statement = _plain(settings, purpose, (base, head), repository, manifest_version)
            statements = (_given(statement, key, lasts),)
            click.echo("\n".join(encode_statement(each).decode() for each in statements), err=output == "json")
        signed = _signed(statements, key, is_sure=is_sure)
        _require_counting(signed, settings, store_at)
    except (ApprovalError, GitRevisionError) as error:
        raise click.ClickException(str(error)) from error
    _write_approvals(signed, out, store_at, output)


def _require_sides(
    purpose: Purpose, store_at: str | None, base: str | None, head: str | None, manifest_version: int | None
) -> None:
    """UsageError if the options do not say what is approved."""
    if purpose == "manifest":
        if head is None or base is not None or manifest_version is None:
            raise click.UsageError("name --head FOLDER and --manifest-version N for --purpose manifest, and no --base")
    elif purpose == "anchor":
        if head is None or base is not None or not re.fullmatch("[0-9a-f]{40}", head):
            raise click.UsageError("name --head COMMIT, all 40 hexadecimal digits, for --purpose anchor, and no --base")
    elif purpose in ("recovery", "reset"):
        if head is None or base is not None or store_at is None:
            raise click.UsageError(f"name --head POLICY/SCOPE and --store for --purpose {purpose}, and no --base")
    elif purpose == "drill":
        if head is None or base is not None:
            raise click.UsageError("name --head FOLDER and --drill NAME for --purpose drill, and no --base")
    elif (store_at is None) == (base is None and head is None) or (base is None) != (head is None):
        raise click.UsageError("name either --store, or --base and --head")
    elif purpose != "change" and base is None:
        raise click.UsageError(f"name --base and --head for --purpose {purpose}")


def _require_counting(signed: tuple[SignedStatement, ...], settings: SourceSettings, store_at: str | None) -> None:
    """ClickException if a runner's trust set does not let an approval count: it would be delivered for nothing.

    Without a store, and where the trust set is not known here, it is a remark: the runner's may be another one.
    """
    from killswitch.cli.session import opened_store
    from killswitch.model.instant import to_micros
    from killswitch.operations.approving import trust_of, why_not_counted
    from killswitch.runner.clock import SystemClock

    with nullcontext() if store_at is None else opened_store(store_at, read_only=True) as store:
        trust = trust_of(settings, store)
        if isinstance(trust, str):
            reasons: tuple[str, ...] = ()
            print_note(f"whether the approval counts is not known here: {trust}")
        else:
            reasons = why_not_counted(signed, trust, store, to_micros(SystemClock().now()))
    if reasons and store_at is not None:
        raise click.ClickException(f"{'; '.join(reasons)}. Nothing was delivered: sign with another key")
    for why in reasons:
        print_note(f"by the trust file of {settings.file} the approval does not count: {why}")


def _settings(source_at: Path) -> SourceSettings:
    from killswitch.policy.diagnostics.diagnostic import diagnostics_page
    from killswitch.source.settings import SourceFileError, read_settings

    try:
        return read_settings(source_at)
    except SourceFileError as error:
        print_page(diagnostics_page(error.diagnostics), err=True)
        raise click.ClickException(f"{source_at} has mistakes") from error


def _change(
    settings: SourceSettings, store_at: str | None, revisions: tuple[str | None, str | None], repository: Path,
    limit: float,
) -> ChangeToApprove:  # fmt: skip
    from killswitch.cli.session import opened_store
    from killswitch.operations.approving import change_of_files, change_of_runner, files_of

    base, head = revisions
    if store_at is not None:
        with opened_store(store_at, read_only=True) as store:
            return change_of_runner(store, settings)
    sides = [files_of(each or "", settings, repository) for each in (base, head)]
    return change_of_files(sides[0], sides[1], settings, limit)


def _key(key_at: Path | None, openpgp: str | None) -> SigningKey:
    from killswitch.operations.approving import SigningKey, ssh_signing_key

    return SigningKey((openpgp or "").upper()) if key_at is None else ssh_signing_key(key_at)


def _of_change(change: ChangeToApprove, key: SigningKey, expires: float, output: str) -> tuple[Statement, ...]:
    """Show the change; the statements that it waits for, none if it waits for nothing."""
    from killswitch.model.instant import to_micros
    from killswitch.operations.approving import change_page, statements_of
    from killswitch.runner.clock import SystemClock

    statements = statements_of(change, key.fingerprint, to_micros(SystemClock().now()), int(expires * 1_000_000))
    page = change_page(change, statements[0].expires if statements else 0)
    print_page(page, "text" if output == "json" else output, err=output == "json")
    if not statements:
        print_note("the change needs no approval: nothing was signed")
    return statements


def _plain(
    settings: SourceSettings, purpose: Purpose, revisions: tuple[str | None, str | None], repository: Path,
    version: int | None,
) -> Statement:  # fmt: skip
    """The statement about a merge, a trust file, an anchor or a folder as it is, which no review precedes."""
    from killswitch.model.applied_set import folder_digest
    from killswitch.operations.approving import files_of, plain_statement, trust_digest

    base, head = revisions
    digests: list[str | None]
    if purpose == "anchor":
        return plain_statement(settings, purpose, (None, None), head)
    if purpose == "trust":
        with file_errors(base or ""), file_errors(head or ""):
            digests = [trust_digest(Path(each or "").read_bytes()) for each in (base, head)]
    else:
        digests = [None if each is None else folder_digest(files_of(each, settings, repository)) for each in revisions]
    subject = None if version is None else str(version)
    return plain_statement(settings, purpose, (digests[0], digests[1]), subject)


def _of_command(settings: SourceSettings, purpose: Purpose, place: str, store_at: str) -> Statement:
    """The statement about a reset, or the next step of a way back, at `POLICY/SCOPE`, as the last tick has it."""
    from killswitch.cli.session import opened_store
    from killswitch.operations.approving import next_step, plain_statement, require_source, reset_to_approve

    with opened_store(store_at, read_only=True) as store:
        require_source(store, settings)
        subject, shown = (next_step if purpose == "recovery" else reset_to_approve)(store, place)
    print_note(shown)
    return plain_statement(settings, purpose, (None, None), subject)


def _drill(settings: SourceSettings, documents: Path, name: str) -> Statement:
    """The statement about a live drill, as the documents declare it now."""
    from killswitch.operations.approving import plain_statement
    from killswitch.operations.drills.live_checks import drill_digest, drill_subject, find_drill

    try:
        document = find_drill([documents], name)
        return plain_statement(settings, "drill", (None, drill_digest(document)), drill_subject(document))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _given(statement: Statement, key: SigningKey, expires: float) -> Statement:
    from killswitch.model.instant import to_micros
    from killswitch.runner.clock import SystemClock
    from killswitch.source.statements import given_by

    return given_by(statement, key.fingerprint, to_micros(SystemClock().now()), int(expires * 1_000_000))


def _signed(statements: tuple[Statement, ...], key: SigningKey, *, is_sure: bool) -> tuple[SignedStatement, ...]:
    """Ask, and sign."""
    from killswitch.operations.approving import sign

    if statements and not is_sure:
        what = " and ".join(each.purpose for each in statements)
        click.confirm(f"Sign the approval ({what}) with {key.fingerprint}?", abort=True, err=True)
    return tuple(sign(each, key) for each in statements)


def _write_approvals(signed: tuple[SignedStatement, ...], out: Path | None, store_at: str | None, output: str) -> None:
    """Write the approvals, deliver them to the runner, and say where they are."""
    from killswitch.cli.session import opened_store
    from killswitch.operations.approving import deliver
    from killswitch.source.statements import join_signature

    written: list[str] = []
    for number, each in enumerate(signed) if out is not None else ():
        assert out is not None  # the loop has no turn without it
        file = out if number == 0 else out.with_name(f"{out.stem}-{each.statement.purpose}{out.suffix}")
        with file_errors(str(file)), file.open("xb") as stream:
            stream.write(join_signature(each.signed, each.signature))
        written.append(str(file))
    if store_at is not None and signed:
        with opened_store(store_at, read_only=False) as store:
            for each in signed:
                deliver(store, each)
    for each in signed:
        print_note(f"approved ({each.statement.purpose}): {each.id}")
    if output == "json":
        records = [{"id": each.id, "purpose": each.statement.purpose, "key": each.statement.key} for each in signed]
        print_json({"approvals": records, "files": written, "delivered": store_at if signed else None})
