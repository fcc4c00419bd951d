"""References to secrets, resolved at the last moment and never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class CredentialError(Exception):
    """A reference could not be resolved. The message names the reference, never a value."""


class Secret(str):
    """A credential in memory: usable as the text it is, but `repr` (and so logs of records) shows a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


def resolve(references: Mapping[str, str], *, account: str) -> dict[str, str]:
    """Name → value of every reference (`env:NAME` or `file:PATH`) of `account`.

    CredentialError says which reference of which account failed and what to do about it.
    """
    return {name: _resolve_one(reference, f"account {account}, credential {name}")
            for name, reference in references.items()}  # fmt: skip


def _resolve_one(reference: str, whose: str) -> Secret:
    kind, _, rest = reference.partition(":")
    if kind == "env" and rest:
        return Secret(_from_environment(rest, whose))
    if kind == "file" and rest:
        return Secret(_from_file(Path(rest), whose))
    # The text itself may be a secret that someone pasted: it is not repeated here.
    raise CredentialError(f"{whose}: not a reference; write env:NAME or file:PATH")


def _from_environment(name: str, whose: str) -> str:
    value = os.environ.get(name)
    if not value:
        state = "empty" if value == "" else "not set"
        raise CredentialError(f"{whose}: the environment variable {name} is {state}; set it for this process")
    return value


def _from_file(path: Path, whose: str) -> str:
    try:
        value = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise CredentialError(f"{whose}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise CredentialError(
            f"{whose}: cannot read {path} ({error.strerror}); check the path and its rights"
        ) from None
    if not value:
        raise CredentialError(f"{whose}: {path} is empty")
    return value
