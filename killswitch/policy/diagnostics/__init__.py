"""Diagnostics of documents, and the reference page of every code."""
