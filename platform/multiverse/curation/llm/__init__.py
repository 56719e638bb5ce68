"""The LLM that curation asks: one interface, an endpoint behind it, a cache before it, and what it costs."""
