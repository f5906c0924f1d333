"""What is sent of an image, and the rows that captions become."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from embed.curation import captions
from embed.curation.asking import Rejected
from embed.curation.prompt_templates import read
from embed.curation.requests import ImageRequest, Picture, Request, parse
from embed.errors import DataError

TEMPLATE = read("caption", None, captions.FIELDS["caption"])


class Asker:
    """Answers with a caption, and remembers what it was asked."""

    endpoint = type("Endpoint", (), {"model": "tiny"})

    def __init__(self, caption="  a red square on grey  "):
        self.caption, self.asked = caption, []

    async def ask(self, template, schema, texts, seed, *, max_tokens, picture):
        self.asked.append((template.name, texts, seed, picture))
        return {"caption": self.caption}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "data" / "png" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 900, 3)).astype(np.uint8)).save(path)
    return path


def written(asker, record, output):
    work = captions.Captions(asker, {"caption": TEMPLATE}, "image", output, seed=3)
    return asyncio.run(work(record))


def test_an_image_is_sent_as_a_small_jpeg_and_known_by_its_file(image):
    sent = captions.picture(image)
    opened = Image.open(io.BytesIO(sent.jpeg))
    assert opened.format == "JPEG" and opened.size == (512, 34)
    assert sent.digest == captions.picture(image).digest
    image.write_bytes(image.read_bytes() + b" ")
    assert captions.picture(image).digest != sent.digest


def test_rows_are_the_records_with_a_caption_and_paths_from_the_output(image, tmp_path):
    asker = Asker()
    record = captions.Captioned({"image": "png/a.png", "id": 7}, "data/rows.jsonl:1", image, "")
    row = written(asker, record, tmp_path / "out")
    assert row["image"] == "../data/png/a.png" and row["id"] == 7 and row["synthetic_caption"] == "a red square on grey"
    assert row["made"] == {"model": "tiny", "prompts": {"caption": TEMPLATE.digest}, "seed": 3}
    assert asker.asked[0][:3] == ("caption", {"alt": "none"}, 3)
    with pytest.raises(Rejected, match="caption: blank"):
        written(Asker(" \n "), record, tmp_path / "out")


def test_images_that_cannot_be_read_are_left_out_with_the_name_of_the_first(image, tmp_path):
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    work = captions.Captions(Asker(), {"caption": TEMPLATE}, "image", tmp_path)
    for path in (image, tmp_path / "none.png"):
        with pytest.raises(Rejected, match="an image that cannot be read, the first: .*a.png: a damaged image"):
            asyncio.run(work(captions.Captioned({}, "x:1", path, "")))
    with pytest.raises(DataError, match="No such file"):
        captions.picture(tmp_path / "none.png")


def test_the_request_is_that_of_the_protocol_and_its_key_knows_the_file_alone():
    given = ("caption", "see", "what is it?", captions.CAPTION, 0.7, 200, 1)
    one, other = (ImageRequest(*given, Picture(jpeg, "digest")) for jpeg in (b"jpeg", b"another encoder's"))
    assert one.key("m", True) == other.key("m", True) != Request(*given).key("m", True)
    assert one.key("m", True) != ImageRequest(*given, Picture(b"jpeg", "other")).key("m", True)
    body = json.loads(one.body("m", True))
    picture, text = body["messages"][1]["content"]
    assert picture == {
        "type": "image_url",
        "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(b"jpeg").decode()},
    }
    assert (
        text == {"type": "text", "text": "what is it?"} and body["response_format"]["json_schema"]["name"] == "caption"
    )


def test_a_reply_without_usage_counts_no_letters_of_the_picture():
    request = ImageRequest("caption", "see", "what?", captions.CAPTION, picture=Picture(b"x" * 90_000, "d"))
    body = request.body("m", True)
    reply = parse(b'{"choices": [{"message": {"content": "{}"}}]}', request, request.max_tokens_in(body))
    assert reply.estimated and 4096 < reply.tokens_in < 6000 < len(body)
