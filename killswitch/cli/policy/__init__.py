"""Verbs about policies and decisions."""
