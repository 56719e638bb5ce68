"""Evaluation suites: what they are called, where they come from, and their items."""
