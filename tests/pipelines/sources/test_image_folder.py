from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.errors import DataError
from pipelines.sources.image_folder import ImageFolderSource
from pipelines.sources.options import ReadOptions


def touch(*paths: Path | bytes) -> None:
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def test_names_in_another_encoding_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png", os.fsencode(tmp_path / "b") + b"/caf\xe9.png")
    source = ImageFolderSource(str(tmp_path))
    message = r"names are UTF-8, but those of 1 are in another encoding, the first 'b/caf\\xe9.png'; rename them"
    for read in (source.check_classes, lambda: source.load(ReadOptions())):
        with pytest.raises(DataError, match=message):
            read()


def test_names_of_other_files_do_not_matter(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "é.png", tmp_path / "b" / "1.png", os.fsencode(tmp_path) + b"/caf\xe9.txt")
    table = ImageFolderSource(str(tmp_path)).load(ReadOptions()).parsed.table
    assert table.to_pydict() == {"image": ["a/é.png", "b/1.png"], "label": ["a", "b"]}
