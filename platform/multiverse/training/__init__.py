"""Training of Multiverse models: data, curriculum, strategies, checkpoints."""
