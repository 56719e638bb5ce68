"""The LLM that curation asks: one interface, an endpoint or an engine behind it, a cache before it, and its cost."""
