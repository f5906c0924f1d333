"""Better training data from a model and a corpus: hard negatives, and what is made and judged by language models."""
