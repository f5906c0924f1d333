"""Towers of descriptions and of parameters, of models with one and with two."""

from embed import architectures

ONE = {"type": "Embedder", "encoder": {"type": "Bert"}, "pooling": {"type": "MeanPooling"}}
TWO = {"type": "DualEncoder", "text": ONE, "image": {"type": "ImageEmbedder", "encoder": {"type": "VisionTransformer"}}}


def test_a_model_is_its_own_tower_or_has_two():
    assert architectures.towers(ONE) == {"": ONE}
    assert architectures.towers(TWO) == {"text": ONE, "image": TWO["image"]}
    assert architectures.text_encoder(ONE) == architectures.text_encoder(TWO) == {"type": "Bert"}


def test_every_tower_is_mapped_and_nothing_else():
    mark = lambda tower: {**tower, "seen": True}  # noqa: E731
    assert architectures.map_towers(ONE, mark) == {**ONE, "seen": True}
    mapped = architectures.map_towers(TWO, mark)
    assert mapped == {"type": "DualEncoder", "text": {**ONE, "seen": True}, "image": {**TWO["image"], "seen": True}}
    params = {"text": {"encoder": 1}, "image": {"encoder": 2}, "other": 3}
    assert architectures.map_towers(params, lambda tower: tower["encoder"]) == {"text": 1, "image": 2, "other": 3}
