"""Black-Box Prompt Optimization (arXiv 2311.04155): from preferences to pairs of prompts, and to a model."""
