"""A small language model of the project's own: its world, training text, training and measurement."""
