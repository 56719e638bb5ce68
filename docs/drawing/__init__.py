"""The pictures of docs/architecture.md, by code."""
