"""Models: Flax Linen modules behind the seam of `api.build`. The only room with flax."""
