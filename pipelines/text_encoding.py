"""Free text as averaged embeddings of hashed character n-grams, learned without the target (numpy, no TensorFlow).

The n-grams of 3 and 5 characters of a text (McNamee and Mayfield, 2004) are hashed to buckets, weighted by how rare
they are, and projected on the directions in which the training texts differ most (latent semantic analysis, Deerwester
et al., 1990). Misspelt and unseen words share most of their n-grams with known ones. The hash is whole-number
arithmetic on code points that TensorFlow does alike, see ``pipelines.text_encoder``.

Notation: L characters, B buckets, D directions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from pipelines.raw_columns import raw_column
from pipelines.schema import FeatureSpec, checked_fields

MAX_CHARACTERS = 256
"""Characters of a text that are read."""

NGRAMS = (3, 5)
NUM_BUCKETS = 4_096
MAX_DIRECTIONS = 24
MAX_ROWS = 20_000
"""Training rows that the directions are learned from, spread evenly."""

SPACE = 32
MULTIPLIER = 1_099_511_628_211  # of FNV-1a
MIXER = -7_046_029_254_386_353_131  # 2**64 over the golden ratio, odd, as int64
SHIFT = 40

UPPER_RANGES = ((0x41, 0x5A), (0xC0, 0xD6), (0xD8, 0xDE), (0x391, 0x3A9), (0x410, 0x42F))
"""Code points of capitals whose small letter is 32 further: Latin, Greek, Cyrillic."""

LETTER_RANGES = ((0x30, 0x39), (0x61, 0x7A))
"""ASCII that is kept; any other ASCII character becomes a blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoding:
    """A column of text.

    Attributes:
        name: Name of the column.
        projection: float32 of shape ``(NUM_BUCKETS, D)``, little-endian, base64: rarity times direction.
        num_directions: D.
        mean: Mean of each direction over the training rows, ``(D,)``.
        inverse_scale: One over its standard deviation, ``(D,)``.
        length_mean: Mean of ln(1 + characters) over the training rows.
        length_inverse_scale: One over its standard deviation.
        has_indicator: A further column says whether the text was missing.
        reason: What was learned from what.
    """

    name: str
    projection: str
    num_directions: int
    mean: tuple[float, ...]
    inverse_scale: tuple[float, ...]
    length_mean: float
    length_inverse_scale: float
    has_indicator: bool
    reason: str

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        parts = [f"{self.name}: text {number}" for number in range(1, self.num_directions + 1)]
        return (*parts, f"{self.name}: length", *([f"{self.name}: missing"] * self.has_indicator))

    @property
    def matrix(self) -> NDArray[np.float32]:
        """The projection, ``(NUM_BUCKETS, D)``."""
        flat = np.frombuffer(base64.b64decode(self.projection), "<f4").astype(np.float32)
        return flat.reshape(NUM_BUCKETS, self.num_directions)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TextEncoding:
        """Rebuild what ``dataclasses.asdict`` wrote as JSON."""
        values = checked_fields(cls, record)
        return cls(**values | {name: tuple(values[name]) for name in ("mean", "inverse_scale")})


def fit_text(train: pa.Table, feature: FeatureSpec) -> TextEncoding:
    """Learn the directions of a column of text.

    Args:
        train: The training rows.
        feature: The column.
    """
    texts = [bytes(value) for value in raw_column(train, feature)]
    step = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), MAX_ROWS)).astype(np.intp))
    counts = ngram_shares([texts[row] for row in step])
    present = np.asarray((counts > 0).sum(axis=0)).ravel()
    rarity = np.log((1 + counts.shape[0]) / (1 + present)) + 1.0
    weighted = counts @ scipy.sparse.diags_array(rarity)
    most = int(min(MAX_DIRECTIONS, max(1, min((present > 0).sum(), counts.shape[0]) - 1)))
    _, strengths, directions = randomized_svd(weighted, most, n_iter=4, random_state=0)
    # Beyond the rank of few texts there is rounding, which would be scaled up to the size of what is known.
    num = max(1, int((strengths > 0.01 * strengths[0]).sum()))
    directions = directions[:num]
    projection = (rarity[:, np.newaxis] * directions.T).astype(np.float32)
    positions = unit_length(counts @ projection.astype(np.float64))
    mean, deviation = positions.mean(axis=0), positions.std(axis=0)
    lengths = np.log1p(np.array([len(code_points(texts[row])) for row in step], np.float64))
    return TextEncoding(
        name=feature.name,
        projection=base64.b64encode(projection.astype("<f4").tobytes()).decode("ascii"),
        num_directions=num,
        mean=tuple(map(_float32, mean)),
        inverse_scale=tuple(_float32(1.0 / one if one > 1e-6 else 1.0) for one in deviation),
        length_mean=_float32(lengths.mean()),
        length_inverse_scale=_float32(1.0 / lengths.std() if lengths.std() > 1e-6 else 1.0),
        has_indicator=any(not text.strip() for text in texts),
        reason=f"{num} directions in which {counts.shape[0]:,} training texts differ most, of character n-grams of "
        f"{' and '.join(map(str, NGRAMS))} hashed to {NUM_BUCKETS:,} buckets; and the length",
    )


def code_points(text: bytes) -> NDArray[np.int64]:
    """Return the folded characters of a text, at most ``MAX_CHARACTERS``, blanks around it left out.

    Args:
        text: UTF-8.
    """
    whole = text.strip().decode("utf-8", errors="replace")[:MAX_CHARACTERS]
    points = np.frombuffer(whole.encode("utf-32-le"), "<u4").astype(np.int64)
    for low, high in UPPER_RANGES:
        points = np.where((points >= low) & (points <= high), points + 32, points)
    kept = points >= 128
    for low, high in LETTER_RANGES:
        kept |= (points >= low) & (points <= high)
    folded: NDArray[np.int64] = np.where(kept, points, SPACE)
    return folded


def ngram_shares(texts: Sequence[bytes]) -> scipy.sparse.csr_array:
    """Return the share of each text's n-grams in each bucket, ``(num_texts, NUM_BUCKETS)``; zeros for no n-gram.

    Args:
        texts: UTF-8.
    """
    buckets = [_buckets(code_points(text)) for text in texts]
    sizes = np.array([len(found) for found in buckets], np.int64)
    data = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
    columns = np.concatenate(buckets) if buckets else np.zeros(0, np.int64)
    starts = np.r_[0, np.cumsum(sizes)]
    shares = scipy.sparse.csr_array((data, columns, starts), shape=(len(texts), NUM_BUCKETS))
    shares.sum_duplicates()
    return shares


def unit_length(rows: Any) -> NDArray[np.float64]:
    """Return rows of length 1; those of length 0 stay.

    Args:
        rows: ``(num_rows, D)``.
    """
    rows = np.asarray(rows, np.float64)
    scaled: NDArray[np.float64] = rows / np.maximum(np.sqrt((rows**2).sum(axis=1, keepdims=True)), 1e-12)
    return scaled


def _buckets(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of every n-gram of a text with a blank at either end."""
    if not len(points):
        return np.zeros(0, np.int64)
    padded = np.concatenate([[SPACE], points, [SPACE]]).astype(np.int64)
    found = []
    for size in NGRAMS:
        starts = len(padded) - size + 1
        if starts <= 0:
            continue
        hashed = np.full(starts, size, np.int64)
        for offset in range(size):
            hashed = hashed * MULTIPLIER + padded[offset : offset + starts]  # modulo 2**64, as int64 wraps around
        found.append(((hashed * MIXER) >> SHIFT) & (NUM_BUCKETS - 1))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _float32(value: Any) -> float:
    return float(np.float32(value))
