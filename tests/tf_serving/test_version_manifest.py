from __future__ import annotations

import json
from pathlib import Path

import pytest

from tf_serving.errors import VerificationError
from tf_serving.version_manifest import MANIFEST_PATH, verify_manifest, write_manifest


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "variables").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "variables.index").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def test_an_unchanged_directory_is_accepted(version: Path) -> None:
    files = verify_manifest(version)
    assert sorted(files) == ["saved_model.pb", "variables/variables.index"]
    assert files["saved_model.pb"].size == 5


def test_a_changed_file_is_refused(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"Graph")
    with pytest.raises(VerificationError, match=r"'saved_model.pb' in .* was changed after the export"):
        verify_manifest(version)


def test_a_missing_file_is_refused(version: Path) -> None:
    (version / "variables" / "variables.index").unlink()
    with pytest.raises(VerificationError, match=r"lacks 'variables/variables.index'"):
        verify_manifest(version)


def test_an_added_file_is_refused(version: Path) -> None:
    (version / "assets" / "vocabulary.txt").write_text("new")
    with pytest.raises(VerificationError, match=r"holds 'assets/vocabulary.txt', which its manifest does not list"):
        verify_manifest(version)


def test_a_link_is_refused(version: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "saved_model.pb"
    other.write_bytes(b"graph")
    (version / "saved_model.pb").unlink()
    (version / "saved_model.pb").symlink_to(other)
    with pytest.raises(VerificationError, match=r"'saved_model.pb' in .* is not a plain file"):
        verify_manifest(version)


def test_a_directory_without_manifest_is_refused(version: Path) -> None:
    (version / MANIFEST_PATH).unlink()
    with pytest.raises(VerificationError, match=r"has no assets.extra/manifest.json"):
        verify_manifest(version)


@pytest.mark.parametrize("text", ["[]", '{"format": 1}', '{"format": 1, "files": {"a": 3}}', '{"files": {}}'])
def test_another_json_is_no_manifest(version: Path, text: str) -> None:
    (version / MANIFEST_PATH).write_text(text)
    with pytest.raises(VerificationError, match="is not a manifest of tamiz"):
        verify_manifest(version)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_torn_manifest_is_refused(version: Path, content: bytes) -> None:
    (version / MANIFEST_PATH).write_bytes(content)
    with pytest.raises(VerificationError, match="Cannot read"):
        verify_manifest(version)


def test_a_manifest_of_a_newer_format_is_refused(version: Path) -> None:
    (version / MANIFEST_PATH).write_text(json.dumps({"format": 2, "files": {}}))
    with pytest.raises(VerificationError, match=r"has format 2, this version of tamiz reads 1; update tamiz"):
        verify_manifest(version)
