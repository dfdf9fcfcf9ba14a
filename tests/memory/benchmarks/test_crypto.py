"""`manage.py benchmark_crypto`, at sizes that say nothing about speed."""

import json
from io import StringIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.management import call_command

from memory.benchmarks.crypto import READING, SIZES, pairs, raw_open, raw_seal, row_macs, targets
from memory.security import OVERHEAD


def test_prints_one_json_object_with_every_size_and_target() -> None:
    out = StringIO()
    call_command("benchmark_crypto", "--json", "--seconds", "0.001", stdout=out)
    report = json.loads(out.getvalue())
    assert [(row["operation"], row["bytes"]) for row in report["results"]] == [
        *((operation, size) for size in SIZES for operation in ("seal", "open_sealed")),
        (READING, row_macs().size),
    ]
    assert f"{READING}, 24 rows: p50" in {target["name"] for target in report["targets"]}
    assert all(row["ratio"] > 0 and row["p50_us"] <= row["p99_us"] for row in report["results"])
    assert "seal, 1,024 B: ratio to raw AESGCM" in {target["name"] for target in report["targets"]}


def test_prints_a_table() -> None:
    out = StringIO()
    call_command("benchmark_crypto", "--seconds", "0.001", stdout=out)
    assert "ratio to raw AESGCM" in out.getvalue()


def test_both_sides_of_a_pair_do_the_same_work() -> None:
    sealing, opening = pairs(32)
    assert len(sealing.product()) == len(sealing.raw()) == 32 + OVERHEAD
    assert opening.product() == opening.raw()


def test_the_raw_side_opens_what_it_sealed() -> None:
    cipher = AESGCM(AESGCM.generate_key(256))
    assert raw_open(cipher, raw_seal(cipher, b"text", b"aad"), b"aad") == b"text"


def test_a_slow_product_misses_its_targets() -> None:
    row = {"operation": "seal", "bytes": 1024, "ops_s": 4000, "ratio": 0.79, "p99_us": 1500.0}
    assert [target.ok for target in targets([row])] == [False] * 4
