"""Inference: a MODEL opened, texts encoded in few compiled shapes, exact search."""
