"""Sequential chains made into structured ones."""
