"""Model folders from the Hugging Face Hub, when huggingface_hub is installed and the network is there."""

import pathlib
import re

from embed.errors import DataError, StorageError, UsageError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Weights as safetensors, configurations, tokenizers: no pickles, no code.
_PATTERNS = ["*.safetensors", "*.json", "*.model", "vocab.txt", "*.jinja", "*/*.safetensors", "*/*.json"]


def fetch(name: str, revision: str | None = None) -> pathlib.Path:
    """Returns the folder that `name` means: a folder here, or else the downloaded files of that model on the Hub."""
    path = pathlib.Path(name)
    if path.exists() or not _HUB_NAME.fullmatch(name):
        if revision is not None:
            raise UsageError(f"--revision goes with a Hub name, {name} is a folder here")
        return path
    try:
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise UsageError(
            f"{name}: no such folder, and to download it huggingface_hub is needed; run: pip install 'embed[huggingface]'"
        ) from e
    try:
        return pathlib.Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except OSError as e:
        raise StorageError(f"{name}: no such folder, and it cannot be downloaded ({_reason(e)})") from e
    except Exception as e:  # names, tokens and refusals, in many types of the library
        raise DataError(f"{name}: no such folder, and the Hub refuses it ({_reason(e)}); check the name") from e


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
