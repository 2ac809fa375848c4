"""drpo: search for the system prompt and in-context examples that align a frozen language model."""
