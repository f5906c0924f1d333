"""What a run learns, one objective a file. An objective knows models and losses; it knows no micro-batches, meshes or hosts."""
