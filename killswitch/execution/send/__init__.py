"""Sends orders and cancels to the venue."""
