"""Verbs about venues and accounts before they are trusted."""
