"""Sequential chains made into structured ones, without changing a word."""
