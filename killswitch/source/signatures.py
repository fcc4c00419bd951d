"""Who signed a commit, a tag or a statement: signatures of SSH and OpenPGP, judged by the runner's clock.

The key is looked up in the trust set first, by its fingerprint; only then `ssh-keygen` or `gpg` is started, with that
key alone, so that no option of a file, no principal and no keyring of anybody else decides. What these programs say of
time is used in one way only: a key of OpenPGP that has ended or was revoked is refused whatever the trust set says.
"""

from __future__ import annotations

import binascii
import os
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha1, sha256
from pathlib import Path
from threading import Lock
from typing import Final

from killswitch.model.instant import SECOND
from killswitch.source.git_command import PATH
from killswitch.source.git_problems import GitSourceError, printable
from killswitch.source.trust import Trust, TrustedKey

SSH_KINDS: Final = frozenset(
    {
        "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
        "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)  # fmt: skip
"""Kinds of SSH keys that may sign. Certificates are not among them: they would let an authority name principals."""

_SSH: Final = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n*")
_PGP: Final = re.compile(
    rb"-----BEGIN PGP (SIGNATURE|PUBLIC KEY BLOCK)-----\r?\n(?:[A-Za-z]+: [^\n]*\r?\n)*\r?\n"
    rb"([A-Za-z0-9+/=\r\n]+?)\r?\n=([A-Za-z0-9+/]{4})\r?\n-----END PGP \1-----\s*"
)
_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_WEAK_HASHES: Final = frozenset({"1", "2", "3"})
"""MD5, SHA-1 and RIPEMD-160, by their numbers in RFC 4880, section 9.4."""
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "REVKEYSIG": ("KS8109", "was revoked by its owner"),
    "EXPKEYSIG": ("KS8107", "has expired"),
    "EXPSIG": ("KS8115", "made a signature that has expired"),
}
"""Status lines of gpg that refuse a signature whatever else it reports."""
_SECONDS: Final = 20.0


class SignatureError(ValueError):
    """A text that is no signature or no public key; the message says why."""


class SignatureVerifier:
    """Verifies signatures over bytes. `home`: an own folder, empty but for what this class writes.

    One instance is one poll: it remembers which keys `gpg` has imported. Several threads may use it. `now`: the clock
    of the runner, in microseconds. `path`: the folders of `ssh-keygen` and `gpg`, as in the variable PATH.
    """

    def __init__(self, home: Path, now: int, path: str = PATH) -> None:
        self._home = home
        self._now = now
        self._path = path
        self._gpg_homes: set[Path] = set()
        self._is_importing = Lock()

    def verify(self, signature: bytes, payload: bytes, trust: Trust, namespace: str = "git") -> TrustedKey:
        """The key of the trust set that signed exactly `payload`. Neither its role nor its time is judged here.

        GitSourceError: KS8102 another key, KS8103 another kind, KS8104 not of these bytes, KS8105 another namespace,
        KS8107 and KS8109 an OpenPGP key that ended or was revoked, KS8115 a signature that ended.
        """
        if signature.startswith(b"-----BEGIN SSH SIGNATURE-----"):
            return self._ssh(signature, payload, trust, namespace)
        if signature.startswith(b"-----BEGIN PGP SIGNATURE-----"):
            return self._openpgp(signature, payload, trust)
        found = _BEGIN.match(signature)
        kind = "X.509" if found and found[1] == b"SIGNED MESSAGE" else printable(repr(signature[:40]), 60)
        raise GitSourceError("KS8103", f"the signature is of another kind: {kind}")

    def _ssh(self, signature: bytes, payload: bytes, trust: Trust, namespace: str) -> TrustedKey:
        try:
            public, signed_in = ssh_signature_parts(signature)
        except SignatureError as error:
            raise GitSourceError("KS8104", f"the signature cannot be read: {error}") from None
        fingerprint = ssh_fingerprint(public)
        key = _key(trust, "ssh", fingerprint)
        if key is None:
            raise GitSourceError("KS8102", f"the SSH key {fingerprint} is not in the trust set")
        if signed_in != namespace:
            text = f"{key.principal} signed in the namespace `{printable(signed_in, 60)}`, not in `{namespace}`"
            raise GitSourceError("KS8105", text, principal=key.principal)
        kind, _, encoded = key.public.partition(" ")
        allowed = f'signer namespaces="{namespace}" {kind} {encoded.split(" ")[0]}\n'.encode()
        with _InMemory(allowed) as signers, _InMemory(signature) as armoured:
            arguments = ["-Y", "verify", "-f", signers.path, "-I", "signer", "-n", namespace, "-s", armoured.path]
            done = self._run("ssh-keygen", arguments, payload, (signers.descriptor, armoured.descriptor))
        if done.returncode != 0 or b"Good " not in done.stdout:
            if b"No user exists" in done.stderr:
                raise GitSourceError("KS8001", f"ssh-keygen cannot run: {_first_line(done.stderr)}")
            text = f"the signature with the key of {key.principal} is not of these bytes"
            raise GitSourceError("KS8104", text, principal=key.principal)
        return key

    def _openpgp(self, signature: bytes, payload: bytes, trust: Trust) -> TrustedKey:
        keys = tuple(key for key in trust.keys if key.kind == "openpgp")
        if not keys:
            raise GitSourceError("KS8102", "it is signed with OpenPGP, and the trust set has no such key")
        home = self._gpg_home(keys)
        with _InMemory(signature) as armoured:
            done = self._gpg(home, ["--verify", armoured.path, "-"], payload, (armoured.descriptor,))
        lines = done.stdout.decode(errors="replace").splitlines()
        words = [line.removeprefix("[GNUPG:] ").split(" ") for line in lines if line.startswith("[GNUPG:] ")]
        unknown = [line[1] for line in words if line[0] == "NO_PUBKEY" and len(line) > 1]
        if unknown:
            raise GitSourceError("KS8102", f"the OpenPGP key {printable(unknown[0], 40)} is not in the trust set")
        return self._judge_status(words, keys)

    def _judge_status(self, words: list[list[str]], keys: tuple[TrustedKey, ...]) -> TrustedKey:
        """The key of the one valid signature that gpg reports, if it reports nothing that takes it back."""
        valid = [line for line in words if line[0] == "VALIDSIG"]
        primary = valid[0][10].upper() if len(valid) == 1 and len(valid[0]) > 10 else ""
        key = next((each for each in keys if each.fingerprint == primary), None)
        who = None if key is None else key.principal
        for line in words:
            if line[0] in _REFUSED:
                code, what = _REFUSED[line[0]]
                raise GitSourceError(code, f"the OpenPGP key of {who or 'a signer'} {what}", principal=who)
        good = [line for line in words if line[0] == "GOODSIG"]
        others = [line for line in words if line[0] in ("BADSIG", "ERRSIG", "PLAINTEXT", "FAILURE", "NODATA")]
        if key is None or len(good) != 1 or others or valid[0][9] not in ("00", "01"):
            text = f"the signature with the OpenPGP key of {who or 'a signer'} is not of these bytes"
            raise GitSourceError("KS8104", text, principal=who)
        if valid[0][8] in _WEAK_HASHES:
            text = f"the signature with the OpenPGP key of {who} uses a hash that can be forged"
            raise GitSourceError("KS8104", text, principal=who)
        return key

    def _gpg_home(self, keys: tuple[TrustedKey, ...]) -> Path:
        """A home of gpg whose keyring holds these keys alone."""
        content = b"".join(each.public.strip().encode() + b"\n" for each in keys)
        home = self._home / f"gpg-{sha256(content).hexdigest()[:32]}"
        with self._is_importing:
            if home not in self._gpg_homes:
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir(mode=0o700)
                self._gpg(home, ["--import"], content, ())
                self._gpg_homes.add(home)
        return home

    def _gpg(
        self, home: Path, arguments: list[str], stdin: bytes, descriptors: tuple[int, ...]
    ) -> subprocess.CompletedProcess[bytes]:
        options = [
            f"--homedir={home}", "--batch", "--no-tty", "--no-options", "--no-autostart", "--trust-model=always",
            "--no-auto-check-trustdb", "--lock-never", "--no-auto-key-retrieve", "--no-auto-key-locate",
            "--disable-dirmngr", "--ignore-time-conflict", "--ignore-valid-from", "--quiet", "--status-fd=1",
            f"--faked-system-time={self._now // SECOND}!",
        ]  # fmt: skip
        return self._run("gpg", [*options, *arguments], stdin, descriptors)

    def _run(
        self, program: str, arguments: list[str], stdin: bytes, descriptors: tuple[int, ...]
    ) -> subprocess.CompletedProcess[bytes]:
        home = str(self._home)
        environment = {"PATH": self._path, "HOME": home, "XDG_CONFIG_HOME": home, "LC_ALL": "C", "TZ": "UTC"}
        try:
            return subprocess.run(  # a list of arguments, no shell
                [program, *arguments], input=stdin, capture_output=True, env=environment, pass_fds=descriptors,
                timeout=_SECONDS, check=False, cwd=home,
            )  # fmt: skip
        except FileNotFoundError:
            raise GitSourceError("KS8001", f"{program} cannot be started from {self._path}") from None
        except subprocess.TimeoutExpired:
            raise GitSourceError("KS8008", f"{program} did not end within {_SECONDS:g} s") from None


class _InMemory:
    """Bytes as a file without a name on any disk."""

    def __init__(self, content: bytes) -> None:
        self.descriptor = os.memfd_create("signature", os.MFD_CLOEXEC)
        os.write(self.descriptor, content)
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    @property
    def path(self) -> str:
        """Its path in a process that inherits the descriptor."""
        return f"/proc/self/fd/{self.descriptor}"

    def __enter__(self) -> _InMemory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def check_key(key: TrustedKey, seen: int) -> None:
    """GitSourceError unless the key signed for somebody who may, at `seen`, in microseconds of the runner (T5)."""
    who = key.principal
    if key.is_revoked:
        raise GitSourceError("KS8109", f"the key {key.fingerprint} of {who} is revoked", principal=who)
    if not key.signs:
        raise GitSourceError("KS8106", f"the key {key.fingerprint} of {who} may not sign", principal=who)
    if key.valid_from is not None and seen < key.valid_from:
        raise GitSourceError("KS8108", f"the key {key.fingerprint} of {who} is not valid yet", principal=who)
    if key.valid_until is not None and seen >= key.valid_until:
        raise GitSourceError("KS8107", f"the key {key.fingerprint} of {who} has ended", principal=who)


def ssh_signature_parts(armoured: bytes) -> tuple[bytes, str]:
    """The public key and the namespace of an armoured SSH signature (PROTOCOL.sshsig). SignatureError if it is none."""
    found = _SSH.fullmatch(armoured)
    if found is None:
        raise SignatureError("it is not one armoured text")
    try:
        blob = b64decode(found[1].replace(b"\n", b""), validate=True)
    except binascii.Error:
        raise SignatureError("its Base64 is damaged") from None
    if blob[:10] != b"SSHSIG\0\0\0\1":
        raise SignatureError("it is of another version")
    public, rest = _field(blob[10:])
    namespace, rest = _field(rest)
    _, rest = _field(rest)
    hashed, rest = _field(rest)
    _, rest = _field(rest)
    if rest or hashed not in (b"sha256", b"sha512"):
        raise SignatureError("it has another form")
    return public, namespace.decode(errors="replace")


def _field(blob: bytes) -> tuple[bytes, bytes]:
    """A text of the SSH wire format, and what follows it."""
    size = int.from_bytes(blob[:4])
    if len(blob) < 4 + size:
        raise SignatureError("it is cut off")
    return blob[4 : 4 + size], blob[4 + size :]


def ssh_fingerprint(public: bytes) -> str:
    """`SHA256:…` of the bytes of a public key, as `ssh-keygen -l` shows it."""
    return "SHA256:" + b64encode(sha256(public).digest()).decode().rstrip("=")


def ssh_public_key(line: str) -> tuple[str, str]:
    """The key line without its comment, and the fingerprint. SignatureError for anything but one plain public key."""
    parts = line.split()
    if len(parts) < 2 or parts[0] not in SSH_KINDS:
        raise SignatureError(f"an SSH key begins with its kind, one of {', '.join(sorted(SSH_KINDS))}")
    try:
        blob = b64decode(parts[1], validate=True)
        kind, _ = _field(blob)
    except (binascii.Error, SignatureError):
        raise SignatureError("the Base64 of the SSH key is damaged") from None
    if kind.decode(errors="replace") != parts[0]:
        raise SignatureError("the SSH key is of another kind than its line begins with")
    return f"{parts[0]} {parts[1]}", ssh_fingerprint(blob)


def openpgp_fingerprint(armoured: str) -> str:
    """The fingerprint of the primary key of an armoured public key (RFC 4880, section 12.2), in capital letters.

    SignatureError for a secret key, for several keys, and for any version but 4.
    """
    found = _PGP.fullmatch(armoured.strip().encode() + b"\n")
    if found is None or found[1] != b"PUBLIC KEY BLOCK":
        raise SignatureError("it is not one armoured public key, as `gpg --armor --export ID` writes it")
    try:
        rest = b64decode(found[2].replace(b"\r", b"").replace(b"\n", b""), validate=True)
    except binascii.Error:
        raise SignatureError("its Base64 is damaged") from None
    primary: list[bytes] = []
    while rest:
        tag, body, rest = _packet(rest)
        if tag in (5, 7):
            raise SignatureError("it is a secret key: export the public one, and end the use of this one")
        if tag == 6:
            primary.append(body)
    if len(primary) != 1:
        raise SignatureError(f"it holds {len(primary)} keys; write one under each principal")
    if primary[0][:1] != b"\4" or len(primary[0]) > 0xFFFF:
        raise SignatureError("it is not a key of version 4")
    return sha1(b"\x99" + len(primary[0]).to_bytes(2) + primary[0], usedforsecurity=False).hexdigest().upper()


def _packet(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, body and what follows of an OpenPGP packet (RFC 4880, section 4.2)."""
    head = data[0]
    if head & 0xC0 == 0xC0:
        tag, first = head & 0x3F, data[1] if len(data) > 1 else 255
        if first < 192:
            start, size = 2, first
        elif first < 224 and len(data) > 2:
            start, size = 3, ((first - 192) << 8) + data[2] + 192
        elif first == 255 and len(data) > 5:
            start, size = 6, int.from_bytes(data[2:6])
        else:
            raise SignatureError("a packet of the key has a length that keys do not have")
    elif head & 0x80 and head & 3 != 3:
        tag, width = (head >> 2) & 0xF, 1 << (head & 3)
        start, size = 1 + width, int.from_bytes(data[1 : 1 + width])
    else:
        raise SignatureError("it does not consist of packets")
    if len(data) < start + size:
        raise SignatureError("it is cut off")
    return tag, data[start : start + size], data[start + size :]


def _key(trust: Trust, kind: str, fingerprint: str) -> TrustedKey | None:
    return next((key for key in trust.keys if key.kind == kind and key.fingerprint == fingerprint), None)


def _first_line(text: bytes) -> str:
    return printable(text.decode(errors="replace").split("\n", 1)[0], 120)
