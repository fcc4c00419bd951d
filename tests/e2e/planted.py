"""Planted credentials, and looking for them in whatever a program leaves: streams, files, what it sent to others."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may be written: form → bytes. Base64 is that of any text with the secret anywhere inside."""
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
        # What stands before and after the secret changes the characters at its edges: only those between are sure.
        written = base64.b64encode(b"\0" * offset + raw)
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        found[f"base64 at {offset}"] = written[first:last]
        found[f"base64 for URLs at {offset}"] = base64.urlsafe_b64encode(b"\0" * offset + raw)[first:last]
    return found


def leaks(secrets: Iterable[str], places: Mapping[str, bytes]) -> list[str]:
    """`form of the secret in place` of every one that is found."""
    return [
        f"{form} in {place}"
        for secret in secrets
        for form, written in forms(secret).items()
        for place, content in places.items()
        if written in content
    ]


def files_below(folder: Path, leaving_out: Iterable[Path] = ()) -> dict[str, bytes]:
    """Every file below `folder`, by its path; packed ones unpacked. `leaving_out`: files and whole folders."""
    left_out = [each.resolve() for each in leaving_out]
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not any(path.resolve().is_relative_to(each) for each in left_out):
            content = path.read_bytes()
            found[str(path.relative_to(folder))] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found
