from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.image_duplicates import duplicate_notes, kept_together
from pipelines.image_references import content_digests
from pipelines.splits import Split


def test_equal_images_go_to_one_split() -> None:
    table = pa.table({"image": pa.array([b"1", b"2", b"1", b"3", b"3"], pa.large_binary())})
    splits = np.array([Split.TRAIN, Split.VALIDATION, Split.TEST, Split.TEST, Split.TEST], np.int8)
    hashes = content_digests(table.column("image"))
    found = kept_together(splits, hashes, np.zeros(5))
    assert found.tolist() == [Split.TRAIN, Split.VALIDATION, Split.TRAIN, Split.TEST, Split.TEST]
    found = kept_together(splits, hashes, np.array([0, 0, 0, 0, 1]))
    assert found.tolist() == [Split.TRAIN, Split.VALIDATION, Split.TRAIN, Split.TRAIN, Split.TRAIN]


def test_labels_that_differ_for_one_image_are_told() -> None:
    table = pa.table({"image": pa.array([b"1", b"2", b"1", b"2"], pa.large_binary())})
    places = pa.chunked_array([["a/1.png", "a/2.png", "b/1.png", "a/3.png"]])
    notes = duplicate_notes(content_digests(table.column("image")), np.array([0, 0, 1, 0]), places)
    assert notes[0] == "2 images are there more than once, in 4 rows; each stays in one split."
    assert notes[1].startswith("1 image has labels that differ, such as 'a/1.png', 'b/1.png', which are the same")
    assert duplicate_notes(content_digests(table.column("image")[:2]), np.array([0, 1]), places) == []
