"""Consistency checks of registries: each kind is in all of them, once."""

from __future__ import annotations

from collections.abc import Iterable


class RegistryError(TypeError):
    """A kind is registered in one registry and missing in another; the message names both."""


def require_same_keys(registry: str, keys: Iterable[str], reference: str, wanted: Iterable[str]) -> None:
    """Raise RegistryError unless `registry` has exactly the keys of `reference`, each once."""
    keys, wanted = tuple(keys), tuple(wanted)
    for key in wanted:
        if key not in keys:
            raise RegistryError(f"`{key}` is in {reference}, and {registry} lacks it")
    for place, key in enumerate(keys):
        if key not in wanted:
            raise RegistryError(f"`{key}` is in {registry}, and {reference} lacks it")
        if key in keys[:place]:
            raise RegistryError(f"`{key}` is in {registry} twice")
