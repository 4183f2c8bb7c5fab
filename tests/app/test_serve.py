from __future__ import annotations

from pathlib import Path

import pytest

from app.config import ExperimentConfig
from app.data_files import write_config
from app.errors import RunDirectoryError
from app.run_directory import RunDirectory
from app.serve import serving_flags
from tf_serving.server.flags import parse_flags


def run_with(path: Path, *versions: int) -> Path:
    path.mkdir()
    write_config(RunDirectory(path), ExperimentConfig(name="credit"))
    for version in versions:
        (path / "export" / "credit" / str(version)).mkdir(parents=True)
    return path


def test_a_run_is_served_under_its_name(tmp_path: Path) -> None:
    flags = serving_flags(run_with(tmp_path / "run", 1), given=["--rest_api_port=0", "--enable_batching"])
    settings = parse_flags(flags).settings
    assert settings.model_name == "credit"
    assert Path(settings.model_base_path) == tmp_path / "run" / "export" / "credit"
    assert settings.rest_api_port == 0
    assert settings.enable_batching


def test_any_folder_of_versions_is_served(tmp_path: Path) -> None:
    (tmp_path / "half" / "3").mkdir(parents=True)
    settings = parse_flags(serving_flags(tmp_path / "half")).settings
    assert (settings.model_name, Path(settings.model_base_path)) == ("half", tmp_path / "half")


@pytest.mark.parametrize("flag", ["--model_name=other", "--model-name=other"])
def test_a_name_that_is_given_stays(tmp_path: Path, flag: str) -> None:
    flags = serving_flags(run_with(tmp_path / "run", 1), given=[flag])
    assert parse_flags(flags).settings.model_name == "other"


def test_where_there_is_nothing_to_serve_it_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="has no exported model yet: go on with `tamiz resume"):
        serving_flags(run_with(tmp_path / "run"))
    with pytest.raises(RunDirectoryError, match="is no folder: expected a run directory or a folder of model versions"):
        serving_flags(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="holds no model: expected a run directory, or version folders such as"):
        serving_flags(tmp_path / "empty")
