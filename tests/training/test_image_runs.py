"""A run on images with captions as a user starts it: through the trainer, killed, resumed, its views and teacher included."""

import hashlib
import io
import json
import signal

import numpy as np
import pytest
from PIL import Image

from embed import arrays
from embed.documents import read_json

pytestmark = pytest.mark.slow

GIN = """
from __gin__ import dynamic_registration
from embed import sources
from embed.data import image_features
from embed.data import images
from embed.data import tasks
from embed.data import text_features
from embed.data import tokenizers
from embed.losses import contrastive
from embed.losses import symmetric
from embed.models import dual_encoder
from embed.models import embedder
from embed.models import heads
from embed.models import pooling
from embed.models import tips_text
from embed.models import vit
from embed.objectives import image_text
from embed.workflows import recipe
include 'runs/base.gin'
BATCH_SIZE = 8
TRAIN_STEPS = 6
LEARNING_RATE = 1e-3
CHECKPOINT_EVERY = 2
CACHE_DIR = 'cache'
recipe.Recipe.model = @dual_encoder.DualEncoder()
dual_encoder.DualEncoder.text = @embedder.Embedder()
dual_encoder.DualEncoder.image = @dual_encoder.ImageEmbedder()
dual_encoder.ImageEmbedder.encoder = @vit.VisionTransformer()
dual_encoder.ImageEmbedder.image_size = 16
embedder.Embedder.encoder = @tips_text.TipsText()
embedder.Embedder.pooling = @pooling.MeanPooling()
tips_text.TipsText.vocab_size = 294
tips_text.TipsText.width = 16
tips_text.TipsText.num_layers = 1
tips_text.TipsText.num_heads = 2
tips_text.TipsText.mlp_dim = 24
vit.VisionTransformer.patch_size = 4
vit.VisionTransformer.width = 16
vit.VisionTransformer.num_layers = 1
vit.VisionTransformer.num_heads = 2
vit.VisionTransformer.mlp_dim = 24
vit.VisionTransformer.position_grid = 4
vit.VisionTransformer.mask_token = True
recipe.Recipe.objective = @image_text.ImageText()
image_text.ImageText.loss_fn = @symmetric.Symmetric()
image_text.ImageText.captions = {'caption': 0, 'long_caption': 1}
image_text.ImageText.class_head = @heads.PrototypeHead()
image_text.ImageText.patch_head = @heads.PrototypeHead()
heads.PrototypeHead.num_prototypes = 16
heads.PrototypeHead.hidden = 12
heads.PrototypeHead.features = 8
symmetric.Symmetric.loss = @contrastive.Contrastive()
contrastive.Contrastive.learn_temperature = True
recipe.Recipe.features = [@image_features.Views(), @short/text_features.Text(), @long/text_features.Text()]
short/text_features.Text.name = 'caption'
long/text_features.Text.name = 'long_caption'
text_features.Text.length = 12
text_features.Text.side = 'target'
image_features.Views.whole = @whole/images.Crop()
whole/images.Crop.size = 16
whole/images.Crop.min_area = 0.4
image_features.Views.local = @local/images.Crop()
local/images.Crop.size = 8
local/images.Crop.min_area = 0.1
local/images.Crop.max_area = 0.4
image_features.Views.local_crops = 2
image_features.Views.patch_size = 4
recipe.Recipe.tokenizer = @tokenizers.SentencePiece()
tokenizers.SentencePiece.path = 'words.model'
tokenizers.SentencePiece.train_vocab_size = 294
recipe.Recipe.mixture = @tasks.Mixture()
tasks.Mixture.name = 'pictures'
tasks.Mixture.tasks = [@tasks.Task()]
tasks.Task.name = 'pictures'
tasks.Task.target_prompt = 'none'
tasks.Task.source = @sources.ImageFiles()
sources.ImageFiles.source = @sources.JsonLines()
sources.JsonLines.path = 'pictures.jsonl'
sources.JsonLines.fields = {'image': 'image', 'caption': 'name', 'long_caption': 'description'}
"""
TRAIN = ("train", "--gin_file=pictures.gin")
COLOURS = {"red": (200, 20, 20), "green": (20, 180, 40), "blue": (30, 30, 220), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run_embed):
    """A folder with pictures of coloured squares, and a finished run."""
    folder = tmp_path_factory.mktemp("pictures") / "work"
    (folder / "png").mkdir(parents=True)
    random, rows = np.random.default_rng(0), []
    for i in range(40):
        name = list(COLOURS)[i % 4]
        pixels = random.integers(0, 256, (20, 24, 3)).astype(np.uint8)
        left, top = random.integers(0, 10, 2)
        pixels[top : top + 10, left : left + 10] = COLOURS[name]
        Image.fromarray(pixels).save(folder / "png" / f"{i}.png")
        side = "left" if left < 7 else "right"
        rows.append(
            {"image": f"png/{i}.png", "name": name, "description": f"a {name} square on the {side}, number {i}"}
        )
    (folder / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pictures.gin").write_text(GIN)
    done = run_embed(folder, *TRAIN, "--run_dir=run")
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def digests(run_dir) -> dict[str, str]:
    """Returns the digest of every array of the last checkpoint."""
    leaves = {}
    for item in ("params", "learned", "moving", "opt_state"):
        for path, array in arrays.open_arrays(run_dir / "checkpoints" / "6", item).items():
            leaves[f"{item}/{path}"] = hashlib.sha256(array.read().result().tobytes()).hexdigest()
    return leaves


def test_the_run_says_what_it_learns_and_reports_every_term(folder):
    printed = (folder / "printed.txt").read_text()
    assert "model      TipsText and VisionTransformer: " in printed
    assert "image, views: one of 16 pixels, 2 of 8; 75% of the patches masked; caption; long_caption" in printed
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    row = [row for row in rows if row["kind"] == "train"][-1]
    for name in ("caption", "long_caption", "self_distillation", "masked_modelling"):
        assert np.isfinite(row[name]), name
    assert 0 < row["masked_modelling/entropy"] < np.log(16) and row["caption/temperature"] > 0
    described = read_json(folder / "run" / "checkpoints" / "6" / "model.json")["architecture"]
    assert described["type"] == "DualEncoder" and described["image"]["encoder"]["type"] == "VisionTransformer"


@pytest.mark.parametrize(
    "place", ["train.after_step_3", pytest.param("checkpoint.before_manifest", marks=pytest.mark.long)]
)
def test_killed_and_resumed_is_the_same_to_the_bit(folder, run_embed, place):
    run = f"killed-{place}"
    killed = run_embed(folder, *TRAIN, f"--run_dir={run}", EMBED_FAIL_AT=place)
    assert killed.returncode == -signal.SIGKILL
    resumed = run_embed(folder, *TRAIN, f"--run_dir={run}")
    assert resumed.returncode == 0, resumed.stderr
    expected = digests(folder / "run")
    assert digests(folder / run) == expected
    assert any(path.startswith("moving/teacher/model/") for path in expected)
    assert any(path.startswith("moving/centres/") for path in expected)


@pytest.mark.long
@pytest.mark.parametrize("hosts", [2, 4])
def test_several_hosts_see_the_views_of_one(folder, run_on_hosts, hosts):
    run_on_hosts(folder, hosts, *TRAIN, f"--run_dir=hosts{hosts}")
    losses = [
        [
            json.loads(line)["loss"]
            for line in (folder / run / "metrics.jsonl").read_text().splitlines()
            if "loss" in line
        ]
        for run in ("run", f"hosts{hosts}")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_picture_that_is_none_is_named_when_the_data_are_prepared(folder, run_embed, tmp_path):
    work = tmp_path / "work"
    (work / "png").mkdir(parents=True)
    file = io.BytesIO()
    Image.new("RGB", (30, 30)).save(file, "JPEG")
    (work / "png" / "0.jpg").write_bytes(file.getvalue()[:300])
    (work / "pictures.jsonl").write_text('{"image": "png/0.jpg", "name": "black", "description": "nothing at all"}\n')
    (work / "pictures.gin").write_text(GIN.replace("'words.model'", f"'{folder}/words.model'"))
    done = run_embed(work, "prepare", "--gin_file=pictures.gin")
    assert done.returncode == 65 and done.stderr.count("\n") == 1
    assert "pictures.jsonl:1: a damaged image (" in done.stderr


def test_its_average_embeds_texts_and_is_exported_with_both_towers(folder, run_embed):
    done = run_embed(folder, "average", "run", "--output=soup")
    assert done.returncode == 0, done.stderr
    (folder / "texts.jsonl").write_text('{"text": "red"}\n{"text": "a blue square on the left"}\n')
    done = run_embed(folder, "encode", "soup", "--input=texts.jsonl", "--output=vectors", "--format=npy")
    assert done.returncode == 0, done.stderr
    vectors = np.load(folder / "vectors" / "part-00000.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    assert vectors.shape == (2, 16)
    done = run_embed(folder, "export", "soup", "exported", "--format=stablehlo")
    assert done.returncode == 0, done.stderr
    done = run_embed(folder, "verify", "exported")
    assert done.returncode == 0, done.stderr
    assert " texts in jax: token ids equal" in done.stdout and "7 pictures in jax: largest error" in done.stdout
