"""The exported sentence-transformers folder opened in torch: to check it, and to make ONNX of it. Needs the extra [export]."""

import contextlib
import logging
import os
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from embed.documents import first_line
from embed.errors import DataError, UsageError


@contextlib.contextmanager
def quiet():
    """Keeps third parties' warnings and progress bars off the screen, and the network out."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    levels = {name: logging.getLogger(name).level for name in ("transformers", "sentence_transformers", "torch.onnx")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def need(*names: str, extra: str = "export") -> None:
    """Raises UsageError unless all packages, which the named extra brings, are installed."""
    import importlib.util

    missing = [n for n in names if importlib.util.find_spec(n) is None]
    if missing:
        raise UsageError(f"this needs {', '.join(missing)}; run: pip install 'embed[{extra}]'")


def opened(open_folder: Callable, folder: str, package: str = "sentence-transformers"):
    """Returns the function that `open_folder` gives, such as embed(texts, prompt_name), its result as float32, without third
    parties' prints. What stops the folder from loading is a DataError, which names the `package` that reads it."""
    need("torch", package.replace("-", "_"))
    with quiet():
        try:
            embed = open_folder(folder)
        except Exception as e:  # of many types
            raise DataError(f"{folder}: {package} cannot load it ({first_line(e)})") from e

    def quietly(*arguments):
        with quiet():
            return np.asarray(embed(*arguments), np.float32)

    return quietly


def load(folder):
    """Returns the SentenceTransformer of a folder, on the CPU; no code from the folder is run."""
    need("torch", "sentence_transformers")
    with quiet():
        import transformers
        from sentence_transformers import SentenceTransformer

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)
        except Exception as e:  # whatever stops the folder from loading is what is being looked for
            raise DataError(f"{folder}: sentence-transformers cannot load it ({first_line(e)})") from e


def to_onnx(folder, path: pathlib.Path, pooling: str) -> None:
    """Writes the whole model of a folder (`pooling`, linear maps, unit length inside the graph) as ONNX.

    Inputs `input_ids` and `attention_mask` int64 [b, l], output `sentence_embedding` float32 [b, E], b and l free.
    """
    need("torch", "sentence_transformers", "onnx", "onnxscript")
    import torch

    twin = load(folder)
    encoder = twin[0].auto_model.eval()
    encoder.config._attn_implementation = "eager"
    linears = [m.linear for m in twin if type(m).__name__ == "Dense"]

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.linears = encoder, torch.nn.ModuleList(linears)

        def forward(self, input_ids, attention_mask):
            x = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(x.dtype)
            if pooling == "mean":
                x = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            elif pooling == "cls":
                x = x[:, 0]
            else:
                last = attention_mask.sum(1) - 1
                x = x.gather(1, last.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)
            for linear in self.linears:
                x = linear(x)
            return torch.nn.functional.normalize(x, p=2, dim=1)

    _write_texts(Whole(), path)


def tips_text_to_onnx(folder, path: pathlib.Path) -> None:
    """Writes the text tower of a TIPSv2 folder as ONNX, with the inputs and the output of `to_onnx`."""
    need("torch", "sentence_transformers", "onnx", "onnxscript")
    import torch

    model = _eager(load(folder))

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            x = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
            return torch.nn.functional.normalize(x, p=2, dim=1)

    _write_texts(Text(), path)


def images_to_onnx(folder, path: pathlib.Path, size: int, mean, std, lead: int) -> None:
    """Writes the image tower of a folder as ONNX: colours scaled, class token, linear maps and unit length in the graph.

    Input `pixels` float32 [b, 3, size, size] in [0, 1]; outputs `sentence_embedding` float32 [b, E] and `patches` float32
    [b, P, D], after the last norm; b free. `lead` is the number of tokens before the patches.
    """
    need("torch", "sentence_transformers", "onnx", "onnxscript")
    import torch

    twin = load(folder)
    model = _eager(twin)
    encoder = getattr(model, "vision_model", model)
    linears = [m.linear for m in twin if type(m).__name__ == "Dense"]
    colours = (torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1) for values in (mean, std))

    class Image(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.linears = encoder, torch.nn.ModuleList(linears)
            self.mean, self.std = colours

        def forward(self, pixels):
            states = self.encoder((pixels - self.mean) / self.std)
            x = states.pooler_output
            for linear in self.linears:
                x = linear(x)
            return torch.nn.functional.normalize(x, p=2, dim=1), states.last_hidden_state[:, lead:]

    _write(Image(), (torch.zeros((2, 3, size, size)),), path, ["pixels"], ["sentence_embedding", "patches"], (0,))


def _eager(twin):
    """Returns the transformers model of a SentenceTransformer, with attention in plain operations."""
    model = twin[0].auto_model.eval()
    model.set_attn_implementation("eager")
    return model


def _write_texts(module, path: pathlib.Path) -> None:
    import torch

    ids = torch.ones((2, 7), dtype=torch.long)
    _write(module, (ids, torch.ones_like(ids)), path, ["input_ids", "attention_mask"], ["sentence_embedding"], (0, 1))


def _write(module, inputs, path: pathlib.Path, input_names, output_names, free: tuple[int, ...]) -> None:
    """Writes a torch module as ONNX; of every input the axes `free` may have any size."""
    import torch

    dims = {axis: torch.export.Dim(("batch", "length")[axis], min=1) for axis in free}
    with quiet(), torch.no_grad(), contextlib.redirect_stdout(None):
        torch.onnx.export(
            module,
            inputs,
            str(path),
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=tuple(dims for _ in inputs),
            dynamo=True,
            verbose=False,
        )
