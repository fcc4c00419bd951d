"""The history of a scope."""
