"""Encoded rows of a table that is not held in memory: encoded once, a part at a time, to files (TensorFlow).

Training rows come first, dealt to blocks like cards, so that a block holds rows from all over the table and a batch
drawn from some dozens of blocks is about a uniform sample (`pipelines.shards`). Validation rows follow in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from app.data_files import LEARNED_COLUMN, SPLIT_COLUMN, judged_rows
from app.encoded_rows import finish_encoded, load_encoded, unfinished
from app.evaluation.baselines import EncodedRows
from pipelines.encoder import Encoder
from pipelines.preprocessing import TrainingMeans
from pipelines.raw_columns import encode_target, raw_columns
from pipelines.row_weights import row_weights
from pipelines.schema import DatasetSchema
from pipelines.shards import BLOCK_ROWS, ShardFile, Shards
from pipelines.splits import Split

CHUNK_ROWS = 1 << 16

MAX_IN_MEMORY = 256 << 20
"""Bytes of encoded features up to which they are held in memory for training."""

EPOCH_ROWS = 250_000
"""Rows that an epoch has at most where they are read from disk, others in each epoch.

An epoch is what a learning rate, a scheduler and early stopping go by: on ten million rows the first one alone would
take all of a short search.
"""

_SEED = 104_729


def encode_stored(table: pa.Table, schema: DatasetSchema, encoder: Encoder, *, folder: Path) -> EncodedRows:
    """Returns training and validation rows encoded, on disk; encodes them if no worker did so before (R5).

    Args:
        table: Development rows, memory-mapped, the training rows first.
        schema: The columns.
        encoder: Raw columns -> encoded features.
        folder: Where they are kept.
    """
    if not folder.is_dir():
        _encode(table, schema, encoder, folder=folder)
    return load_encoded(folder)


def split_stored(rows: EncodedRows, table: pa.Table) -> tuple[EncodedRows, EncodedRows]:
    """Returns training rows, whose features stay on disk, and the validation rows that select (`judged_rows`).

    Args:
        rows: What `encode_stored` returned.
        table: Development rows.
    """
    num_training = int((table.column(SPLIT_COLUMN).to_numpy() == Split.TRAIN).sum())
    return rows.take(slice(0, num_training)), rows.take(judged_rows(table))


def is_dealt(table: pa.Table) -> bool:
    """Returns whether development rows are those of a table that is not held in memory."""
    return LEARNED_COLUMN in table.column_names


def shards_of(rows: EncodedRows) -> Shards | None:
    """Returns the features of rows as files to train from; None where they are better held in memory.

    Args:
        rows: Rows from the beginning of what `encode_stored` returned, or rows in memory.
    """
    matrices = {"numeric": rows.numeric, "categorical": rows.categorical}
    on_disk = {name: array for name, array in matrices.items() if isinstance(array, np.memmap) and array.shape[1]}
    if sum(array.nbytes for array in on_disk.values()) <= MAX_IN_MEMORY:
        return None
    files = {
        name: ShardFile(path=Path(str(array.filename)), offset=array.offset, width=array.shape[1], dtype=array.dtype)
        for name, array in on_disk.items()
    }
    return Shards(files=files, num_rows=rows.num_rows)


def _encode(table: pa.Table, schema: DatasetSchema, encoder: Encoder, *, folder: Path) -> None:
    splits = table.column(SPLIT_COLUMN).to_numpy()
    num_training = int((splits == Split.TRAIN).sum())
    learned = table.column(LEARNED_COLUMN).to_numpy(zero_copy_only=False)
    means = None
    if encoder.state.targets:
        training = splits == Split.TRAIN
        means = TrainingMeans(table, schema, encoder.state, learned=learned, training=training)
    temporary = unfinished(folder)
    files: dict[str, np.memmap] = {}
    places = _places(num_training, table.num_rows)
    start = 0
    for chunk in _chunks(table):
        encoded = encoder.encode_in_batches(raw_columns(chunk, schema))
        if means is not None:
            means.write(encoded["numeric"], chunk, start=start)
        where = places[start : start + chunk.num_rows]
        for name, array in encoded.items():
            if name not in files:
                shape = (table.num_rows, array.shape[1])
                files[name] = open_memmap(temporary / f"{name}.npy", mode="w+", dtype=array.dtype, shape=shape)
            files[name][where] = array
        start += chunk.num_rows
    for file in files.values():
        file.flush()
    weights = None if schema.weight is None else _moved(row_weights(table, schema.weight), places)
    finish_encoded(folder, y=_moved(encode_target(table, schema.target), places), weights=weights)


def _moved(array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    moved = np.empty_like(array)
    moved[places] = array
    return moved


def _places(num_training: int, num_rows: int) -> NDArray[np.int64]:
    """Returns where each row goes: training rows are dealt in turn, in another order each turn; the others stay."""
    places = np.arange(num_rows)
    piles = max(1, num_training // BLOCK_ROWS)
    height = num_training // piles
    generator = np.random.default_rng(_SEED)
    for turn in range(height):
        # A table with a period, such as one row a shop and day, must not put a shop on each pile.
        places[turn * piles : (turn + 1) * piles] = generator.permutation(piles) * height + turn
    return places


def _chunks(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield table.slice(start, CHUNK_ROWS)
