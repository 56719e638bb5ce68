"""A chain cut into sentences, planned by a language model, grouped and put together by code."""
