"""The document `PolicyTrust`: whose keys sign and approve, and what may follow a trust set (T3, T4).

The first trust file belongs to the configuration of the runner. A later one may be in the repository; it takes effect
only for the commits after it, and only with the approvals of the trust before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from msgspec.structs import replace
from pydantic import Field, StrictBool

from killswitch.model.instant import to_micros
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic, in_order
from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import pattern_json, quoted, text, whole_number
from killswitch.policy.schema.session import calendar_date
from killswitch.policy.schema.validation import validate
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import YamlProblem, parse, plain_value
from killswitch.policy.yaml.source_map import SourceMap
from killswitch.source.git_problems import GitSourceError, is_clean_name
from killswitch.source.signatures import SignatureError, openpgp_fingerprint, ssh_public_key
from killswitch.source.trust import Trust, TrustedKey

LARGEST = 1 << 20
"""Bytes of a trust file."""
MOST_KEYS = 500


def principal(value: object) -> str:
    """The name of a person or a machine, such as an address: no white space, nothing that is not shown."""
    written = text(value)
    if not re.fullmatch(r"[^\s\"'`,;*?!<>]{1,200}", written) or not is_clean_name(written):
        raise MistakeError("KS8120", f"{quoted(written)} is not a principal", "write a name such as alice@example.com")
    return written


def ssh_key(value: object) -> str:
    """One public SSH key, as a line of a `.pub` file; options and certificates are refused."""
    try:
        return ssh_public_key(text(value))[0]
    except SignatureError as error:
        raise MistakeError("KS8120", str(error), "write the line of the `.pub` file") from None


def openpgp_key(value: object) -> str:
    """One armoured OpenPGP public key of version 4."""
    try:
        openpgp_fingerprint(text(value))
    except SignatureError as error:
        raise MistakeError("KS8120", str(error), "write what `gpg --armor --export ID` prints, below `|`") from None
    return text(value)


def key_day(value: object) -> str:
    """A day in UTC, such as 2026-12-25."""
    return calendar_date(value)


Principal = Annotated[str, Scalar(principal, {"type": "string", "examples": ["alice@example.com"]})]
SshKey = Annotated[str, Scalar(ssh_key, {"type": "string", "examples": ["ssh-ed25519 AAAA…"]})]
OpenpgpKey = Annotated[str, Scalar(openpgp_key, {"type": "string"}, is_confidential=True)]
KeyDay = Annotated[str, Scalar(key_day, pattern_json(r"\d{4}-\d{2}-\d{2}", "2026-12-25"))]


class TrustKey(Part):
    """One key of one principal: exactly one of `ssh` and `openpgp`."""

    principal: Principal
    """Whose key it is."""
    ssh: SshKey | None = None
    """The public SSH key."""
    openpgp: OpenpgpKey | None = None
    """The armoured OpenPGP public key."""
    may: Annotated[tuple[Literal["sign", "approve"], ...], AtLeastOne()]
    """`sign` commits, `approve` changes, or both."""
    from_: Annotated[KeyDay | None, Field(alias="from")] = None
    """The first day, in UTC, on which it counts. Left out: always."""
    until: KeyDay | None = None
    """The first day, in UTC, on which it no longer counts. Left out: it does not end."""
    revoked: StrictBool = False
    """Whether nothing counts any more that it signed and that is not in force. Left out: no."""


class TrustSpec(Part):
    """The keys, and how many approvers a change needs that is not proved a tightening."""

    version: Annotated[int, whole_number(1, 1_000_000_000)]
    """Rises with every change of this file."""
    approvals: Annotated[int, whole_number(1, 100)]
    """How many approvers of different principals a loosening needs."""
    keys: Annotated[tuple[TrustKey, ...], AtLeastOne()]
    """The keys."""


class PolicyTrustDocument(VersionedPart):
    """Whose keys a runner trusts to sign and to approve policies."""

    kind: Literal["PolicyTrust"]
    spec: TrustSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """One key in each entry, no key under two entries, and as many approvers as approvals."""
        spec = spec_of(written)
        entries = [mapping(each) for each in items(spec.get("keys"))]
        seen: dict[str, int] = {}
        for index, entry in enumerate(entries):
            at = ("spec", "keys", index)
            if ("ssh" in entry) == ("openpgp" in entry):
                yield Breach("KS8120", at, "a key is either `ssh` or `openpgp`", "write one of the two")
            found = _fingerprint(entry)
            if found is not None and seen.setdefault(found, index) != index:
                other = quoted(entries[seen[found]].get("principal"))
                yield Breach("KS8120", at, f"this key is that of {other} too", "write each key once")
        if len(entries) > MOST_KEYS:
            yield Breach("KS8120", ("spec", "keys"), f"more than {MOST_KEYS} keys", "remove keys that have ended")
        approvers = {str(each.get("principal")) for each in entries if "approve" in items(each.get("may"))}
        needed = spec.get("approvals")
        if isinstance(needed, int) and needed > len(approvers):
            text_ = f"{needed} approvals are needed, and there are {len(approvers)} approvers"
            yield Breach("KS8123", ("spec", "approvals"), text_, "name more approvers, or need fewer approvals")


def _fingerprint(entry: Mapping[str, object]) -> str | None:
    """The fingerprint of a key as written; None if it cannot be read, which its value reports."""
    try:
        if isinstance(entry.get("ssh"), str):
            return ssh_public_key(str(entry["ssh"]))[1]
        if isinstance(entry.get("openpgp"), str):
            return openpgp_fingerprint(str(entry["openpgp"]))
    except SignatureError:
        pass
    return None


class TrustFileError(Exception):
    """A trust file with mistakes (T4): `diagnostics` has all of them, with place and fix."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics[0].message)
        self.diagnostics = tuple(diagnostics)


def parse_trust(content: bytes, file: str) -> Trust:
    """The trust set of a file, all of which is checked (T4). `file`: its name for messages. TrustFileError."""
    try:
        written = MaskedText(file, content[: LARGEST + 1].decode())
    except UnicodeDecodeError:
        written = MaskedText(file, "")
    found: list[YamlProblem] = []
    roots = [] if len(content) > LARGEST or not written.text else parse(written.text, found.append)
    problems = [diagnostic(each.code, written.place(each.span), each.message, each.fix) for each in found]
    if (len(roots) != 1 or roots[0].node.pairs is None) and not problems:
        message = f"{file} is not one mapping of at most {LARGEST >> 20} MiB in UTF-8"
        problems.append(Diagnostic("KS8120", "error", message, "write one PolicyTrust", file, 1, 1, 1, ""))
    if problems:
        raise TrustFileError(problems)
    root = roots[0].node
    source = SourceMap(written, root)
    for each in PolicyTrustDocument.breaches(plain_value(root)):
        problems.append(source.diagnostic(each.code, each.path, each.message, each.fix, key=True))
    validated = validate(PolicyTrustDocument, root, source, frozenset())
    problems += validated.problems
    model = validated.model
    if problems or not roots[0].sound or not isinstance(model, PolicyTrustDocument):
        raise TrustFileError(in_order(problems))
    keys = tuple(_key(each) for each in model.spec.keys)
    return Trust(version=model.spec.version, approvals=model.spec.approvals, keys=keys)


def _key(entry: TrustKey) -> TrustedKey:
    fingerprint = ssh_public_key(entry.ssh)[1] if entry.ssh is not None else openpgp_fingerprint(entry.openpgp or "")
    return TrustedKey(
        kind="openpgp" if entry.ssh is None else "ssh",
        fingerprint=fingerprint,
        principal=entry.principal,
        public=entry.ssh if entry.ssh is not None else (entry.openpgp or ""),
        signs="sign" in entry.may,
        approves="approve" in entry.may,
        valid_from=_midnight(entry.from_),
        valid_until=_midnight(entry.until),
        is_revoked=entry.revoked,
    )


def _midnight(day: str | None) -> int | None:
    from datetime import UTC, datetime

    return None if day is None else to_micros(datetime.fromisoformat(day).replace(tzinfo=UTC))


def check_successor(before: Trust, after: Trust) -> None:
    """GitSourceError unless `after` may follow `before` at all, whoever approves it (T3)."""
    if after.version <= before.version:
        text_ = f"the trust file changes and its version goes from {before.version} to {after.version}"
        raise GitSourceError("KS8122", text_)
    able = {key.principal for key in after.keys if key.approves and not key.is_revoked}
    if len(able) < after.approvals:
        text_ = f"the changed trust file needs {after.approvals} approvals and leaves {len(able)} approvers"
        raise GitSourceError("KS8123", text_)


def needed_approvals(before: Trust, after: Trust) -> int:
    """How many approvers of `before` the change needs: one where it only takes signing away from keys, else all N.

    A key that also approves keeps that: one approver must not reduce the number of the others.
    """
    new = {key.fingerprint: key for key in after.keys}
    old = {key.fingerprint: key for key in before.keys}
    if after.approvals != before.approvals or not new.keys() <= old.keys():
        return before.approvals
    return 1 if all(_is_ended_signer(key, new.get(name)) for name, key in old.items()) else before.approvals


def _is_ended_signer(before: TrustedKey, after: TrustedKey | None) -> bool:
    """Whether a key is the same, or may sign less and approve as before."""
    if after == before:
        return True
    if before.approves:
        return after == replace(before, signs=False)
    if after is None:
        return True
    ends = [until for until in (before.valid_until, after.valid_until) if until is not None]
    is_sooner = after.valid_until == (min(ends) if ends else None)
    restricted = replace(before, valid_until=after.valid_until, is_revoked=after.is_revoked or before.is_revoked)
    return is_sooner and after == restricted
