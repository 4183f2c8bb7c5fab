from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_serving.errors import ExportError
from tf_serving.model_versions import (
    check_file_name,
    check_model_name,
    create_staging,
    discard,
    next_version,
    publish,
    remove_stale_stagings,
    versions,
)


@pytest.mark.parametrize("name", ["adult", "Adult_2-b.v3", "_x", "-", "7", "a" * 128])
def test_a_plain_name_is_a_model_name(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a:b", "größe", "a\n", "a\0", "a" * 129, "%2e"]
)
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"Expected a model name of letters.*choose another name"):
        check_model_name(name)
    with pytest.raises(ValueError, match=r"Expected a file name of letters.*rename the file"):
        check_file_name(name)


@given(st.text())
def test_an_accepted_name_is_one_visible_path_component(name: str) -> None:
    try:
        accepted = check_model_name(name)
    except ValueError:
        return
    assert Path("base", accepted).parent == Path("base")
    assert not accepted.startswith(".")


def test_versions_are_the_integer_directories(tmp_path: Path) -> None:
    for name in ("1", "10", "2", "03", ".export-x", "latest", "-1", "1.5", "٣", "9" * 30):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file is no version, but takes the number")
    assert versions(tmp_path) == (1, 2, 3, 10)
    assert next_version(tmp_path) == 100


def test_a_missing_directory_has_no_versions(tmp_path: Path) -> None:
    assert versions(tmp_path / "none") == ()
    assert next_version(tmp_path / "none") == 1


def test_a_staging_is_no_version_until_published(tmp_path: Path) -> None:
    directory = tmp_path / "adult"
    staging = create_staging(directory)
    (staging / "saved_model.pb").write_bytes(b"x")
    assert versions(directory) == ()
    assert staging.name.startswith(".")
    first = publish(staging)
    assert first == directory / "1"
    assert (first / "saved_model.pb").read_bytes() == b"x"
    assert publish(create_staging(directory)) == directory / "2"
    assert [entry.name for entry in sorted(directory.iterdir())] == ["1", "2"]


def test_a_discarded_staging_leaves_nothing(tmp_path: Path) -> None:
    staging = create_staging(tmp_path / "adult")
    discard(staging)
    assert list((tmp_path / "adult").iterdir()) == []


def test_only_a_staging_can_be_published_or_discarded(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for action in (publish, discard):
        with pytest.raises(ValueError, match="Expected the hidden directory of a prepared export"):
            action(tmp_path / "1")
    assert versions(tmp_path) == (1,)


def test_a_vanished_staging_cannot_be_published(tmp_path: Path) -> None:
    staging = create_staging(tmp_path / "adult")
    discard(staging)
    with pytest.raises(ExportError, match=r"Cannot publish the export as .*No such file"):
        publish(staging)


def test_the_staging_of_a_dead_process_is_removed_by_the_next_export(tmp_path: Path) -> None:
    directory = tmp_path / "adult"
    alive = create_staging(directory)
    script = (
        "import os, pathlib, sys; from tf_serving.model_versions import create_staging;"
        "create_staging(pathlib.Path(sys.argv[1])); os._exit(1)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, str(directory)], cwd=root, check=False)
    assert len(list(directory.iterdir())) == 2
    created = create_staging(directory)
    assert set(directory.iterdir()) == {alive, created}


def test_the_staging_of_another_host_is_left_alone_for_a_day(tmp_path: Path) -> None:
    foreign = tmp_path / ".export-00000000-1-0123abcd"
    foreign.mkdir()
    remove_stale_stagings(tmp_path)
    assert foreign.exists()
    os.utime(foreign, (1.0, 1.0))
    remove_stale_stagings(tmp_path)
    assert not foreign.exists()


def test_a_link_that_looks_like_a_staging_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / ".export-00000000-1-0123abcd").symlink_to(precious)
    os.utime(precious, (1.0, 1.0))
    remove_stale_stagings(tmp_path)
    assert precious.exists()


def test_an_unwritable_place_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("a file where a directory should be")
    with pytest.raises(ExportError, match=r"Cannot write the export to .*choose a writable place"):
        create_staging(tmp_path / "export" / "adult")
