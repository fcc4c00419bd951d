"""What one incident was, folded from the store: the record that reports and templates see."""
