"""The locks that decisions call for, written beside the ticks."""
