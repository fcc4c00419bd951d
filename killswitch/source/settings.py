"""The document `PolicySource`: where a runner takes its policies from, and what it demands of them.

It is a file of the runner's own, named by `ksctl run --source`, and refused inside a policy folder: a set must not
decide where the next set comes from, nor whether its loosening waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import StrictBool

from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors
from killswitch.policy.loader import load
from killswitch.policy.schema.cross_key_checks import Breach, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import Duration, DurationOrZero, Text, pattern_json, quoted
from killswitch.policy.yaml.files import about_file
from killswitch.source.candidate import SourceKind
from killswitch.source.polling import POLL, GitSettings, SourceSettings

KIND: Final = "PolicySource"
_PLACES: Final = ("git", "directory", "config_map")
_COMMIT: Final = r"[0-9a-f]{40}"
_REF: Final = r"refs/(?:heads|tags)/[A-Za-z0-9][A-Za-z0-9._/+-]*"
_URL: Final = (
    r"(?:https|ssh)://[^\s@/?#:]+(?::[0-9]+)?/\S+|ssh://[A-Za-z0-9._-]+@[^\s@/?#:]+(?::[0-9]+)?/\S+|file:///\S+"
)
_NO_REF: Final = re.compile(r"\.\.|//|/\.|\.lock(?:/|$)|[./]$|[^\x21-\x7e]")


def repository_url(value: object) -> str:
    """The address of a repository: https, ssh or file, without a password. No message repeats it."""
    if isinstance(value, str) and re.fullmatch(_URL, value) and value.isprintable():
        return value
    has_login = isinstance(value, str) and "@" in value.split("//", 1)[-1].split("/", 1)[0]
    if has_login:
        fix = "take user and password out of it, and name a file that holds them under `credentials`"
        raise MistakeError("KS8203", "the address of a repository must not carry a password", fix)
    fix = "write it as https://HOST/PATH or ssh://USER@HOST/PATH; file:///PATH needs `allow_file: true`"
    raise MistakeError("KS8203", "this is not the address of a repository", fix)


def full_ref(value: object) -> str:
    """The full name of a branch or a tag, or a commit id."""
    if isinstance(value, str) and re.fullmatch(f"{_COMMIT}|{_REF}", value) and not _NO_REF.search(value):
        return value
    fix = "write it in full, such as refs/heads/main, refs/tags/v1, or a commit id of 40 hexadecimal digits"
    raise MistakeError("KS8204", f"{quoted(value)} is not the full name of a ref", fix)


def commit_id(value: object) -> str:
    """40 hexadecimal digits."""
    if isinstance(value, str) and re.fullmatch(_COMMIT, value):
        return value
    fix = "write all 40 hexadecimal digits, in quotes, as `git rev-parse HEAD` prints them"
    raise MistakeError("KS8205", f"{quoted(value)} is not a commit id", fix)


def repository_path(value: object) -> str:
    """A path inside a repository, relative, without `.` and `..`."""
    parts = value.split("/") if isinstance(value, str) else [""]
    is_inside = all(part not in ("", ".", "..", ".git") for part in parts)
    if isinstance(value, str) and is_inside and value.isprintable() and not value.startswith("-"):
        return value
    fix = "write it relative to the root of the repository, such as policies/desk"
    raise MistakeError("KS8206", f"{quoted(value)} is not a path inside a repository", fix)


RepositoryUrl = Annotated[
    str, Scalar(repository_url, pattern_json(_URL, "https://git.example.com/desk/policies.git"), is_confidential=True)
]
FullRef = Annotated[str, Scalar(full_ref, pattern_json(f"{_REF}|{_COMMIT}", "refs/heads/main"))]
CommitId = Annotated[str, Scalar(commit_id, pattern_json(_COMMIT))]
RepositoryPath = Annotated[str, Scalar(repository_path, {"type": "string", "examples": ["policies"]})]


class SecretFile(Part):
    """A secret that is read from a file each time it is used, and appears in no argument, log or message."""

    file: Text
    """The path of the file, relative to this document."""


class GitPlace(Part):
    """A git repository. Its commits must be signed by keys of `trust`, from `anchor` on."""

    url: RepositoryUrl
    """Its address: https or ssh."""
    ref: FullRef
    """The full name of the branch or tag that is followed, or a commit id."""
    path: RepositoryPath
    """The folder of policies in the repository."""
    anchor: CommitId | None = None
    """The commit from which on all commits must be signed. Needed where the store has no set in force yet."""
    credentials: SecretFile | None = None
    """User and password for https, as `user:password` in a file. Left out: none."""
    ssh_key: SecretFile | None = None
    """The private key for ssh. Left out: none."""
    known_hosts: Text | None = None
    """The file with the keys of ssh hosts. Left out: no ssh host is accepted."""
    trust: RepositoryPath | None = None
    """The file in the repository with later trust. Left out: trust changes with the configuration alone."""
    approvals: RepositoryPath | None = None
    """The folder in the repository with signed statements, outside of `path`. Left out: none are read there."""
    allow_file: StrictBool = False
    """Whether `url` may be a folder of this machine (file:///…). Left out: no."""


class FolderPlace(Part):
    """A folder of this machine."""

    path: Text
    """The folder, relative to this document."""
    require: Literal["signed"] | None = None
    """`signed`: a signed manifest must state the digest of the folder. Left out: a loosening is not protected."""


class Loosening(Part):
    """What delays a change that is not proved a tightening or equivalent."""

    after: DurationOrZero
    """How long it waits once it is approved, in time of the runner, which counts on after a restart."""


class ShadowTimes(Part):
    """How long sets are evaluated in shadow, without any effect."""

    before: DurationOrZero = 0
    """How long a set is in shadow before it is taken. Left out: not at all."""
    after: DurationOrZero = 0
    """How long the set before stays in shadow. Left out: not at all."""


class PolicySourceSpec(Part):
    """Exactly one of `git`, `directory` and `config_map`, and what is demanded of it."""

    git: GitPlace | None = None
    """A git repository."""
    directory: FolderPlace | None = None
    """A folder that is written to; it is read when two readings agree."""
    config_map: FolderPlace | None = None
    """The mount of a ConfigMap, which is switched by its link `..data`."""
    trust: Text | None = None
    """The file with the keys that may sign and approve, relative to this document."""
    poll: Duration = POLL
    """The time between two polls. Left out: 30s."""
    stale_after: Duration | None = None
    """After how long without a successful answer health is degraded. Left out: never."""
    frozen_after: Duration | None = None
    """At which age of the newest commit health is degraded: a host that withholds commits answers as ever. Left out:
    at none."""
    loosening: Loosening | None = None
    """The delay of a loosening. Left out: none."""
    shadow: ShadowTimes | None = None
    """Times in shadow. Left out: none."""


class PolicySourceDocument(VersionedPart):
    """Where a runner takes its policies from. It belongs to the runner, and is refused inside a policy folder."""

    kind: Literal["PolicySource"]
    spec: PolicySourceSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """One place; trust where something must be signed; a file only where it is allowed."""
        spec = spec_of(written)
        places = [place for place in _PLACES if place in spec]
        if len(places) != 1:
            found = "no source" if not places else " and ".join(f"`{place}`" for place in places)
            message = f"it names {found}, and one is needed"
            yield Breach("KS8201", ("spec", *places[1:2]), message, "write one of `git`, `directory`, `config_map`")
        for place in places:
            needs = place == "git" or mapping(spec[place]).get("require") == "signed"
            if needs and "trust" not in spec:
                message = "nothing says whose signatures count"
                yield Breach("KS8207", ("spec", place), message, "add `trust: FILE` with the keys")
        git = mapping(spec.get("git"))
        if str(git.get("url")).startswith("file:") and git.get("allow_file") is not True:
            message = "a folder of this machine is no repository unless that is declared"
            yield Breach("KS8203", ("spec", "git", "url"), message, "add `allow_file: true`")
        below = f"{git.get('path')}/"
        if "approvals" in git and f"{git['approvals']}/".startswith(below):
            message = "statements about the folder of policies would change its digest"
            yield Breach("KS8206", ("spec", "git", "approvals"), message, "name a folder outside of `path`")
        if "frozen_after" in spec and places and "git" not in places:
            message = "only a commit has an age"
            yield Breach("KS8208", ("spec", "frozen_after"), message, "remove it, or declare `stale_after`")


class SourceFileError(Exception):
    """A source file with mistakes; `diagnostics` has the place, the cause and the fix of each."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(f"the source file has mistakes: {diagnostics[0].message}")
        self.diagnostics = diagnostics


def read_settings(file: Path) -> SourceSettings:
    """Read a source file. SourceFileError with all its mistakes.

    The files that it names are not read here: a secret is read when it is used, and trust when it is judged by it.
    """
    loaded = load([file], kinds={KIND: PolicySourceDocument})
    if has_errors(loaded.diagnostics):
        raise SourceFileError(loaded.diagnostics)
    if len(loaded.documents) != 1:
        many = f"holds {len(loaded.documents)} documents"
        raise SourceFileError((about_file("KS8209", file, many, "write one PolicySource in a file of its own"),))
    model = loaded.documents[0].model
    assert isinstance(model, PolicySourceDocument)
    return _settings(model, file.absolute())


def _settings(document: PolicySourceDocument, file: Path) -> SourceSettings:
    spec, below = document.spec, file.parent
    place = spec.directory or spec.config_map
    kind: SourceKind = "git" if spec.git is not None else "directory" if spec.directory is not None else "config_map"
    return SourceSettings(
        name=document.metadata.name,
        kind=kind,
        file=file,
        git=None if spec.git is None else _git(spec.git, below),
        folder=None if place is None else below / place.path,
        is_signed=spec.git is not None or (place is not None and place.require == "signed"),
        trust=None if spec.trust is None else below / spec.trust,
        poll=spec.poll,
        stale_after=spec.stale_after,
        frozen_after=spec.frozen_after,
        loosening_after=0 if spec.loosening is None else spec.loosening.after,
        shadow_before=0 if spec.shadow is None else spec.shadow.before,
        shadow_after=0 if spec.shadow is None else spec.shadow.after,
    )


def _git(place: GitPlace, below: Path) -> GitSettings:
    return GitSettings(
        url=place.url,
        ref=place.ref,
        path=place.path,
        anchor=place.anchor,
        credentials=None if place.credentials is None else below / place.credentials.file,
        ssh_key=None if place.ssh_key is None else below / place.ssh_key.file,
        known_hosts=None if place.known_hosts is None else below / place.known_hosts,
        trust_path=place.trust,
        approvals_path=place.approvals,
        allow_file=place.allow_file,
    )
