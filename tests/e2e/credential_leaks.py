"""Finds planted credentials in everything that a program leaves: streams, files, requests to others."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus


def forms(secret: str) -> dict[str, bytes]:
    """The encodings of a secret: form → bytes. Base64 matches any text that contains the secret at any position."""
    raw = secret.encode()
    found = {
        "plain": raw,
        "in a URL": quote(secret, safe="").encode(),
        "in a path": quote(secret).encode(),
        "in a form": quote_plus(secret).encode(),
        "repr": repr(secret)[1:-1].encode(),
        "repr of bytes": repr(raw)[2:-1].encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "hex": raw.hex().encode(),
    }
    for offset in range(3):
        # The text before and after the secret changes the characters at its edges; only those between are certain.
        written = base64.b64encode(b"\0" * offset + raw)
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        found[f"base64 at {offset}"] = written[first:last]
        found[f"base64 for URLs at {offset}"] = base64.urlsafe_b64encode(b"\0" * offset + raw)[first:last]
    return found


def leaks(secrets: Iterable[str], places: Mapping[str, bytes]) -> list[str]:
    """One text for each match: the form of the secret, and the place."""
    return [
        f"{form} in {place}"
        for secret in secrets
        for form, written in forms(secret).items()
        for place, content in places.items()
        if written in content
    ]


def files_below(folder: Path, excluding: Iterable[Path] = ()) -> dict[str, bytes]:
    """Every file below `folder` by its path, decompressed, except the files and folders in `excluding`."""
    excluded = [each.resolve() for each in excluding]
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not any(path.resolve().is_relative_to(each) for each in excluded):
            content = path.read_bytes()
            found[str(path.relative_to(folder))] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found
