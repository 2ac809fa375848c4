"""A server of OpenAI's interface in front of base models, which asks them by their alignments."""
