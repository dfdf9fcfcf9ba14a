import json
import math
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.index.vector_rotation import VectorRotation, rotation_for

FROZEN = json.loads((Path(__file__).parents[2] / "vectors" / "vector_rotation.json").read_text())
SUBKEY = bytes(range(32))

dims = st.one_of(st.sampled_from([64, 65, 127, 128, 384, 1023, 1024]), st.integers(64, 1024))
subkeys = st.binary(min_size=32, max_size=32)


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ramp(dim: int) -> list[float]:
    """The input of the frozen vectors: quarters, exact in float32, without any symmetry to hide behind."""
    return [((7 * i * i + 3 * i) % 23 - 11) / 4 for i in range(dim)]


def reference_rotation(subkey: bytes, vector: list[float]) -> list[float]:
    """The module docstring read literally: plain Python, float64, one butterfly at a time."""
    dim, block = len(vector), 2 ** int(math.log2(len(vector)))
    sign_bytes = math.ceil(dim / 8)
    stream = Cipher(ChaCha20(subkey, bytes(16)), None).encryptor().update(bytes(3 * (sign_bytes + 8 * dim)))
    for _ in range(3):
        flips, words, stream = stream[:sign_bytes], stream[sign_bytes:], stream[sign_bytes + 8 * dim :]
        keys = [int.from_bytes(words[8 * i : 8 * i + 8], "little") for i in range(dim)]
        signed = [-x if flips[i // 8] >> (i % 8) & 1 else x for i, x in enumerate(vector)]
        vector = [signed[i] for i in sorted(range(dim), key=keys.__getitem__)]
        vector[:block] = walsh_hadamard(vector[:block])
        if block < dim:
            vector[dim - block :] = walsh_hadamard(vector[dim - block :])
    return vector


def walsh_hadamard(values: list[float]) -> list[float]:
    if len(values) == 1:
        return values
    half = len(values) // 2
    sums = [(a + b) / math.sqrt(2) for a, b in zip(values[:half], values[half:], strict=True)]
    differences = [(a - b) / math.sqrt(2) for a, b in zip(values[:half], values[half:], strict=True)]
    return walsh_hadamard(sums) + walsh_hadamard(differences)


@pytest.mark.parametrize("case", FROZEN["cases"], ids=lambda case: f"dim{case['dim']}")
def test_matches_the_frozen_vectors(case):
    rotated = VectorRotation(bytes.fromhex(case["subkey"]), case["dim"]).apply(ramp(case["dim"]))
    np.testing.assert_allclose(rotated[: len(case["rotated"])], case["rotated"], rtol=1e-6, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(subkeys, dims)
def test_equals_a_plain_reading_of_the_definition(subkey, dim):
    vector = unit_vectors(1, dim)[0]
    rotated = VectorRotation(subkey, dim).apply(vector)
    np.testing.assert_allclose(rotated, reference_rotation(subkey, vector.tolist()), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(subkeys, dims, st.integers(0, 2**32 - 1))
def test_keeps_inner_products_and_can_be_undone(subkey, dim, seed):
    vectors = unit_vectors(8, dim, seed)
    rotation = VectorRotation(subkey, dim)
    rotated = rotation.apply(vectors)
    np.testing.assert_allclose(rotated @ rotated.T, vectors @ vectors.T, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rotation.invert(rotated), vectors, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [64, 100, 384, 1023])
def test_tenants_decorrelate(dim):
    vectors = unit_vectors(100, dim)
    tenants = [VectorRotation(bytes([tenant]) * 32, dim).apply(vectors) for tenant in range(12)]
    cosines = np.concatenate([(a @ b.T).ravel() for a, b in zip(tenants, tenants[1:], strict=False)])
    assert np.std(cosines) == pytest.approx(1 / math.sqrt(dim), rel=0.1)
    assert abs(np.mean(cosines)) < 0.1 / math.sqrt(dim)


@pytest.mark.parametrize("dim", [64, 65, 384, 1000])
def test_even_one_coordinate_alone_is_spread_over_all(dim):
    rotated = VectorRotation(SUBKEY, dim).apply(np.eye(dim, dtype=np.float32))
    assert np.abs(rotated).max() < 8 / math.sqrt(dim)
    same_text_two_tenants = np.sum(rotated * VectorRotation(SUBKEY[::-1], dim).apply(np.eye(dim)), axis=1)
    assert np.std(same_text_two_tenants) == pytest.approx(1 / math.sqrt(dim), rel=0.25)


def test_one_vector_and_many_agree_and_the_input_stays():
    vectors = unit_vectors(5, 384)
    before = vectors.copy()
    rotation = VectorRotation(SUBKEY, 384)
    many = rotation.apply(vectors)
    rotation.invert(many)
    assert many.dtype == np.float32
    np.testing.assert_allclose([rotation.apply(list(map(float, row))) for row in vectors], many, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(vectors, before)
    assert rotation.apply(np.empty((0, 384))).shape == (0, 384)


@pytest.mark.parametrize("dim", [0, 63, 1025])
def test_refuses_dimensions_it_is_not_built_for(dim):
    with pytest.raises(ValueError, match="64 to 1024"):
        VectorRotation(SUBKEY, dim)


@pytest.mark.parametrize("shape", [(383,), (2, 385), (1, 1, 384), ()])
def test_refuses_vectors_of_another_shape(shape):
    with pytest.raises(ValueError, match="expected vectors"):
        VectorRotation(SUBKEY, 384).apply(np.zeros(shape))


def test_refuses_a_short_subkey_without_showing_it():
    with pytest.raises(ValueError, match="32 bytes, not 6") as error:
        VectorRotation(b"secret", 384)
    assert "secret" not in str(error.value)


def test_is_cached_per_subkey_and_dimension_within_a_bound():
    assert rotation_for(SUBKEY, 384) is rotation_for(SUBKEY, 384)
    assert rotation_for(SUBKEY, 384) is not rotation_for(SUBKEY, 385)
    assert rotation_for(SUBKEY, 384) is not rotation_for(SUBKEY[::-1], 384)
    assert rotation_for.cache_info().maxsize is not None


def test_repr_and_attributes_hold_no_key():
    rotation = VectorRotation(b"k" * 32, 64)
    assert repr(rotation) == "<VectorRotation dim=64>"
    assert b"k" * 32 not in vars(rotation).values()
