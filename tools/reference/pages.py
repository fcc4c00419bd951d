"""The generated pages, by file name."""

from __future__ import annotations

from collections.abc import Mapping

from tools.reference.commands import cli_page
from tools.reference.diagnostics import diagnostics_page
from tools.reference.documents import policy_page
from tools.reference.guarantees import guarantees_page
from tools.reference.incident import incident_page
from tools.reference.signals import signals_page


def generated() -> Mapping[str, str]:
    """File name in docs/reference/ → the page's text."""
    return {
        "policy.md": policy_page(),
        "signals.md": signals_page(),
        "diagnostics.md": diagnostics_page(),
        "cli.md": cli_page(),
        "incident.md": incident_page(),
        "guarantees.md": guarantees_page(),
    }
