"""Random views of JPEG files on one core, beside the bare decode of the fastest decoder and torchvision's transforms, in turns.

    python launch/benchmarks/views.py [--count=200] [--rounds=7] [--output=FOLDER]

The files are photographs' like in size and detail: 640 x 480 pixels of noise whose power falls as in photographs, at quality 90.
Needs simplejpeg, and for torchvision's side torch and torchvision; a side whose package is missing is left out.
"""

import argparse
import functools
import io
import types

import numpy as np
from PIL import Image
from turns import Ratio, finish, median, spread, table, take_turns

from embed.data.image_features import Views
from embed.data.images import Crop

WIDTH, HEIGHT = 640, 480


def photograph(number: int) -> bytes:
    """Returns a JPEG whose spectrum falls with the frequency, as that of photographs does."""
    random = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    noise = random.normal(size=(3, *frequency.shape)) + 1j * random.normal(size=(3, *frequency.shape))
    image = np.fft.irfft2(noise / np.maximum(frequency, 1 / WIDTH) ** 1.2, s=(HEIGHT, WIDTH))
    image = (image - image.min()) / (image.max() - image.min())
    file = io.BytesIO()
    Image.fromarray(np.uint8(255 * image.transpose(1, 2, 0))).save(file, "JPEG", quality=90)
    return file.getvalue()


def views(local_crops: int, contents: list[bytes]):
    """Returns the function that makes the views of all files, as a loader does."""
    feature = Views(whole=Crop(224, 0.4), local=Crop(98, 0.05, 0.4), local_crops=local_crops)
    examples = [{"image_file": np.frombuffer(content, np.uint8), "image_id": np.int64(0)} for content in contents]
    draws = types.SimpleNamespace(rng=lambda i: np.random.default_rng(i))
    return lambda: feature.collate(types.SimpleNamespace(examples=examples, draws=draws))


def others(contents: list[bytes]) -> dict:
    """Returns the peers whose packages are there."""
    runs = {}
    try:
        import simplejpeg

        runs["simplejpeg, decoded only"] = lambda: [simplejpeg.decode_jpeg(content) for content in contents]
    except ImportError:
        print("simplejpeg is not installed; its side is left out")
    try:
        import torch
        from torchvision import transforms

        torch.set_num_threads(1)
        chain = transforms.Compose([transforms.RandomResizedCrop(224, scale=(0.4, 1.0)), transforms.PILToTensor()])
        opened = lambda content: Image.open(io.BytesIO(content)).convert("RGB")  # noqa: E731
        runs["torchvision, one crop"] = lambda: [chain(opened(content)) for content in contents]
    except ImportError:
        print("torchvision is not installed; its side is left out")
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    contents = [photograph(number) for number in range(arguments.count)]
    runs = {
        "embed, one crop of 224": views(0, contents),
        "embed, and six of 98": views(6, contents),
        **others(contents),
    }
    for run in runs.values():
        run()
    seconds = take_turns(runs, arguments.rounds)
    speed = {name: arguments.count / median(s) for name, s in seconds.items()}
    rows = [[name, spread(s), f"{speed[name]:.0f}"] for name, s in seconds.items()]
    ours = functools.partial(speed.get, "embed, one crop of 224")
    ratios = [
        Ratio(f"one crop / {name}", ours() / speed[name], target)
        for name, target in (("simplejpeg, decoded only", 0.8), ("torchvision, one crop", 1.0))
        if name in speed
    ]
    told = f"{arguments.count} files of {WIDTH} x {HEIGHT}, one core.\n\n{table(['', 'seconds (least - most)', 'images/s'], rows)}"
    finish("views", ratios, {"count": arguments.count, "seconds": seconds}, told, arguments.output)


if __name__ == "__main__":
    main()
