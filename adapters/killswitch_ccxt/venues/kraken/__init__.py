"""Kraken spot and margin."""
