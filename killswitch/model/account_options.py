"""Reading of an Account document's `options` by adapters.

Messages name an option and never show its value: somebody may have written a secret there by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from killswitch.model.magnitude import readable_number
from killswitch.model.venue import AccountSpec

_CREDENTIAL: Final = re.compile(
    r"(?i)secret|passw|passphrase|private_?-?key|api_?-?key|wallet_?-?address|^(login|uid|token|key|twofa)$"
)
"""Names of credentials, also those of ccxt."""


def positive_option(spec: AccountSpec, name: str, default: Decimal | int, unit: str = "a number") -> Decimal:
    """The number of an option; ValueError where it is no number above zero."""
    option = spec.options.get(name, default)
    found = None if isinstance(option, bool) else readable_number(str(option))
    if found is None or found <= 0:
        raise ValueError(f"option {name} of account {spec.account} must be {unit} above zero")
    return found


def text_option(spec: AccountSpec, name: str) -> str | None:
    """The text of an option, None without one; ValueError for anything else."""
    option = spec.options.get(name)
    if option is None or (isinstance(option, str) and option):
        return option
    raise ValueError(f"option {name} of account {spec.account} must be a text")


def check_no_credentials(spec: AccountSpec, name: str) -> None:
    """ValueError where the option `name`, which the adapter passes on unread, holds a credential at any depth."""
    for path in _paths(spec.options.get(name), (name,)):
        if _CREDENTIAL.search(path[-1]):
            raise ValueError(
                f"options of account {spec.account}: {'.'.join(path)} is a credential; write it under `credentials`, "
                "as env:NAME or file:PATH"
            )


def _paths(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield (*path, str(name))
            yield from _paths(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner, path)
