"""How little the constants of the zero-flag run matter."""
