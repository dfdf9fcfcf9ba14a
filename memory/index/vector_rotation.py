"""The tenant-keyed rotation of stored vectors: x -> R_t x, with R_t orthogonal and known to the key holder alone.

Inner products between two vectors of one tenant are kept, so every index and distance works as before; vectors of
different tenants become unrelated (cosines spread like those of random directions, 1/sqrt(d)).

    R_t = three rounds of: keyed signs, keyed permutation, Hadamard on the first b coordinates, then on the last b

with b the largest power of two <= d (where b == d the second block is left out). This is the fast stand-in for a
random rotation of Ailon and Chazelle, "The Fast Johnson-Lindenstrauss Transform" (SIAM J. Comput. 39, 2009).

The keystream is ChaCha20 under the subkey, all-zero nonce and counter, one stream per (subkey, d). A round reads
ceil(d/8) bytes, whose lowest bits first say which signs flip, then d little-endian 64-bit words, whose stable sort
order is the permutation. Stored vectors depend on every one of these details: `tests/vectors/` freezes them.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import ArrayLike, NDArray

Vectors = NDArray[np.float32]

MIN_DIM: Final = 64
MAX_DIM: Final = 1024
_ROUNDS: Final = 3
_SUBKEY_BYTES: Final = 32
# Rows turned at a time. Products of more rows wake the threads of BLAS, whose spinning cost more than the work.
_SLAB: Final = 64


class VectorRotation:
    """R_t of one tenant. Safe to share between threads: nothing changes after construction.

    Exact to float32 rounding. At d = 384 about 4 us a vector in batches of 1,000, 40 us for a single one.
    """

    def __init__(self, subkey: bytes, dim: int) -> None:
        """Derive R_t from the tenant's 32-byte subkey. Raises ValueError on another length, or a dim out of 64-1024."""
        if len(subkey) != _SUBKEY_BYTES:
            raise ValueError(f"a rotation subkey has {_SUBKEY_BYTES} bytes, not {len(subkey)}")
        if not MIN_DIM <= dim <= MAX_DIM:
            raise ValueError(f"rotations are built for {MIN_DIM} to {MAX_DIM} dimensions, not {dim}")
        self.dim: Final = dim
        self._rounds = _keyed_rounds(subkey, dim)
        block = 1 << (dim.bit_length() - 1)
        self._blocks = (slice(0, block),) if block == dim else (slice(0, block), slice(dim - block, dim))

    def __repr__(self) -> str:
        return f"<VectorRotation dim={self.dim}>"

    def apply(self, vectors: ArrayLike) -> Vectors:
        """Rotate vectors of shape (n, d) or (d,) into a new float32 array of that shape. ValueError on another d."""
        rows, shape = self._rows(vectors)
        return _by_slabs(self._turn, rows).reshape(shape)

    def invert(self, vectors: ArrayLike) -> Vectors:
        """Undo `apply`: shapes (n, d) or (d,), float32. ValueError on another d."""
        rows, shape = self._rows(vectors)
        return _by_slabs(self._turn_back, rows).reshape(shape)

    def _turn(self, rows: Vectors) -> Vectors:
        for signs, order, _ in self._rounds:
            rows = np.take(rows, order, axis=1)
            rows *= signs
            for block in self._blocks:
                rows[:, block] = _hadamard(rows[:, block])
        return rows

    def _turn_back(self, rows: Vectors) -> Vectors:
        rows = rows.copy()
        for signs, _, inverse_order in reversed(self._rounds):
            for block in reversed(self._blocks):
                rows[:, block] = _hadamard(rows[:, block])
            rows *= signs
            rows = np.take(rows, inverse_order, axis=1)
        return rows

    def _rows(self, vectors: ArrayLike) -> tuple[Vectors, tuple[int, ...]]:
        array = np.asarray(vectors, dtype=np.float32)
        if array.ndim not in (1, 2) or array.shape[-1] != self.dim:
            raise ValueError(f"expected vectors of shape (n, {self.dim}) or ({self.dim},), not {array.shape}")
        return array.reshape(-1, self.dim), array.shape


@lru_cache(maxsize=1024)  # 23 KB an entry at d = 384; a miss costs about 0.1 ms
def rotation_for(subkey: bytes, dim: int) -> VectorRotation:
    """The rotation of a tenant's subkey, built once and kept for the tenants seen last."""
    return VectorRotation(subkey, dim)


def _keyed_rounds(subkey: bytes, dim: int) -> tuple[tuple[Vectors, NDArray[np.intp], NDArray[np.intp]], ...]:
    """Per round: the signs as they stand after the permutation, the permutation, and its inverse."""
    sign_bytes = (dim + 7) // 8
    stream = _keystream(subkey, _ROUNDS * (sign_bytes + 8 * dim))
    rounds = []
    for chunk in stream.reshape(_ROUNDS, -1):
        flips = np.unpackbits(chunk[:sign_bytes], count=dim, bitorder="little")
        order = np.argsort(chunk[sign_bytes:].view("<u8"), kind="stable")
        signs = (1.0 - 2.0 * flips).astype(np.float32)[order]
        rounds.append((signs, order, np.argsort(order)))
    return tuple(rounds)


def _by_slabs(turn: Callable[[Vectors], Vectors], rows: Vectors) -> Vectors:
    """What `turn` makes of the rows, some at a time."""
    if len(rows) <= _SLAB:
        return turn(rows)
    return np.concatenate([turn(rows[first : first + _SLAB]) for first in range(0, len(rows), _SLAB)])


def _keystream(subkey: bytes, length: int) -> NDArray[np.uint8]:
    # A cipher, not numpy's generator, whose stream may change between versions: R_t must outlive every upgrade.
    # The subkey serves this one stream, so the constant nonce is never used twice for different data.
    encryptor = Cipher(ChaCha20(subkey, nonce=bytes(16)), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(length)), dtype=np.uint8)


def _hadamard(rows: Vectors) -> Vectors:
    """The normalised Walsh-Hadamard transform of each row, shape (n, b), in Sylvester's order.

    H_pq = H_p (x) H_q: two products with small matrices, in place of log2(b) passes over the data.
    """
    count, size = rows.shape
    q = 1 << (size.bit_length() // 2)
    p = size // q
    right = np.ascontiguousarray(rows).reshape(count * p, q) @ _hadamard_matrix(q)
    return np.matmul(_hadamard_matrix(p), right.reshape(count, p, q)).reshape(count, size)


@lru_cache
def _hadamard_matrix(size: int) -> Vectors:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix = (matrix / np.sqrt(size)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
