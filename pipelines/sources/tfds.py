"""Datasets that tensorflow-datasets has prepared, read from their files without TensorFlow and without a network.

A prepared dataset is a folder ``NAME[/CONFIG]/VERSION`` with ``dataset_info.json`` (splits and shards),
``features.json`` (what the features are) and TFRecord shards of tf.train.Example.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content_hash import content_hash, stream_hash
from pipelines.errors import DataError, list_names, suggest_name
from pipelines.sources.file_format import unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import FilePrint, Loaded, Parsed, Source, complete, wanted_columns
from pipelines.sources.stored_file import StoredFile
from pipelines.sources.tfrecord_file import example_tables

PREFIX = "tfds:"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class _Feature:
    """What a feature of a dataset is.

    Attributes:
        labels: Names of the classes by number; empty for other features.
        is_truth: Whether its numbers stand for false and true.
    """

    labels: tuple[str, ...] = ()
    is_truth: bool = False


@final
class TfdsSource(Source):
    """All splits of a prepared dataset; the rows are split anew.

    Args:
        dataset: ``NAME``, ``NAME/CONFIG``, ``NAME:VERSION`` or ``NAME/CONFIG:VERSION``.
        data_dir: Folder of the prepared datasets; "" takes ``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``.
        max_bytes: How large a shard may be; 0 for no limit.
    """

    def __init__(self, dataset: str, *, data_dir: str = "", max_bytes: int = 0) -> None:
        self._dataset = dataset
        folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        self._data_dir, self._max_bytes = Path(folder).expanduser(), max_bytes

    @property
    def name(self) -> str:
        """``tfds:`` and the dataset."""
        return PREFIX + self._dataset

    @property
    def title(self) -> str:
        """The same: a configuration is no folder."""
        return self.name

    @property
    def is_stored(self) -> bool:
        """They do."""
        return True

    def num_bytes(self) -> int:
        """Return the size of the shards; an Example, which names its columns, takes more than a row of Arrow."""
        sizes = []
        for shard in self._shards:
            with shard.opened() as file:
                sizes.append(file.seek(0, io.SEEK_END))
        return sum(sizes)

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return the hash of the shards."""
        prints: list[FilePrint] = []
        for shard in self._shards:
            with shard.opened() as file:
                prints.append(_print(file, shard.name))
        return _joined(prints), tuple(prints)

    def remarks(self) -> tuple[str, ...]:
        """Return which splits are read, if there are several."""
        note = f"All splits of {self.name} are read ({', '.join(self._splits)}); the rows are split anew."
        return (note,) if len(self._splits) > 1 else ()

    def load(self, options: ReadOptions) -> Loaded:
        """Read all splits."""
        del options
        prints: list[FilePrint] = []
        parts = [part for shard in self._shards for part in self._rows(shard, prints)]
        names = list(dict.fromkeys(name for _, table in parts for name in table.column_names))
        table = unite([(name, complete(table, names)) for name, table in parts])
        return Loaded(
            parsed=Parsed(table=table, notes=self.remarks()), fingerprint=_joined(prints), files=tuple(prints)
        )

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one shard after the other."""
        del options, chunk_rows
        names = sorted(self._features)
        for shard in self._shards:
            for _, table in self._rows(shard, None):
                yield complete(table, wanted_columns(names, columns))

    def _rows(self, shard: StoredFile, prints: list[FilePrint] | None) -> Iterator[tuple[str, pa.Table]]:
        with shard.opened() as file:
            if prints is not None:
                prints.append(_print(file, shard.name))
                file.seek(0)
            for table in example_tables(file, shard.name):
                yield shard.name, self._decoded(table)

    def _decoded(self, table: pa.Table) -> pa.Table:
        columns = {}
        for name in table.column_names:
            feature, column = self._features.get(name, _Feature()), table.column(name)
            if feature.labels and pa.types.is_integer(column.type):
                # -1 is tensorflow-datasets' own sign of an unknown class.
                ids = pc.if_else(pc.less(column, 0), None, column)
                column = pa.array(feature.labels).take(ids.combine_chunks())
            elif feature.is_truth and pa.types.is_integer(column.type):
                column = pc.not_equal(column, 0)
            columns[name] = column
        return pa.table(columns)

    @cached_property
    def _folder(self) -> Path:
        """The folder of the newest version."""
        name, _, version = self._dataset.partition(":")
        if not re.fullmatch(r"\w+(?:/[\w.+-]+)?", name, re.ASCII) or (version and not _VERSION.fullmatch(version)):
            raise DataError(
                f"Expected tfds:NAME, tfds:NAME/CONFIG or one of these with :VERSION (1.0.0), received {self.name!r}."
            )
        base = self._data_dir / name
        if not base.is_dir():
            prepared = [path.name for path in self._data_dir.iterdir()] if self._data_dir.is_dir() else []
            raise DataError(
                f"No prepared dataset {name!r} is in {str(self._data_dir)!r}.{suggest_name(name, prepared)} Name the "
                "folder with --data-dir, or prepare it there with tensorflow-datasets."
            )
        versions = [path.name for path in base.iterdir() if _VERSION.fullmatch(path.name)]
        if version and version not in versions:
            raise DataError(f"The dataset {name!r} has the versions {list_names(sorted(versions))}, not {version!r}.")
        if not versions:
            configs = sorted(path.name for path in base.iterdir() if path.is_dir())
            raise DataError(
                f"The dataset {name!r} has several configurations; name one, such as "
                f"{PREFIX}{name}/{configs[0]}." if configs else f"The folder {str(base)!r} holds no prepared dataset."
            )
        return base / (version or max(versions, key=lambda text: tuple(map(int, text.split(".")))))

    @cached_property
    def _info(self) -> Mapping[str, Any]:
        info: Mapping[str, Any] = _read_json(self._folder / "dataset_info.json")
        kind = info.get("fileFormat", "tfrecord")
        if kind != "tfrecord":
            raise DataError(f"Expected {self.name} to be stored as TFRecord, but it is {kind}; prepare it again so.")
        return info

    @property
    def _splits(self) -> dict[str, Any]:
        return {split["name"]: split for split in self._info.get("splits", ())}

    @property
    def _shards(self) -> list[StoredFile]:
        found = []
        dataset = self._info.get("name", self._dataset.split("/")[0].split(":")[0])
        for split, facts in self._splits.items():
            lengths = [int(length) for length in facts.get("shardLengths", ())]
            template = facts.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
            for number, length in enumerate(lengths):
                values = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": "tfrecord", "SHARD_INDEX": f"{number:05d}",
                          "NUM_SHARDS": f"{len(lengths):05d}",
                          "SHARD_X_OF_Y": f"{number:05d}-of-{len(lengths):05d}"}  # fmt: skip
                if length:
                    path = self._folder / template.format(**values)
                    found.append(StoredFile(str(path), max_bytes=self._max_bytes))
        if not found:
            raise DataError(f"Expected rows, but {self.name} has none in {str(self._folder)!r}; prepare it again.")
        return found

    @cached_property
    def _features(self) -> dict[str, _Feature]:
        described = _read_json(self._folder / "features.json")
        return dict(_features(described, "", self._folder))


def _print(file: IO[bytes], name: str) -> FilePrint:
    blake3, num_bytes = stream_hash(file)
    return FilePrint(name=name, num_bytes=num_bytes, blake3=blake3)


def _joined(prints: Sequence[FilePrint]) -> str:
    return content_hash("\n".join(file.blake3 for file in prints).encode())


def _features(described: Mapping[str, Any], name: str, folder: Path) -> Iterator[tuple[str, _Feature]]:
    """Yield the features by the names that they have in the records: those of a part are joined with slashes."""
    if "featuresDict" in described:
        for key, part in described["featuresDict"].get("features", {}).items():
            yield from _features(part, f"{name}/{key}" if name else key, folder)
        return
    labels: tuple[str, ...] = ()
    if "classLabel" in described:
        # tensorflow-datasets writes the names beside; a feature of a part has dashes for slashes.
        path = folder / f"{name.replace('/', '-')}.labels.txt"
        labels = tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    dtype = described.get("tensor", {}).get("dtype") or described.get("scalar", {}).get("dtype")
    yield name, _Feature(labels=labels, is_truth=dtype == "bool")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected a dataset that tensorflow-datasets has prepared, but {str(path)!r} cannot be read ({error}); "
            "prepare it again."
        ) from error
