from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.training.checkpoint import CheckpointError, DiskFullError, load_state, save_state

DTYPES = ["float32", "float16", "int32", "int64", "uint32", "bool"]

any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
groups_of_arrays = st.dictionaries(st.sampled_from(["model", "optimizer"]), st.lists(any_array, max_size=4))
headers = st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=9))


@settings(deadline=None, max_examples=60)
@given(groups=groups_of_arrays, header=headers)
def test_a_state_comes_back_as_it_was(groups: dict[str, list[np.ndarray]], header: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trials", "state")
        save_state(path, arrays=groups, header=header)
        found, found_header = load_state(path)
        assert os.listdir(path.parent) == ["state"]
    assert found_header == header
    assert found.keys() == groups.keys()
    for name, group in groups.items():
        assert [(array.dtype, array.shape) for array in found[name]] == [(a.dtype, a.shape) for a in group]
        for one, other in zip(found[name], group, strict=True):
            assert one.tobytes() == other.tobytes()


def saved(path: Path) -> bytes:
    save_state(path, arrays={"model": [np.arange(5, dtype=np.float32), np.int64(3)[()]]}, header={"curve": [1.5]})
    return path.read_bytes()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_torn_or_changed_file_is_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state")
        content = saved(path)
        position = data.draw(st.integers(0, len(content) - 1))
        changed = bytearray(content)
        changed[position] ^= data.draw(st.integers(1, 255))
        for damaged in (bytes(changed), content[:position], content + b"more", os.urandom(64), b""):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"is damaged|is no state file of this version of tamiz"):
                load_state(path)


def test_a_header_of_zeros_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "state")
    magic = content[: content.index(b"\n") + 1]
    (tmp_path / "state").write_bytes(magic + bytes(40))
    with pytest.raises(CheckpointError, match=r"is damaged: its header is not what was written"):
        load_state(tmp_path / "state")


def test_a_full_disk_is_told_and_the_old_state_stays(tmp_path: Path) -> None:
    path = tmp_path / "current"
    before = saved(path)
    # The device that is always full stands in for the file that would be written.
    (tmp_path / ".current").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=r"the disk is full: could not write .*current; free some space, then"):
        save_state(path, arrays={"model": [np.zeros(100_000, np.float32)]}, header={})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["current"]


def test_another_error_of_the_disk_is_not_called_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"file") as caught:
        save_state(tmp_path / "file" / "current", arrays={}, header={})
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
