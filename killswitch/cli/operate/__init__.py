"""Verbs by which a person acts."""
