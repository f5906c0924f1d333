"""How stored vectors are served: cut to a Matryoshka size, and as float32, int8 or bits."""

import dataclasses

import numpy as np

from embed.errors import UsageError, did_you_mean
from embed.vectors import quantize_binary, quantize_int8, truncate_numpy

RESCORED = 40  # the candidates that are found by bits and ordered again by the query's float32


@dataclasses.dataclass(frozen=True)
class View:
    """One way to serve vectors. `precision` is a key of `PRECISIONS`."""

    dim: int
    precision: str = "float32"

    @property
    def name(self) -> str:
        """The size, followed by the precision unless that is float32."""
        return str(self.dim) if self.precision == "float32" else f"{self.dim} {self.precision}"

    @property
    def bytes_per_vector(self) -> int:
        """Bytes a stored vector takes; int8 includes the scale of each vector."""
        return {"float32": 4 * self.dim, "int8": self.dim + 4}.get(self.precision, -(-self.dim // 8))

    def documents(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [n, E] as they are stored in an index, as float32 of the same cosines [n, dim]."""
        return PRECISIONS[self.precision](truncate_numpy(vectors, self.dim))

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [n, E] as a query is compared with the index: in float32 where candidates are rescored."""
        return truncate_numpy(vectors, self.dim) if self.rescores else self.documents(vectors)

    @property
    def is_binary(self) -> bool:
        """Whether an index holds bits."""
        return self.precision.startswith("binary")

    @property
    def rescores(self) -> bool:
        """Whether the best candidates by bits are ordered again by the float32 query."""
        return self.precision == "binary-rescored"


def _int8(vectors: np.ndarray) -> np.ndarray:
    values, scales = quantize_int8(vectors)
    return values.astype(np.float32) * scales[:, None]


def _binary(vectors: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(quantize_binary(vectors), axis=-1)[:, : vectors.shape[1]]
    return (2.0 * bits - 1.0).astype(np.float32) / np.float32(np.sqrt(vectors.shape[1]))


PRECISIONS = {"float32": lambda vectors: vectors, "int8": _int8, "binary": _binary, "binary-rescored": _binary}


def views(dims, precisions) -> list[View]:
    """Returns all sizes in all precisions; an unknown precision is a UsageError."""
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"--quantize: {precision!r}{did_you_mean(precision, PRECISIONS)}")
    return [View(dim, precision) for precision in precisions for dim in dims]
