"""Rotation over the venues after collection: which venue a case runs at depends on its parameters too."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the deferred cases before any test is deselected by its mark."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.module, "defer_unless_its_turn"):
            item.module.defer_unless_its_turn(item)
