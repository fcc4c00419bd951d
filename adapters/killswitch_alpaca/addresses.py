"""Addresses and failures as they may be shown: a user, a password or a query of an address may be a secret."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from killswitch.model.legible import legible


def shown(address: str) -> str:
    """The address without a user, a password, a query and a fragment."""
    parts = _parts(address)
    if parts is None:
        return "an address that makes no sense"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def hushed(text: str, *addresses: str | None) -> str:
    """The text, with whatever of these addresses may be a secret made unreadable wherever it is repeated."""
    for address in addresses:
        if address is not None:
            text = text.replace(address, shown(address))
            for secret in _secrets(address):
                text = text.replace(secret, "…")
    return legible(text)


def failure(error: BaseException) -> str:
    """What a library says of a request that failed, without the address that it was made to."""
    cause = error.args[0] if error.args else None
    told = getattr(cause, "reason", None) or cause or error
    return str(told) or type(error).__name__


def place(error: BaseException) -> str | None:
    """Where a request of `requests` went that failed so: `host:port`, nothing of a user or a path."""
    parts = _parts(str(getattr(getattr(error, "request", None), "url", None) or ""))
    return None if parts is None else parts.netloc.rpartition("@")[2] or None


def _secrets(address: str) -> list[str]:
    """As they are written and as they are meant; the longest first, so that no part of one is left over.

    Those of one to three characters would take half of the words along.
    """
    parts = _parts(address)
    if parts is None:
        return [address]
    user = parts.netloc.rpartition("@")[0]
    found = {user, user.partition(":")[2] or user, parts.query, parts.fragment}
    found |= {value for _, value in parse_qsl(parts.query)}
    found |= {unquote(each) for each in found}
    return sorted((each for each in found if len(each) > 3), key=len, reverse=True)


def _parts(address: str) -> SplitResult | None:
    """None for what is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
