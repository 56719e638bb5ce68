"""Training: from a sequential model to one that goes parallel by itself."""
