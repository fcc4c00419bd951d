"""What a policy remembers of a scope."""
