"""Models of other tools in and out: checkpoints of Hugging Face and sentence-transformers, StableHLO, ONNX, parity checks."""
