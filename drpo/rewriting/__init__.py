"""Rewriters: what stands between a user's query and a frozen base model."""
