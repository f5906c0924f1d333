"""Averaging: parameters of several checkpoints become one model (soups)."""
