"""The way back after a reset: the steps of a recovery plan, and what they allow."""
