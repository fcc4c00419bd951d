"""Blobs of a store that this version cannot decode."""

from __future__ import annotations

import msgspec
import pytest

from killswitch.model.store import decoded


class _Blob(msgspec.Struct):
    name: str


@pytest.mark.parametrize("blob", [None, b"", b'{"na', b'{"name": 1}', b'{"name": "\xff"}', b"\xff\x00"])
def test_a_blob_that_cannot_be_decoded_counts_as_absent(blob: bytes | None) -> None:
    assert decoded(msgspec.json.Decoder(_Blob).decode, blob) is None


def test_a_sound_blob_is_decoded() -> None:
    assert decoded(msgspec.json.Decoder(_Blob).decode, b'{"name": "a"}') == _Blob("a")
