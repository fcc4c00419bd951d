"""The page of a diagnostic code: what it means and how to fix it, for `ksctl explain KS1203`."""

from __future__ import annotations

from typing import NamedTuple


class Page(NamedTuple):
    """One code. `example` is YAML that brings the problem about, or says how it comes about."""

    code: str
    title: str
    meaning: str
    example: str
    fix: str
