"""Whose turn a case is goes by its parameters too, which are known when it has been collected."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before any test is left out by its mark."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.module, "leave_to_its_turn"):
            item.module.leave_to_its_turn(item)
