"""The locks that decisions order, written concurrently with the ticks."""
