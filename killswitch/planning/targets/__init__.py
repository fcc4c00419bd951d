"""Which positions are reduced, and to what."""
