"""The targets of a decision on one account, and the orders towards each, folded from the journal."""
