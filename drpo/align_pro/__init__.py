"""Align-Pro (arXiv 2501.03486): a prompter held near a reference by a KL term, in closed form."""
