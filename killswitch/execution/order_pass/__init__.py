"""One pass over an account: trusted positions, verdicts on lines, and the orders to send."""
