"""Checks of an account before it is armed."""
