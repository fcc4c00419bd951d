"""Reference pages generated from the code: `python -m tools.reference` writes them, a test fails if they are stale."""
