"""A model behind HTTP, in the form of OpenAI's embeddings: for tests and small teams."""
