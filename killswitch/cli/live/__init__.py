"""Verbs that read accounts or a store."""
