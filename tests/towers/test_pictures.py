"""Pictures of parity.json: made by rule, compared by number where nothing is resized, and by cosine where something is."""

import numpy as np
import pytest

from embed import image_bytes
from embed.errors import DataError, NumericError
from embed.towers import pictures


def encode(images) -> np.ndarray:
    ramp = np.linspace(0, 1, 1000)
    values = [np.asarray(image, np.float32).ravel() for image in images]
    rows = [np.interp(ramp, np.linspace(0, 1, row.size), row) for row in values]
    vectors = np.stack([[row.mean() + 1, row @ ramp, row @ ramp**2] for row in rows])
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def checks(tmp_path):
    entries = pictures.write(tmp_path, 10, encode)
    return pictures.read(tmp_path, {"images": entries})


def test_pictures_are_files_of_the_size_that_the_model_takes(checks):
    opened = {check.path.stem: image_bytes.open_image(check.path.read_bytes(), "") for check in checks}
    sizes = {name: image.size for name, image in opened.items()}
    assert {size for name, size in sizes.items() if not name.startswith("resized")} == {(10, 10)}
    assert sizes["resized_wide"] == (20, 13) and sizes["resized_small"] == (5, 5)
    assert len({check.vector.tobytes() for check in checks}) == len(checks), "two pictures have one vector"
    assert pictures.compare(checks, encode(list(opened.values())), 1e-6, "here") < 1e-6


def test_errors_name_the_picture(checks):
    vectors = np.stack([check.vector for check in checks])
    moved = vectors.copy()
    moved[1, 0] += 3e-5
    with pytest.raises(
        NumericError, match="there: error 3e-05 above 1e-05 at ramps.png; its vectors are not the trained"
    ):
        pictures.compare(checks, moved, 1e-5, "there")
    resized = vectors.copy()
    resized[-1] = -vectors[-1]
    with pytest.raises(NumericError, match=r"cosine distance .* above 0.001 at resized_small.png"):
        pictures.compare(checks, resized, 1e-5, "there")
    moved[1, 0] = np.nan
    with pytest.raises(NumericError, match="error nan"):
        pictures.compare(checks, moved, 1e-5, "there")
    with pytest.raises(NumericError, match="images have vectors of 2 values, expected 3; a linear map is missing"):
        pictures.compare(checks, vectors[:, :2], 1e-5, "there")


def test_a_picture_elsewhere_or_missing_is_refused(tmp_path):
    entries = pictures.write(tmp_path, 6, encode)
    for name in ("parity/none.png", "../parity/waves.png", "parity/../parity/waves.png"):
        with pytest.raises(DataError, match="is no picture of the export; export the model again"):
            pictures.read(tmp_path, {"images": [{**entries[0], "file": name}]})
    with pytest.raises(DataError, match="images is not of this version"):
        pictures.read(tmp_path, {"images": entries[-2:]})
    assert pictures.read(tmp_path, {}) == []


def test_vectors_that_are_not_finite_are_not_exported(tmp_path):
    with pytest.raises(NumericError, match="images: the model gives vectors that are not finite"):
        pictures.write(tmp_path, 6, lambda images: np.full((len(images), 3), np.nan))
