"""Losses: pure functions of embeddings in jax.numpy. No parameters, no mesh, no model."""
