"""Language models behind one narrow door: `base.LLM`, one method."""
