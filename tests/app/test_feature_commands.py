"""Feature groups by the command line: registered, listed, looked up by rows, published for a server."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.arguments import DataArguments, SearchArguments, experiment_config
from app.cli import app
from app.config import ExperimentConfig
from app.data_files import write_config
from app.data_source import looking_up, read_source, source_of
from app.errors import ConfigError, RunDirectoryError
from app.feature_record import write_feature_record
from app.run_directory import RunDirectory
from app.serve import serving_flags
from pipelines.errors import DataError
from pipelines.sources import open_source
from tf_serving.answer_table import AnswerTable
from tf_serving.server.beyond.feature_lookup import FeatureLookup
from tf_serving.server.extensions import SignatureView


def tamiz(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with people.csv, orders.csv and a registered group of people."""
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(
        {
            "id": [1, 1, 2],
            "day": ["2024-01-01", "2024-03-01", "2024-01-01"],
            "income": [10.0, 11.0, None],
            "member": [True, False, True],
        }
    ).to_csv("people.csv", index=False)
    pd.DataFrame({"id": [1, 1, 2], "day": ["2024-02-01", "2024-04-01", "2024-02-01"], "y": [1, 0, 1]}).to_csv(
        "orders.csv", index=False
    )
    registered = tamiz("features", "register", "people", "people.csv", "--key", "id", "--timestamp", "day")
    assert registered.exit_code == 0, registered.stderr
    assert "people@1: 3 rows, 2 features by id, in feature_store" in registered.stdout
    return tmp_path / "feature_store"


def settings(store: Path) -> ExperimentConfig:
    given = SearchArguments(
        data=DataArguments(places=("orders.csv",)), target="y", feature_groups=("people",), store=str(store)
    )
    return experiment_config(given)


def test_a_search_looks_up_the_version_that_it_began_with(store: Path) -> None:
    config = settings(store)
    assert config.data.feature_groups == ("people@1",)
    tamiz("features", "register", "people", "people.csv", "--key", "id", "--timestamp", "day")
    assert "people@2" in tamiz("features", "list").stdout
    read = read_source(source_of(config.data), config)
    assert read.table["income"].to_pylist() == [10.0, 11.0, None]
    assert read.files[-1].name == "feature group people@1"
    now = looking_up(open_source(pd.DataFrame({"id": [1]})), config.data, now=True)
    assert now.read().table["income"].to_pylist() == [11.0]
    with pytest.raises(DataError, match="no feature group 'peple'"):
        experiment_config(SearchArguments(target="y", feature_groups=("peple",), store=str(store)))
    with pytest.raises(ConfigError, match="a store is given and no feature group"):
        experiment_config(SearchArguments(target="y", store=str(store)))


def test_the_latest_features_are_published_and_served(store: Path) -> None:
    published = tamiz("features", "publish", "people", "--to", "sqlite:///x.db")
    assert published.exit_code == 0, published.stderr
    table = AnswerTable("sqlite:///x.db#people", key="id")
    assert table.look_up([1, 2]) == [{"income": 11.0, "member": "false"}, {"income": None, "member": "true"}]
    lookup = FeatureLookup([table])
    for dtype, expected in (("string", [b"false", b"true"]), ("float32", [0.0, 1.0])):
        signature = SignatureView("serving_default", "", {"member": (dtype, (None,))}, {})
        assert lookup.decode(b'{"instances": [{"id": 1}, {"id": 2}]}', signature)["member"].tolist() == expected
    lookup.close()
    assert "exists: name another table, or say --replace" in tamiz(
        "features", "publish", "people", "--to", "sqlite:///x.db"
    ).stderr  # fmt: skip
    config = settings(store)
    run = RunDirectory(store.parent / "run")
    run.path.mkdir()
    write_config(run, config)
    version = run.exports / config.name / "1" / "assets.extra"
    version.mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="looks no features up: it was searched without --features"):
        serving_flags(run.path, given=["--features-from", "sqlite:///x.db"])
    write_feature_record(config, directory=run)
    (version / "features.json").write_bytes((run.path / "features.json").read_bytes())
    assert json.loads((version / "features.json").read_text())["groups"][0]["columns"] == ["income", "member"]
    for given in (["--features-from", "sqlite:///x.db"], ["--features_from=sqlite:///x.db"]):
        assert serving_flags(run.path, given=given)[-1] == "--feature_tables=sqlite:///x.db#people:id"
    with pytest.raises(RunDirectoryError, match="--features-from needs a value"):
        serving_flags(run.path, given=["--features-from"])


@pytest.mark.usefixtures("store")
def test_features_are_looked_up_in_a_real_postgresql(postgresql: str) -> None:
    published = tamiz("features", "publish", "people@1", "--to", postgresql)
    assert published.exit_code == 0, published.stderr
    table = AnswerTable(f"{postgresql}#people", key="id")
    assert table.look_up([2, 1]) == [{"income": None, "member": "true"}, {"income": 11.0, "member": "false"}]
    table.close()


@pytest.mark.usefixtures("store")
def test_bad_features_are_refused_in_one_line() -> None:
    for arguments, message in (
        (("register", "people", "people.csv", "--key", "id"), "1 rows are too many, the first 1 in the rows 1 and 2"),
        (("register", "a b", "people.csv", "--key", "id"), "Expected a letter and then letters, digits and '_'"),
        (("publish", "people@7", "--to", "sqlite:///x.db"), "has the versions 1, not '7'"),
    ):
        refused = tamiz("features", *arguments)
        assert refused.exit_code == 2
        assert len(refused.stderr.strip().splitlines()) == 1
        assert message in refused.stderr
    assert tamiz("features", "list", "--store", "empty").stdout.strip() == "There is no feature group in empty."
