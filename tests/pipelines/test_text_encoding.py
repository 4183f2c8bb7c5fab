"""Text by its n-grams: TensorFlow and NumPy agree, a row's bits do not depend on its batch, likeness is kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schema import FeatureKind, FeatureSpec, RawType
from pipelines.text_encoder import TextEncoder
from pipelines.text_encoding import (
    MAX_CHARACTERS,
    NUM_BUCKETS,
    TextEncoding,
    code_points,
    fit_text,
    ngram_shares,
    unit_length,
)

FEATURE = FeatureSpec("t", kind=FeatureKind.TEXT, raw_type=RawType.STRING, reason="")
WORDS = ["strong", "coffee", "weak", "tea", "fresh", "bread", "stale", "cake", "ÉCLAIR", "суп", "日本茶"]


def texts(number: int = 200) -> list[str | None]:
    rng = np.random.default_rng(0)
    made: list[str | None] = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(number)]
    made[3], made[4], made[5] = None, "", "x" * 5_000
    return made


@pytest.fixture(scope="module")
def column() -> TextEncoding:
    return fit_text(pa.table({"t": pa.array(texts())}), FEATURE)


@pytest.fixture(scope="module")
def encode(column: TextEncoding) -> Any:
    specification = [tf.TensorSpec((None,), tf.string)]
    return tf.function(TextEncoder(column).__call__, input_signature=specification)


def by_numpy(raw: list[bytes], column: TextEncoding) -> Any:
    places = unit_length(ngram_shares(raw) @ column.matrix.astype(np.float64))
    scaled = np.clip((places - np.array(column.mean)) * np.array(column.inverse_scale), -10, 10)
    lengths = np.log1p([len(code_points(text)) for text in raw])
    nowhere = np.abs(places).max(axis=1, keepdims=True) == 0
    parts = [np.where(nowhere, 0.0, scaled), ((lengths - column.length_mean) * column.length_inverse_scale)[:, None]]
    return np.concatenate([*parts, [[not code_points(text).size] for text in raw]], axis=1)


def test_tensorflow_hashes_and_projects_as_numpy_does(encode: Any, column: TextEncoding) -> None:
    raw = [(text or "").encode() for text in texts()]
    np.testing.assert_allclose(encode(tf.constant(raw)).numpy(), by_numpy(raw, column), atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_any_text_is_encoded_alike_by_both(encode: Any, column: TextEncoding, made: list[str]) -> None:
    raw = [text.encode() for text in made]
    counted = np.abs(ngram_shares(raw) @ column.matrix.astype(np.float64)).max(axis=1)
    sure = (counted == 0) | (counted > 1e-3)  # the direction of what nearly cancels out is rounding
    found = encode(tf.constant(raw)).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[sure], by_numpy(raw, column)[sure], atol=2e-3)


def test_a_text_gets_the_same_bits_alone_and_beside_longer_ones(encode: Any) -> None:
    raw = [(text or "").encode() for text in texts(40)]
    together = encode(tf.constant(raw)).numpy()
    for row, text in enumerate(raw):
        np.testing.assert_array_equal(encode(tf.constant([text])).numpy()[0], together[row])


def test_no_rows_give_no_rows(encode: Any, column: TextEncoding) -> None:
    assert encode(tf.constant([], tf.string)).shape == (0, len(column.part_names))


def test_a_misspelt_text_is_nearer_to_its_own_than_to_another(encode: Any, column: TextEncoding) -> None:
    raw = [b"strong coffee", b"strong cofee", b"stale cake"]
    own, misspelt, other = encode(tf.constant(raw)).numpy()[:, : column.num_directions]
    assert np.linalg.norm(own - misspelt) < 0.7 * np.linalg.norm(own - other)


def test_case_and_punctuation_do_not_matter() -> None:
    assert code_points(" ÉCLAIR, Суп! ".encode()).tolist() == code_points("éclair  суп ".encode() + b"~").tolist()[:12]


def test_a_long_text_is_cut(encode: Any) -> None:
    long, cut = ("tea " * 900).encode(), ("tea " * 900)[:MAX_CHARACTERS].encode()
    assert code_points(long).size == MAX_CHARACTERS
    np.testing.assert_array_equal(*encode(tf.constant([long, cut + b"\xff" * 9])).numpy()[:, :-2])


def test_missing_text_stands_in_the_middle_and_is_told(encode: Any, column: TextEncoding) -> None:
    assert column.has_indicator
    assert column.part_names[-2:] == ("t: length", "t: missing")
    row = encode(tf.constant(["   "])).numpy()[0]
    assert (row[: column.num_directions] == 0).all()
    assert row[-1] == 1.0


def test_the_state_round_trips_through_json(column: TextEncoding) -> None:
    record = json.loads(json.dumps({name: getattr(column, name) for name in column.__slots__}))
    assert TextEncoding.from_json(record) == column
    assert column.matrix.shape == (NUM_BUCKETS, column.num_directions)


def test_two_equal_texts_have_one_direction() -> None:
    column = fit_text(pa.table({"t": ["same text"] * 30}), FEATURE)
    assert column.num_directions == 1
    assert np.isfinite(TextEncoder(column)(tf.constant(["same text", "other"])).numpy()).all()
