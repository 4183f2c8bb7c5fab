"""What every source has to do. A new one is a line of `STORED`: the same rows must mean the same, wherever they are."""

from __future__ import annotations

import datetime
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from app.config import ExperimentConfig
from app.read_rows import store_source
from pipelines.inference import infer_features
from pipelines.preprocessing import fit_preprocessing
from pipelines.raw_columns import raw_columns
from pipelines.row_hash import hash_rows
from pipelines.schema import DatasetSchema
from pipelines.sources import FORMATS, SOURCES, Origin, Source, SourceTable, open_source
from pipelines.splits import Split, assign_splits
from pipelines.target_inference import infer_target

NUM_ROWS = 240
# Protobuf and tensorflow-datasets warn of what newer versions of NumPy and Python will change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def make_rows() -> pd.DataFrame:
    """Whole numbers with gaps, decimals, text with gaps and all scripts, truths and dates."""
    rng = np.random.default_rng(3)
    price = rng.normal(100, 30, NUM_ROWS).round(2)
    city = rng.choice(np.array(["Málaga", "東京", 'a "quoted", one', "x"], object), NUM_ROWS)
    day = datetime.datetime(2021, 3, 1, 12, 30)
    return pd.DataFrame(
        {
            "rooms": pd.array(np.where(rng.random(NUM_ROWS) < 0.1, None, rng.integers(1, 9, NUM_ROWS)), "Int64"),
            "price": price,
            "city": np.where(rng.random(NUM_ROWS) < 0.1, None, city),
            "garden": rng.random(NUM_ROWS) < 0.5,
            "built": [day + datetime.timedelta(days=int(days)) for days in rng.integers(0, 900, NUM_ROWS)],
            "sold": np.where(price > 100, "yes", "no"),
        }
    )


FRAME = make_rows()


def text_rows() -> list[dict[str, Any]]:
    """The rows as JSON has them."""
    rows = FRAME.assign(built=FRAME["built"].dt.strftime("%Y-%m-%dT%H:%M:%S")).astype(object)
    return rows.where(rows.notna(), None).to_dict("records")


def dataset() -> Any:
    """The rows as a tf.data.Dataset, which has no missing values but NaN and empty text."""
    import tensorflow as tf

    columns = {
        "rooms": FRAME["rooms"].to_numpy(np.float64, na_value=np.nan),
        "price": FRAME["price"].to_numpy(),
        "city": FRAME["city"].fillna("").to_numpy(),
        "garden": FRAME["garden"].to_numpy(),
        "built": FRAME["built"].dt.strftime("%Y-%m-%dT%H:%M:%S").to_numpy(),
        "sold": FRAME["sold"].to_numpy(),
    }
    return tf.data.Dataset.from_tensor_slices(columns)


def csv(folder: Path) -> Source:
    FRAME.to_csv(folder / "rows.csv", index=False)
    return open_source(folder / "rows.csv")


def csv_parts(folder: Path) -> Source:
    for number, name in enumerate(["a.csv", "b.csv.gz", "c.csv.zst"]):
        FRAME.iloc[number * 80 : (number + 1) * 80].to_csv(folder / name, index=False, compression=None)
        pack(folder / name)
    return open_source(str(folder / "*.csv*"))


def pack(path: Path) -> None:
    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    content = path.read_bytes()
    if kind:
        with pa.CompressedOutputStream(str(path), kind) as stream:
            stream.write(content)


def parquet(folder: Path) -> Source:
    pq.write_table(pa.Table.from_pandas(FRAME), folder / "rows.parquet", row_group_size=70)
    return open_source(folder / "rows.parquet")


def partitioned(folder: Path) -> Source:
    pq.write_to_dataset(pa.Table.from_pandas(FRAME), folder / "rows", partition_cols=["sold"])
    return open_source(folder / "rows")


def arrow(folder: Path) -> Source:
    table = pa.Table.from_pandas(FRAME)
    with pa.OSFile(str(folder / "rows.arrows"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return open_source(folder / "rows.arrows")


def feather(folder: Path) -> Source:
    pyarrow.feather.write_feather(pa.Table.from_pandas(FRAME), folder / "rows.feather")
    return open_source(folder / "rows.feather")


def json_lines(folder: Path) -> Source:
    import json

    # What is missing is left out here, and null there.
    lines = [
        json.dumps({k: v for k, v in row.items() if v is not None or number % 2})
        for number, row in enumerate(text_rows())
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return open_source(folder / "rows.jsonl")


def excel(folder: Path) -> Source:
    FRAME.to_excel(folder / "rows.xlsx", index=False)
    return open_source(folder / "rows.xlsx")


def numpy_arrays(folder: Path) -> Source:
    rows, names = text_rows(), ("garden", "built", "sold")
    columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in names}
    columns["city"] = FRAME["city"].fillna("").to_numpy("U")
    columns["rooms"] = FRAME["rooms"].to_numpy(np.float64, na_value=np.nan)
    np.savez(folder / "rows.npz", **{"price": FRAME["price"].to_numpy(), **columns})
    return open_source(folder / "rows.npz")


def tfrecord(folder: Path) -> Source:
    import tensorflow as tf

    def feature(value: Any) -> Any:
        if value is None:
            return tf.train.Feature()
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    with tf.io.TFRecordWriter(str(folder / "rows.tfrecord")) as writer:
        for row in text_rows():
            features = tf.train.Features(feature={name: feature(value) for name, value in row.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return open_source(folder / "rows.tfrecord")


def prepared_dataset(folder: Path) -> Source:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "rooms": tf.float32,
            "price": tf.float64,
            "city": tfds.features.Text(),
            "garden": tf.bool,
            "built": tfds.features.Text(),
            "sold": tfds.features.ClassLabel(names=["no", "yes"]),
        }
    )
    rows = dataset().map(lambda row: row | {"sold": tf.cast(row["sold"] == "yes", tf.int64)})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="homes", version="1.0.0", data_dir=folder, features=features, disable_shuffling=True,
        split_datasets={"train": rows.take(200), "test": rows.skip(200).take(40)},
    )  # fmt: skip
    return open_source(Origin(places=("tfds:homes",), data_dir=str(folder)))


def database(folder: Path) -> Source:
    path = folder / "rows.db"
    rows = pd.DataFrame(text_rows())
    connection = sqlite3.connect(path)
    rows.to_sql("homes", connection, index=False)
    connection.close()
    return open_source(Origin(sql="select * from homes", url=f"sqlite:///{path}"))


def joined(folder: Path) -> Source:
    rows = FRAME.assign(home=[f"h{number:03d}" for number in range(NUM_ROWS)])
    rows.drop(columns=["city", "built"]).to_csv(folder / "homes.csv", index=False)
    places = rows[["home", "city", "built"]].sample(frac=1, random_state=0).rename(columns={"home": "id"})
    places.to_parquet(folder / "places.parquet")
    return open_source(Origin(places=(str(folder / "homes.csv"),), joins=(f"{folder / 'places.parquet'}:home=id",)))


def in_memory_url(folder: Path) -> Source:
    import fsspec

    del folder
    with fsspec.open("memory://homes/rows.parquet", "wb") as file:
        FRAME.to_parquet(file)
    return open_source("memory://homes/rows.parquet")


def file_url(folder: Path) -> Source:
    FRAME.to_csv(folder / "the rows.csv", index=False)
    return open_source((folder / "the rows.csv").as_uri())


def function(folder: Path) -> Source:
    # The other process imports it by its name, from where this one would.
    module = "from test_sources import dataset as rows\n"
    (folder / "homes_of_a_user.py").write_text(module)
    source = open_source("python:homes_of_a_user:rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [str(folder), str(Path(__file__).parent), *sys.path])
        source.read()  # it keeps the rows
    return source


STORED: Mapping[str, Callable[[Path], Source]] = {
    "csv": csv,
    "csv parts, packed": csv_parts,
    "parquet": parquet,
    "parquet folder": partitioned,
    "arrow stream": arrow,
    "feather": feather,
    "json lines": json_lines,
    "excel": excel,
    "numpy": numpy_arrays,
    "tfrecord": tfrecord,
    "tfds": prepared_dataset,
    "sqlite": database,
    "join": joined,
    "memory://": in_memory_url,
    "file://": file_url,
    "DataFrame": lambda _: open_source(FRAME),
    "Arrow table": lambda _: open_source(pa.Table.from_pandas(FRAME)),
    "tf.data function": function,
}
KINDS_TESTED = {"sql": "sqlite", "tfds": "tfds", "python": "tf.data function", "files": "csv"}

every_source = pytest.mark.parametrize("kind", STORED)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Source, SourceTable]]:
    """Stores and reads each source when it is first asked for."""
    known: dict[str, tuple[Source, SourceTable]] = {}

    def find(kind: str) -> tuple[Source, SourceTable]:
        if kind not in known:
            source = STORED[kind](tmp_path_factory.mktemp("source"))
            known[kind] = source, source.read()
        return known[kind]

    return find


def prepared(table: pa.Table) -> tuple[DatasetSchema, np.ndarray]:
    table = table.select(FRAME.columns.to_list())
    target = infer_target(table, "sold", task=None)
    splits = assign_splits(table, target, seed=7)
    return infer_features(table, target, rows=splits == Split.TRAIN), splits


def without_reasons(schema: DatasetSchema) -> dict[str, Any]:
    """The schema but for the words that tell where a guess came from."""
    record = schema.to_json()
    for feature in record["features"]:
        # Some stores have no truths but 0 and 1.
        del feature["reason"]
    return record


def by_identity(table: pa.Table) -> np.ndarray:
    """An order of the rows that no store changes."""
    return np.argsort(hash_rows(table, columns=FRAME.columns.to_list()))


def test_every_kind_and_format_is_stored_by_some_test() -> None:
    assert set(KINDS_TESTED) == set(SOURCES)
    assert set(KINDS_TESTED.values()) <= set(STORED)
    endings = {".csv", ".parquet", ".arrows", ".feather", ".jsonl", ".xlsx", ".npz", ".tfrecord"}
    assert {id(FORMATS[ending]) for ending in endings} == {id(known) for known in FORMATS.values()}


@every_source
def test_the_same_rows_give_the_same_schema_splits_and_encoding(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    expected, found = sources("parquet")[1].table, sources(kind)[1].table
    schema, splits = prepared(expected)
    found_schema, found_splits = prepared(found)
    found = found.select([*FRAME.columns])
    order, found_order = by_identity(expected), by_identity(found)
    np.testing.assert_array_equal(
        hash_rows(found, columns=found.column_names)[found_order],
        hash_rows(expected, columns=expected.column_names)[order],
    )
    assert without_reasons(found_schema) == without_reasons(schema)
    np.testing.assert_array_equal(found_splits[found_order], splits[order])
    state = fit_preprocessing(expected, schema, rows=splits == Split.TRAIN)
    found_state = fit_preprocessing(found, found_schema, rows=found_splits == Split.TRAIN)
    # The hash of the training rows is one of rows in their order, which a folder of partitions changes.
    assert found_state.to_json() | {"rows_sha256": state.rows_sha256} == state.to_json()
    raw, found_raw = raw_columns(expected, schema), raw_columns(found, found_schema)
    assert list(found_raw) == list(raw)
    # A CSV file has a blank between date and time; the encoder reads both.
    found_raw["built"] = np.array([text.replace(b" ", b"T") for text in found_raw["built"]], object)
    for name in raw:
        np.testing.assert_array_equal(found_raw[name][found_order], raw[name][order])


@every_source
def test_only_rows_that_name_their_values_may_leave_columns_out(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    assert sources(kind)[0].has_fixed_columns == (kind not in ("json lines", "tfrecord"))


@every_source
@pytest.mark.parametrize("chunk_rows", [37, 10_000])
def test_chunks_hold_the_rows_in_order(
    kind: str, chunk_rows: int, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    source, whole = sources(kind)
    schema, _ = prepared(whole.table)
    chunks = list(source.chunks(chunk_rows=chunk_rows))
    assert all(0 < chunk.table.num_rows <= chunk_rows for chunk in chunks)
    assert [chunk.first_row for chunk in chunks] == [0, *np.cumsum([c.table.num_rows for c in chunks])[:-1]]
    expected = raw_columns(whole.table, schema)
    parts = [raw_columns(chunk.table, schema) for chunk in chunks]
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@every_source
def test_only_the_wanted_columns_are_read_unless_one_is_absent(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    source, whole = sources(kind)
    first = next(iter(source.chunks(chunk_rows=50, columns=["price", "city"])))
    assert sorted(first.table.column_names) == ["city", "price"]
    first = next(iter(source.chunks(chunk_rows=50, columns=["price", "absent"])))
    assert set(first.table.column_names) == set(whole.table.column_names)


@every_source
def test_what_was_read_is_told_and_has_a_fingerprint(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    source, whole = sources(kind)
    assert whole.description.endswith(f": {NUM_ROWS:,} rows, {whole.table.num_columns:,} columns")
    assert source.title in whole.description
    assert len(whole.fingerprint) == 64
    assert source.read().fingerprint == whole.fingerprint
    assert all(len(file.blake3) == 64 and file.num_bytes > 0 for file in whole.files)


@every_source
def test_rows_kept_on_disk_are_those_that_were_read_into_memory(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]], tmp_path: Path
) -> None:
    source, whole = sources(kind)
    rows = store_source(source, ExperimentConfig(), folder=tmp_path)
    assert pa.concat_tables(rows.parts()).equals(whole.table)
    assert rows.source.facts == whole.facts
    assert set(rows.source.notes) <= set(whole.notes)


@every_source
def test_a_source_is_about_as_large_as_its_rows_or_tells_nothing(
    kind: str, sources: Callable[[str], tuple[Source, SourceTable]]
) -> None:
    source, whole = sources(kind)
    size = source.num_bytes()
    assert (size is None) == source.is_open_ended == (kind == "sqlite")
    assert size is None or whole.table.nbytes / 10 < size < 10 * whole.table.nbytes
