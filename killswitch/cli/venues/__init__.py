"""Verbs about venues and account checks."""
