"""What an LLM is asked about a row, stage by stage."""
