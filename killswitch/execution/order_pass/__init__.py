"""One pass over an account: trusted positions, verdicts on targets, and the orders to send."""
