"""Curation as a job: rows are taken in, worked on in parts by Ray Data, and put out with a data card."""
