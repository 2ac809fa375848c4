"""How demo-rewriter was made: a very small model that writes a query again, with a request behind it."""
