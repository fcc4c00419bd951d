"""Git repositories with real signatures: keys made by ssh-keygen and gpg once a session, commits made by git.

`SignedRepository` is the host of a source: it commits, merges and writes objects that git itself would not write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.applied_set import PolicyFile
from killswitch.source.git_poll import poll_git
from killswitch.source.git_request import GitLimits, GitPoll, GitPollRequest, GitSource, VerifiedState, advanced
from killswitch.source.git_verdicts import StatementCheck
from killswitch.source.trust import Trust, TrustedKey

NOW = int(time.time()) * 1_000_000
"""The runner's clock in these tests: that of the machine, by which git and gpg date what they make."""
DAY = 86_400_000_000
POLICY = "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: {name: desk}\nlimit: %s\n"
TIGHT, LOOSE = {"policies/desk.yaml": POLICY % "5%"}, {"policies/desk.yaml": POLICY % "9%"}


class SigningKey(Struct, frozen=True):
    """A key of one person: `kind` of the trust set, the private file or the gpg id, and the public text."""

    principal: str
    kind: str
    private: str
    public: str
    fingerprint: str
    home: str = ""


class KeyRing:
    """Keys by name, made when they are first used. Names that begin with `gpg-` are OpenPGP keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, SigningKey] = {}
        self.gpg_home = folder / "gnupg"

    def __getitem__(self, name: str) -> SigningKey:
        if name not in self._made:
            self._made[name] = self._openpgp(name) if name.startswith("gpg-") else self._ssh(name)
        return self._made[name]

    def gpg(self, *arguments: str, text: str = "") -> str:
        """Run gpg in the home of the keys."""
        self.gpg_home.mkdir(mode=0o700, exist_ok=True)
        command = ["gpg", "--homedir", str(self.gpg_home), "--batch", "--quiet", "--no-tty", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def close(self) -> None:
        """End the agent that gpg has started."""
        subprocess.run(["gpgconf", "--homedir", str(self.gpg_home), "--kill", "all"], check=False, capture_output=True)

    def _ssh(self, name: str) -> SigningKey:
        file = self._folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)]
        subprocess.run(command, check=True)
        listed = subprocess.run(["ssh-keygen", "-l", "-f", f"{file}.pub"], check=True, capture_output=True, text=True)
        public = Path(f"{file}.pub").read_text()
        return SigningKey(f"{name}@example.com", "ssh", str(file), public, listed.stdout.split()[1])

    def _openpgp(self, name: str, expires: str = "0") -> SigningKey:
        address = f"{name}@example.com"
        self.gpg("--passphrase", "", "--quick-gen-key", f"{name} <{address}>", "ed25519", "sign", expires)
        listed = self.gpg("--with-colons", "--list-keys", address)
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        return SigningKey(address, "openpgp", fingerprint, self.exported(fingerprint), fingerprint, str(self.gpg_home))

    def expiring(self, name: str, when: str) -> SigningKey:
        """An OpenPGP key that gpg ends after `when`, such as `seconds=5` or `1d`."""
        if name not in self._made:
            self._made[name] = self._openpgp(name, when)
        return self._made[name]

    def exported(self, fingerprint: str) -> str:
        """The armoured public key, as it is now."""
        return self.gpg("--armor", "--export", fingerprint)


def trusted(key: SigningKey, *, may: str = "sign", **more: object) -> TrustedKey:
    """The key in a trust set. `may`: `sign`, `approve` or both."""
    public = " ".join(key.public.split()[:2]) if key.kind == "ssh" else key.public
    plain = TrustedKey(
        kind="ssh" if key.kind == "ssh" else "openpgp", fingerprint=key.fingerprint, principal=key.principal,
        public=public, signs="sign" in may, approves="approve" in may,
    )  # fmt: skip
    return replace(plain, **more)


class SignedRepository:
    """A repository with a work tree, which a source polls by its folder."""

    def __init__(self, folder: Path, keys: KeyRing) -> None:
        self.folder = folder
        self._keys = keys
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "gc.auto", "0")

    def git(self, *arguments: str, text: str | bytes = b"", **environment: str) -> str:
        """Run git in the repository; its output without the last line end."""
        given = text.encode() if isinstance(text, str) else text
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, input=given, capture_output=True, check=False,
            env={**_GIT, **environment},
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout.decode().rstrip("\n")

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files, or remove those that are None, and stage all."""
        for path, content in files.items():
            file = self.folder / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--force")

    def commit(
        self, files: Mapping[str, str | bytes | None], by: str | None, message: str = "a change", **more: str
    ) -> str:
        """Commit files, signed with the key `by`; unsigned with None. `more`: variables such as GIT_AUTHOR_EMAIL."""
        self.write(files)
        self.git(*self.signing(by), "commit", "--quiet", "--allow-empty", "--message", message, **more)
        return self.head

    def merge(self, branch: str, by: str | None, **more: str) -> str:
        """Merge a branch into the present one, with a merge commit in any case."""
        self.git(*self.signing(by), "merge", "--quiet", "--no-ff", "--message", f"merge {branch}", branch, **more)
        return self.head

    def signing(self, by: str | None) -> tuple[str, ...]:
        """Options of git that make it sign with this key."""
        if by is None:
            return ("-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false")
        key = self._keys[by]
        more = ("-c", f"user.signingKey={key.private}", "-c", "commit.gpgSign=true", "-c", "tag.gpgSign=true")
        if key.kind == "ssh":
            return ("-c", "gpg.format=ssh", *more)
        program = self.folder.parent / "gpg-of-tests"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir "{key.home}" --batch "$@"\n')
        program.chmod(0o755)
        return ("-c", f"gpg.program={program}", *more)

    def raw(self, commit: str, kind: str = "commit") -> bytes:
        """The bytes of an object."""
        done = subprocess.run(
            ["git", "cat-file", kind, commit], cwd=self.folder, check=True, capture_output=True, env=_GIT
        )
        return done.stdout

    def write_object(self, content: bytes, kind: str = "commit") -> str:
        """Write an object of exactly these bytes, whether or not git would."""
        return self.git("hash-object", "-t", kind, "-w", "--stdin", "--literally", text=content)

    def signed_bytes(self, payload: bytes, by: str, namespace: str = "git") -> bytes:
        """The payload of a commit with a signature header of an SSH key."""
        signature = self.signature(payload, by, namespace)
        head, _, message = payload.partition(b"\n\n")
        folded = signature.strip().replace(b"\n", b"\n ")
        return head + b"\ngpgsig " + folded + b"\n\n" + message

    def signature(self, payload: bytes, by: str, namespace: str = "git") -> bytes:
        """An armoured signature of an SSH key over bytes."""
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", self._keys[by].private]
        return subprocess.run(command, input=payload, capture_output=True, check=True).stdout

    def commit_tree(self, tree: str, parents: Sequence[str], by: str, *, extra: bytes = b"", at: int = 0) -> str:
        """A signed commit of a tree, put on the branch. `extra`: further header lines. `at`: its date in seconds."""
        lines = [f"tree {tree}", *(f"parent {each}" for each in parents)]
        when = at or NOW // 1_000_000
        lines += [f"{role} Al <al@example.com> {when} +0000" for role in ("author", "committer")]
        payload = "\n".join(lines).encode() + extra + b"\n\na change\n"
        return self.put(self.write_object(self.signed_bytes(payload, by)))

    def put(self, commit: str, ref: str = "refs/heads/main") -> str:
        """Let a ref name an object, whatever it named before."""
        file = self.folder / ".git" / ref
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{commit}\n")
        return commit

    def reset(self, commit: str) -> None:
        """Go back to a commit, as a force push does."""
        self.git("checkout", "--quiet", "--force", "-B", "main", commit)
        self.git("clean", "-fdxq")


_GIT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Al",
    "GIT_AUTHOR_EMAIL": "al@example.com",
    "GIT_COMMITTER_NAME": "Al",
    "GIT_COMMITTER_EMAIL": "al@example.com",
    "LC_ALL": "C",
}


class Desk:
    """A source that is polled: its host, the keys, the trust set, and what the store keeps between polls."""

    def __init__(self, folder: Path, keys: KeyRing) -> None:
        self.keys = keys
        self.host = SignedRepository(folder / "host", keys)
        self.anchor = self.host.commit(TIGHT, None, "before the anchor")
        self.source = GitSource(
            name="desk", url=f"file://{self.host.folder}", ref="refs/heads/main", path="policies",
            folder=str(folder / "runner"), anchor=self.anchor, allow_file=True,
        )  # fmt: skip
        approvers = [trusted(keys[name], may="approve") for name in ("carol", "dan")]
        self.trust = Trust(version=1, approvals=2, keys=(trusted(keys["alice"]), trusted(keys["bob"]), *approvers))
        self.known = VerifiedState()
        self.now = NOW
        self.limits = GitLimits(fetch_seconds=30.0)
        self.statements: tuple[bytes, ...] = ()

    @property
    def request(self) -> GitPollRequest:
        """The next poll."""
        return GitPollRequest(
            source=self.source, trust=self.trust, known=self.known, now=self.now, limits=self.limits,
            statements=self.statements,
        )  # fmt: skip

    def poll(self, check: StatementCheck | None = None) -> GitPoll:
        """Poll once, and keep what the store would."""
        polled = poll_git(self.request) if check is None else poll_git(self.request, check)
        self.known = polled.known
        return polled

    def codes(self, check: StatementCheck | None = None) -> list[str]:
        """Poll once; the codes of the problems. There is no candidate with any."""
        answer = self.poll(check).answer
        assert answer.candidate is None or not answer.problems
        return [each.code for each in answer.problems]

    def proposed(self, check: StatementCheck | None = None) -> str | None:
        """Poll once; the commit that is proposed."""
        answer = self.poll(check).answer
        assert not answer.problems, answer.problems
        return None if answer.candidate is None else answer.candidate.commit

    def apply(self, check: StatementCheck | None = None) -> str:
        """Poll once and put the candidate in force; its commit."""
        answer = self.poll(check).answer
        assert answer.candidate is not None, answer
        assert answer.candidate.commit is not None
        self.known = advanced(self.known, answer.candidate, self.trust.version)
        return answer.candidate.commit

    def merge_side(self) -> list[str]:
        """Commit on the branch `side`, merge it into `main`, and return both commits, oldest first."""
        self.host.git("checkout", "--quiet", "side")
        side = self.host.commit({"policies/side.yaml": "a: 1\n"}, "bob")
        self.host.git("checkout", "--quiet", "main")
        return [side, self.host.merge("side", "alice")]

    def proposed_commits(self) -> list[str]:
        """Poll once; the commits of all steps of the candidate, in order."""
        candidate = self.poll().answer.candidate
        assert candidate is not None
        return [each.id for step in candidate.steps for each in step.commits]

    def start_afresh(self) -> None:
        """Forget the clone, as a runner on another machine does; the store is the same."""
        shutil.rmtree(self.source.folder)


def texts(files: Sequence[PolicyFile]) -> dict[str, str]:
    """Path → content."""
    return {each.path: each.content.decode() for each in files}
