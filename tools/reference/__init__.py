"""Reference pages made from the code: `python -m tools.reference` writes them, a test fails when they are stale."""
