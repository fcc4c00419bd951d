"""What can be wrong with a git source: a code for each cause, with its fix and whether it pages.

Everything that leaves this package as text comes from here: without control characters, shortened, and without the
content of any secret file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from killswitch.source.candidate import SourceProblem

LONGEST: Final = 400
"""Characters of a text that comes from git, a commit or a host."""

_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that are shown as nothing, or that change what a reader sees of the others."""
_USERINFO: Final = re.compile(r"(://)[^/\s@]*@")

_READING: Final[Mapping[str, str]] = {
    "KS8001": "install git 2.38 or newer, ssh-keygen of OpenSSH 8.2 or newer, and gpg for OpenPGP keys",
    "KS8002": "write an https or ssh address without password, a full ref, and paths inside the repository",
    "KS8003": "check the address, the network and the host; the poll is repeated",
    "KS8004": "name a file with `user:token` under `credentials`, or an `ssh_key` that the host accepts",
    "KS8005": "compare the host's key with the one that its operator publishes, and add it to the `known_hosts` file",
    "KS8006": "create the ref at the host, or correct `ref`; a removed branch removes nothing here",
    "KS8007": "make the host serve its whole history: a shallow copy cannot be verified",
    "KS8008": "check the host and the network; nothing that arrived late is used",
    "KS8009": "keep large files out of the repository, or serve the policies from one of their own",
    "KS8011": "free disk space, and give the runner's user a folder that it may write",
    "KS8012": "make the host serve its whole history; `git fsck --connectivity-only` there names what is missing",
    "KS8013": "find out who wrote to the runner's folder; the copy is fetched again",
    "KS8014": "write the file, readable for the runner's user only, with the content that its page describes",
    "KS8015": "write the address that the host redirects to, if it is the right one",
    "KS8020": "restore the folder, or correct `path`; a folder that is removed removes nothing here",
    "KS8021": "restore the policies; an emptied folder removes nothing here",
    "KS8036": "nothing needs to be done: it is resumed at the next poll; for a faster start move the anchor",
}
"""Code → fix, of what cannot be read: a warning, and health is degraded."""

_PAGES: Final[Mapping[str, str]] = {
    "KS8010": "push the branch again without the damaged object; `git fsck --full` at the host names it",
    "KS8022": "replace the symbolic link by the file",
    "KS8023": "replace the submodule by the files",
    "KS8024": "commit ordinary files and folders only",
    "KS8025": "rename the file in plain letters",
    "KS8026": "remove one of the two entries; git itself does not write such a tree",
    "KS8027": "find out what wrote this object; git does not",
    "KS8030": "split the folder over several sources",
    "KS8031": "split the file; if it is data, move it out of the policy folder",
    "KS8032": "move data out of the policy folder",
    "KS8033": "flatten the folder",
    "KS8034": "find out who wrote this tree: no honest folder looks like it",
    "KS8035": "find out what wrote this object: no honest commit, tag or folder is that large",
    "KS8037": "remove old statements from the folder of approvals",
    "KS8101": "sign the commit with a key of the trust set, or bring a signer's statement for a merge of the host (A9)",
    "KS8102": "sign with a key of the trust set, or have the key added to it by approvers",
    "KS8103": "sign with SSH or OpenPGP",
    "KS8104": "sign the commit again; if nobody altered it, somebody copied the signature",
    "KS8105": "sign with git itself, which signs in the namespace `git`",
    "KS8106": "sign with a key that may sign: `may: [sign]` in the trust file",
    "KS8107": "sign with a present key; a fresh store that meets old commits of an ended key needs a newer anchor",
    "KS8108": "wait until the key is valid, or correct its `from`; check the clock of the runner",
    "KS8109": "look at what the key signed, and have the work signed again with another key",
    "KS8110": "check the clocks of the author's machine and of the runner, and commit again",
    "KS8111": "sign once",
    "KS8112": "write names and messages in UTF-8, without an encoding header",
    "KS8113": "make an annotated and signed tag: `git tag --sign`",
    "KS8114": "tag the commit itself, under the name that the source follows",
    "KS8115": "sign again without an expiry of the signature",
    "KS8120": "correct the trust file",
    "KS8121": "bring the approvals of the trust set before it, or restore the trust file",
    "KS8122": "raise `version` with each change of the trust file",
    "KS8123": "keep at least as many approvers as approvals are needed",
    "KS8124": "restore the trust file",
    "KS8125": "look at what the key signed; the set in force stays, and `ksctl source rollback` is the way back",
    "KS8126": "write `anchor:` with the id of a commit that you have looked at, in the configuration of the runner",
    "KS8130": "push the newer commit again; the way back is `ksctl source rollback`, not an older ref",
    "KS8131": "merge the line that is in force as the first parent; after a rewrite an operator moves the anchor",
    "KS8132": "check the address and the ref; after a rewrite an operator moves the anchor",
    "KS8133": "give the new commit a new tag",
}
"""Code → fix, of shape, bounds, signatures, trust and history: health is degraded, and it pages."""


class GitSourceError(Exception):
    """A git source that proposes nothing now. `problem` names the cause."""

    def __init__(
        self, code: str, text: str, *, commit: str | None = None, principal: str | None = None, file: str | None = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.problem = problem(code, text, commit=commit, principal=principal, file=file)


class DamagedCloneError(GitSourceError):
    """The copy of the repository is in doubt: it is fetched again next to the old one."""


def problem(
    code: str, text: str, *, commit: str | None = None, principal: str | None = None, file: str | None = None
) -> SourceProblem:
    """The problem of a code, with its fix. KeyError for a code that this package does not have."""
    is_page = code in _PAGES
    return SourceProblem(
        code=code,
        text=printable(text),
        fix=_PAGES[code] if is_page else _READING[code],
        is_page=is_page,
        file=None if file is None else printable(file),
        commit=commit,
        principal=None if principal is None else printable(principal),
    )


def printable(text: str, most: int = LONGEST) -> str:
    """The text on one line: control and format characters become `·`, a login in an address goes, the end is cut."""
    shown = "".join("·" if unicodedata.category(each) in _UNPRINTABLE else each for each in text[: 4 * most].strip())
    shown = _USERINFO.sub(r"\1", shown)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, also where a host repeats them."""
    for secret in sorted({each for each in secrets if len(each) > 3}, key=len, reverse=True):
        text = text.replace(secret, "•••")
    return text


def is_clean_name(name: str) -> bool:
    """Whether a file name has only characters that are shown as what they are."""
    return not any(unicodedata.category(each) in _UNPRINTABLE for each in name)
