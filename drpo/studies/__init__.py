"""The paper's tables: what each compares, the searches and evaluations that it takes, what it says."""
