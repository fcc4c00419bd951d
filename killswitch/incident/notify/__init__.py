"""Messages to people: routing, grouping, delivery."""
