"""Curation: sequential chains to structured training data. The modules here are pure: no model, no network."""
