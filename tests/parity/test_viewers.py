"""What `embed index --export` writes, read by TensorBoard's projector and by embedding-atlas.

embedding-atlas is not among the packages of the tests, for its size: pip install embedding-atlas==0.26.0
"""

import json

import made_index
import numpy as np
import pytest

from embed.index import tables

pytestmark = pytest.mark.parity
COUNT = 40


@pytest.fixture
def index(tmp_path):
    def fields(i):
        return {"text": f"text\tof\n{i}", "kind": "odd" if i % 2 else "even"}

    return made_index.make(tmp_path / "index", made_index.unit(COUNT), fields=fields)


def test_the_projector_plugin_serves_the_vectors_and_the_texts(index, tmp_path):
    werkzeug = pytest.importorskip("werkzeug.test")
    pytest.importorskip("tensorboard")
    from tensorboard.backend import application
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.projector import projector_plugin

    tables.write(index, tmp_path / "points", "projector")
    context = base_plugin.TBContext(
        logdir=str(tmp_path / "points"),
        data_provider=data_provider.MultiplexerDataProvider(plugin_event_multiplexer.EventMultiplexer(), ""),
    )
    plugin = projector_plugin.ProjectorPlugin(context)
    client = werkzeug.Client(application.TensorBoardWSGI([plugin]))
    base = "/data/plugin/projector/"
    info = json.loads(client.get(f"{base}info?run=.").get_data())
    (embedding,) = info["embeddings"]
    assert embedding["tensorName"] == "documents" and embedding["tensorShape"] == [COUNT, 8]
    raw = client.get(f"{base}tensor?run=.&name=documents&num_rows=100000").get_data()
    np.testing.assert_array_equal(np.frombuffer(raw, np.float32).reshape(COUNT, 8), made_index.unit(COUNT))
    metadata = client.get(f"{base}metadata?run=.&name=documents&num_rows=100000").get_data().decode()
    lines = [line.split("\t") for line in metadata.removesuffix("\n").split("\n")]
    assert lines[0] == ["id", "text", "kind"] and len(lines) == COUNT + 1
    assert lines[1:] == [[f"a{i}", f"text of {i}", "odd" if i % 2 else "even"] for i in range(COUNT)]


def test_embedding_atlas_projects_the_vectors_of_the_table(index, tmp_path):
    projection = pytest.importorskip("embedding_atlas.projection")
    from embedding_atlas.utils import load_pandas_data

    tables.write(index, tmp_path / "t.parquet", "parquet")
    table = load_pandas_data(str(tmp_path / "t.parquet"))
    assert list(table["kind"][:2]) == ["even", "odd"] and table["text"][3] == "text\tof\n3"
    options = {"random_state": 0, "n_neighbors": 6, "n_jobs": 1, "metric": "cosine"}
    found = projection.compute_projection(table, inputs=tables.VECTOR, modality="vector", umap_args=options)
    assert np.isfinite(found[["projection_x", "projection_y"]].to_numpy()).all()
    # Its neighbours are those of numpy, the document itself among them.
    nearest = np.argsort(-made_index.unit(COUNT) @ made_index.unit(COUNT).T, axis=1)[:, :6]
    assert [set(row["ids"]) for row in found["neighbors"]] == [set(row) for row in nearest]
