"""Verification of signed statements: by ssh-keygen and gpg in folders of their own, and by the keys of the trust set.

The tools decide only whether the bytes were signed by one given key. Which key counts, for what and when is decided
here, by the trust set and the runner's clock (T5); who signed is the principal of the key (T7).
"""

from __future__ import annotations

import os
import re
import subprocess
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from msgspec import Struct

from killswitch.model.instant import HOUR, from_micros, rfc3339
from killswitch.source.statements import (
    LONGEST,
    NAMESPACE,
    SIGNED_BY_SIGNERS,
    SignedStatement,
    Statement,
    StatementError,
    read_approval,
)
from killswitch.source.trust import Trust, TrustedKey

TIME_LIMIT = 20.0
"""Seconds of one call of ssh-keygen or gpg."""
MOST = 200
"""How many statements of one change are looked at; further ones do not count."""
AHEAD = HOUR
"""How far the time in a statement may be ahead of the runner's clock."""
_SSH_KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/=]+)(?: [^\r\n]*)?")


class VerifiedStatement(Struct, frozen=True):
    """A statement whose signature is valid now. `principal` and `key`: of the key in the trust set."""

    statement: Statement
    id: str
    principal: str
    key: str


class StatementProblem(Struct, frozen=True):
    """Why a statement does not count: a code with a page (`ksctl explain`), and a sentence."""

    code: str
    text: str

    @property
    def line(self) -> str:
        """The sentence with its code."""
        return f"{self.text} ({self.code})"


class _RefusedError(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.problem = StatementProblem(code, text)


def verify_all(
    contents: Iterable[bytes], trust: Trust, now: int
) -> tuple[tuple[VerifiedStatement, ...], tuple[StatementProblem, ...]]:
    """The statements of files of approvals that are valid at `now` (microseconds), and why others are not."""
    verified: dict[str, VerifiedStatement] = {}
    problems: list[StatementProblem] = []
    for number, content in enumerate(dict.fromkeys(contents)):
        if number >= MOST:
            problems.append(StatementProblem("KS8301", f"statements after the first {MOST} are not looked at"))
            break
        try:
            found = verify_statement(read_approval(content), trust, now)
        except StatementError as error:
            found = StatementProblem("KS8301", f"a file is no statement: {error}")
        if isinstance(found, VerifiedStatement):
            verified.setdefault(found.id, found)
        else:
            problems.append(found)
    return tuple(verified.values()), tuple(dict.fromkeys(problems))


def verify_statement(found: SignedStatement, trust: Trust, now: int) -> VerifiedStatement | StatementProblem:
    """The statement with its principal, if its key is trusted for its purpose and signed exactly these bytes.

    The time and the key are checked before any program is started.
    """
    try:
        key = _trusted_key(found.statement, trust, now)
        _require_time(found.statement, key, now)
        if key.kind == "ssh":
            _verify_ssh(found, key)
        else:
            _verify_openpgp(found, key)
    except _RefusedError as refused:
        return refused.problem
    return VerifiedStatement(found.statement, found.id, key.principal, key.fingerprint)


def _trusted_key(statement: Statement, trust: Trust, now: int) -> TrustedKey:
    """The key of the trust set that the statement names, if it may sign this purpose now."""
    key = next((each for each in trust.keys if each.fingerprint.upper() == statement.key.upper()), None)
    if key is None:
        raise _RefusedError("KS8303", f"the key {statement.key} is not in the trust set")
    if key.kind == "ssh" and key.fingerprint != statement.key:  # the digits of OpenPGP have no case, base64 has
        raise _RefusedError("KS8303", f"the key {statement.key} is not in the trust set")
    whose = f"the key of {key.principal}"
    if not (key.signs if statement.purpose in SIGNED_BY_SIGNERS else key.approves):
        role = "sign" if statement.purpose in SIGNED_BY_SIGNERS else "approve"
        raise _RefusedError("KS8305", f"{whose} may not {role} by the trust set, which `{statement.purpose}` needs")
    if key.is_revoked:
        raise _RefusedError("KS8304", f"{whose} is revoked")
    if key.valid_from is not None and now < key.valid_from:
        raise _RefusedError("KS8304", f"{whose} is valid only from {_time(key.valid_from)}")
    if key.valid_until is not None and now >= key.valid_until:
        raise _RefusedError("KS8304", f"{whose} ended at {_time(key.valid_until)}")
    return key


def _require_time(statement: Statement, key: TrustedKey, now: int) -> None:
    whose = f"the approval of {key.principal}"
    if now >= statement.expires:
        raise _RefusedError("KS8306", f"{whose} expired at {_time(statement.expires)}")
    if statement.given > now + AHEAD:
        raise _RefusedError("KS8307", f"{whose} is dated {_time(statement.given)}, ahead of the runner's clock")
    if statement.purpose != "manifest" and statement.expires - statement.given > LONGEST:
        raise _RefusedError("KS8307", f"{whose} expires more than 14 days after it was given")


def _time(micros: int) -> str:
    return rfc3339(from_micros(micros))


def _verify_ssh(found: SignedStatement, key: TrustedKey) -> None:
    """Verify with ssh-keygen and a list of this one key, whose name in it is a word of ours, not a pattern."""
    whose = f"the approval of {key.principal}"
    parts = _SSH_KEY.fullmatch(key.public.strip())
    if parts is None or "-cert-" in parts[1]:
        raise _RefusedError("KS8303", f"the public key of {key.principal} in the trust set is no SSH key")
    namespace = _namespace(found.signature, whose)
    if namespace != NAMESPACE:
        raise _RefusedError("KS8302", f"{whose} is signed in another namespace than {NAMESPACE}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "allowed").write_text(f'approver namespaces="{NAMESPACE}" {parts[1]} {parts[2]}\n')
        (folder / "signature").write_bytes(found.signature)
        command = [
            "ssh-keygen", "-Y", "verify", "-f", str(folder / "allowed"), "-I", "approver", "-n", NAMESPACE,
            "-s", str(folder / "signature"),
        ]  # fmt: skip
        if _run(command, folder, found.signed).returncode != 0:
            raise _RefusedError("KS8302", f"the signature of {whose} is not of this text by the key that it names")


def _namespace(armoured: bytes, whose: str) -> str:
    """The namespace in an SSH signature: magic, version, public key, namespace, … (PROTOCOL.sshsig of OpenSSH)."""
    lines = armoured.strip().splitlines()
    if lines[0].strip() != b"-----BEGIN SSH SIGNATURE-----":
        _not_readable(whose)
    try:
        raw = b64decode(b"".join(line.strip() for line in lines[1:-1]), validate=True)
    except (Base64Error, ValueError):
        _not_readable(whose)
    if raw[:6] != b"SSHSIG" or raw[6:10] != b"\0\0\0\1":
        _not_readable(whose)
    place, texts = 10, []
    for _ in range(2):
        length = int.from_bytes(raw[place : place + 4], "big")
        texts.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    return texts[1].decode(errors="replace")


def _not_readable(whose: str) -> NoReturn:
    raise _RefusedError("KS8302", f"{whose} has no readable signature of its kind of key")


def _verify_openpgp(found: SignedStatement, key: TrustedKey) -> None:
    """Verify with gpg and a keyring of this one key; its status lines decide, never its exit status alone."""
    whose = f"the approval of {key.principal}"
    if not found.signature.startswith(b"-----BEGIN PGP SIGNATURE-----"):
        _not_readable(whose)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key.asc").write_text(key.public)
        (folder / "signature.asc").write_bytes(found.signature)
        (folder / "statement").write_bytes(found.signed)
        gpg = ["gpg", "--batch", "--no-tty", "--no-options", "--homedir", str(folder), "--status-fd", "1"]
        _run([*gpg, "--import", str(folder / "key.asc")], folder, b"")
        done = _run([*gpg, "--verify", str(folder / "signature.asc"), str(folder / "statement")], folder, b"")
    status = [line.split()[1:] for line in done.stdout.decode(errors="replace").splitlines() if line[:9] == "[GNUPG:] "]
    words = {each[0] for each in status if each}
    valid = [each for each in status if each and each[0] == "VALIDSIG"]
    ended = {"EXPKEYSIG": "expired", "REVKEYSIG": "was revoked"}
    for word, why in ended.items():
        if word in words:
            raise _RefusedError("KS8304", f"the key of {key.principal} {why}, as its owner has published")
    if done.returncode != 0 or len(valid) != 1 or not {"GOODSIG"} <= words or words & {"EXPSIG", "BADSIG", "ERRSIG"}:
        raise _RefusedError("KS8302", f"the signature of {whose} is not of this text by the key that it names")
    if key.fingerprint.upper() not in (valid[0][1].upper(), valid[0][-1].upper()):
        raise _RefusedError("KS8302", f"{whose} is signed by another key than it names")


def _run(command: Sequence[str], folder: Path, text: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a tool with an environment from nothing. _RefusedError if it is missing or does not answer."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "GNUPGHOME": str(folder), "LC_ALL": "C",
        "TZ": "UTC",
    }  # fmt: skip
    try:
        return subprocess.run(
            command, input=text, capture_output=True, env=environment, cwd=folder, timeout=TIME_LIMIT, check=False
        )
    except FileNotFoundError:
        raise _RefusedError("KS8315", f"{command[0]} is not installed, so that no statement can be verified") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise _RefusedError("KS8315", f"{command[0]} does not answer: {type(error).__name__}") from None
