"""RFC 3161 time stamps of anchors: the request, the answer, and its verification by `openssl ts`.

A time stamp shows that an anchor existed at a time. It does not show that no other root was stamped: an authority
stamps whatever it is sent.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import requests

from killswitch.audit.anchor_settings import TimeStamps
from killswitch.audit.log_files import AuditError
from killswitch.model.instant import rfc3339
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, run_limited
from killswitch.transport import RedirectRefusedError
from killswitch.transport.adapters import guard

ANSWER_SUFFIX: Final = ".tsr"
_SHA256: Final = bytes.fromhex("300d06096086480165030402010500")
"""AlgorithmIdentifier of SHA-256 in DER."""
_TIMEOUT: Final = 20.0
_LARGEST: Final = 256 * 1024
_LIMITS: Final = ProcessLimits(seconds=20.0)
_TIME: Final = re.compile(rb"^Time stamp: (.+) GMT$", re.MULTILINE)


def time_stamp_request(text: bytes, nonce: int) -> bytes:
    """TimeStampReq in DER (RFC 3161, 2.4.1): version 1, SHA-256 of the text, a nonce, and the wish for certificates."""
    number = nonce.to_bytes(nonce.bit_length() // 8 + 1, "big")
    imprint = _sequence(_SHA256 + b"\x04\x20" + sha256(text).digest())
    return _sequence(b"\x02\x01\x01" + imprint + b"\x02" + bytes([len(number)]) + number + b"\x01\x01\xff")


def _sequence(content: bytes) -> bytes:
    if len(content) > 127:
        raise ValueError("the sequence is longer than one byte of length states")
    return b"\x30" + bytes([len(content)]) + content


def fetch_time_stamp(settings: TimeStamps, text: bytes) -> bytes:
    """The verified answer of an authority for a text. Raises AuditError."""
    request = time_stamp_request(text, secrets.randbits(63) | 1 << 62)
    try:
        with requests.Session() as session:
            answer = guard(session, _LARGEST).post(
                settings.url, data=request, headers={"Content-Type": "application/timestamp-query"}, timeout=_TIMEOUT
            )
            answer.raise_for_status()
            found = answer.content
    except (requests.RequestException, RedirectRefusedError) as error:
        raise AuditError(f"{settings.url} gave no time stamp: {error}") from error
    refused = refusal_of_stamp(text, found, Path(settings.certificates))
    if refused is not None:
        raise AuditError(f"the time stamp of {settings.url} is not valid: {refused}")
    return found


def refusal_of_stamp(text: bytes, answer: bytes, certificates: Path) -> str | None:
    """Why an answer is no time stamp of the text under these certificates; None where it is one.

    Offline: the certificates are those that were kept with the anchors, since certificates end.
    """
    with TemporaryDirectory(prefix="ksctl-") as folder:
        data, stamp = Path(folder) / "anchor", Path(folder) / "answer"
        data.write_bytes(text)
        stamp.write_bytes(answer)
        # The time of the answer counts, not that of today: a certificate that has ended since was valid then.
        at = stamped_at(answer)
        attime = () if at is None else ("-attime", str(int(at.timestamp())))
        arguments = ("-verify", "-data", str(data), "-in", str(stamp), "-CAfile", str(certificates), *attime)
        try:
            _openssl(*arguments)
        except LimitedProcessError as error:
            return f"openssl ts -verify: {error}"
    return None


def stamped_at(answer: bytes) -> datetime | None:
    """The time in an answer, which says nothing before the answer is verified; None where there is none."""
    with TemporaryDirectory(prefix="ksctl-") as folder, suppress(LimitedProcessError, ValueError):
        stamp = Path(folder) / "answer"
        stamp.write_bytes(answer)
        found = _TIME.search(_openssl("-reply", "-in", str(stamp), "-text"))
        if found is not None:
            words = " ".join(found[1].decode("ascii").split())
            form = "%b %d %H:%M:%S.%f %Y" if "." in words else "%b %d %H:%M:%S %Y"
            return datetime.strptime(words, form).replace(tzinfo=UTC)
    return None


def stamp_time_text(answer: bytes) -> str | None:
    """The time in an answer as text."""
    at = stamped_at(answer)
    return None if at is None else rfc3339(at)


def _openssl(*arguments: str) -> bytes:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "OPENSSL_CONF": "/dev/null", "TZ": "UTC"}
    return run_limited(["openssl", "ts", *arguments], b"", _LIMITS, environment)
