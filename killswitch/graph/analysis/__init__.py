"""What a compiled policy can and cannot do."""
