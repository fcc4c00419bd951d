"""Deribit."""
