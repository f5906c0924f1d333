"""Evaluation: protocols of MTEB on numpy embeddings. Sees a model only as an encode function."""
