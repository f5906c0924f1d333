"""Models as GGUF files for llama.cpp: its architectures and tokenizers, a writer, and a reader."""
