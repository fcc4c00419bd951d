"""The locks that decisions order, written beside the ticks."""
