"""Decides the next step of a close. Pure."""
