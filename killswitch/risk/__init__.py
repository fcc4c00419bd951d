"""Risk measures of a book: how its positions move together, and which of them carry its variance."""
