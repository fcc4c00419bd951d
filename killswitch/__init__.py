"""Killswitch: stops a trading book that goes wrong."""
