"""Captions of images written by a language model that sees them. Source: arXiv:2410.16512 s3.1: noisy captions of the web beside
synthetic ones."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from embed import image_bytes
from embed.curation.asking import Asker, Rejected
from embed.curation.prompt_templates import PromptTemplate
from embed.curation.requests import Picture
from embed.errors import DataError
from embed.text import clean

FIELDS = {"caption": {"alt"}}
CAPTION: dict[str, Any] = {
    "type": "object",
    "properties": {"caption": {"type": "string", "minLength": 8, "maxLength": 600}},
    "required": ["caption"],
    "additionalProperties": False,
}
SIDE = 512  # pixels of the longer side of what is sent
_QUALITY = 90  # of the JPEG that is sent


@dataclasses.dataclass(frozen=True)
class Captioned:
    """A record with an image: the record as it was read, the image's path, and its text of the web ('' for none)."""

    raw: Mapping[str, Any]
    location: str
    path: pathlib.Path
    alt: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """Writes a caption for an image. In the rows the field `image_field` is the path from the folder `output`."""

    asker: Asker
    prompt_templates: Mapping[str, PromptTemplate]
    image_field: str
    output: pathlib.Path
    seed: int = 0
    damaged: list[str] = dataclasses.field(default_factory=list)

    async def __call__(self, record: Captioned) -> dict[str, Any]:
        """Returns the record with {"synthetic_caption", "made"}; an image that cannot be opened is rejected."""
        template = self.prompt_templates["caption"]
        texts = {"alt": record.alt or "none"}
        try:
            sent = picture(record.path)
        except DataError as e:
            self.damaged.append(str(e))
            raise Rejected(f"an image that cannot be read, the first: {self.damaged[0]}") from e
        reply = await self.asker.ask(template, CAPTION, texts, self.seed, max_tokens=200, picture=sent)
        caption = clean(reply["caption"])
        if not caption:
            raise Rejected("caption: blank")
        origin = {"model": self.asker.endpoint.model, "prompts": {"caption": template.digest}, "seed": self.seed}
        path = pathlib.PurePath(os.path.relpath(record.path, self.output)).as_posix()
        return {**record.raw, self.image_field: path, "synthetic_caption": caption, "made": origin}


def picture(path: pathlib.Path) -> Picture:
    """Returns what is sent of an image file; one that cannot be opened is a DataError."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path}: {e.strerror or type(e).__name__}") from e
    image = image_bytes.open_image(content, str(path))
    scale = min(1.0, SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    sent = image_bytes.jpeg(image_bytes.resized(image, width, height), _QUALITY)
    # The file decides, not how this version of Pillow writes it again.
    return Picture(sent, hashlib.sha256(content + b"%d" % SIDE).hexdigest())
