"""Risk measures of a book: covariance, risk contributions and trading cost."""
