"""Proofs need z3, an optional extra."""

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")
