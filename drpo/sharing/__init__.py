"""An alignment as a folder that can be given away, and its way to and from a Hugging Face repository."""
