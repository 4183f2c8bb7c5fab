from __future__ import annotations

from pathlib import Path

import pytest

from app.arguments import (
    Changes,
    DataArguments,
    ExecutionArguments,
    SearchArguments,
    execution_config,
    experiment_config,
)
from app.config import DEFAULT_SECONDS, DataConfig, ExecutionConfig, ExecutorKind, ExperimentConfig, Placement
from app.errors import ConfigError


def at(place: str) -> DataArguments:
    return DataArguments(places=(place,))


TOML = """
name = "loans"
[data]
target = "paid"
group = "customer"
[data.features]
zip = "categorical"
[search]
space = "resnet"
seconds = 30.0
seed = 7
[training]
max_epochs = 9
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(TOML)
    return path


def test_without_a_target_it_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match=r"say which column to predict with --target; and nothing is at '.*a\.csv'"):
        experiment_config(SearchArguments(data=at("a.csv")))


def test_a_folder_without_images_has_no_target_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with --target; the folder '.*' holds no images, whose folders would be"):
        experiment_config(SearchArguments(data=at(str(tmp_path))))
    (tmp_path / "a.csv").write_text("y\n1\n")
    for place in (str(tmp_path / "a.csv"), "part-*.csv", "tfds:beans"):
        with pytest.raises(ConfigError, match=r"with --target$"):
            experiment_config(SearchArguments(data=at(place)))


def test_the_name_comes_from_the_file_or_else_from_the_target() -> None:
    assert experiment_config(SearchArguments(data=at("data/my table.csv.gz"), target="y")).name == "my-table"
    assert experiment_config(SearchArguments(target="y")).name == "y"
    assert experiment_config(SearchArguments(data=at("a.csv"), target="y", name="b")).name == "b"


def test_without_a_budget_there_is_the_default_one() -> None:
    search = experiment_config(SearchArguments(target="y")).search
    assert (search.seconds, search.trials) == (DEFAULT_SECONDS, 0)


def test_trials_alone_are_a_budget_without_a_clock() -> None:
    search = experiment_config(SearchArguments(target="y", trials=3)).search
    assert (search.seconds, search.trials) == (0.0, 3)


def test_time_and_trials_hold_both() -> None:
    search = experiment_config(SearchArguments(target="y", time="2m", trials=3)).search
    assert (search.seconds, search.trials) == (120.0, 3)


def test_what_is_not_given_is_the_files(file: Path) -> None:
    config = experiment_config(SearchArguments(data=at("a.csv")), base=file)
    assert (config.name, config.data.target, config.data.group) == ("loans", "paid", "customer")
    assert (config.search.space, config.search.seconds, config.search.seed) == ("resnet", 30.0, 7)
    assert config.training.max_epochs == 9


def test_a_join_without_a_key_stays_as_it_was_given() -> None:
    found = DataArguments(places=("a.csv",), joins=("b.csv", "c.csv:id")).applied(DataConfig())
    assert found.joins == ("b.csv", f"{Path('c.csv').absolute()}:id")


def test_the_source_is_kept_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiment_config(SearchArguments(data=at("a.csv"), target="y")).data.source == str(tmp_path / "a.csv")


def test_what_is_given_wins_over_the_file(file: Path) -> None:
    arguments = SearchArguments(
        target="y", trials=4, space="mlp", seed=0, epochs=2, features=("age=numeric", "zip=ignore"), name="mine"
    )
    config = experiment_config(arguments, base=file)
    assert (config.name, config.data.target, config.search.space) == ("mine", "y", "mlp")
    assert (config.search.seconds, config.search.trials, config.search.seed) == (0.0, 4, 0)
    assert (config.training.max_epochs, dict(config.data.features)) == (2, {"age": "numeric", "zip": "ignore"})


def test_a_column_with_an_equals_sign_can_be_overridden() -> None:
    assert experiment_config(SearchArguments(target="y", features=("a=b=numeric",))).data.features == {"a=b": "numeric"}


@pytest.mark.parametrize("text", ["zip", "=numeric", ""])
def test_a_malformed_override_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=f"feature is '{text}': expected NAME=KIND, such as zip=categorical"):
        experiment_config(SearchArguments(target="y", features=(text,)))


def test_devices_may_be_listed_with_commas() -> None:
    config = experiment_config(SearchArguments(target="y", devices=("cpu:0, cpu:1", "GPU:0")))
    assert config.training.devices == ("CPU:0", "CPU:1", "GPU:0")


def test_settings_of_the_workers_are_read() -> None:
    given = ExecutionArguments(
        executor="ray",
        workers=3,
        placement="per-device",
        worker_memory="4GB",
        ray_address="auto",
        packing=False,
        checkpoints="s3://key:secret@bucket/states",
    )
    assert execution_config(ExecutionConfig(), given) == ExecutionConfig(
        executor=ExecutorKind.RAY,
        workers=3,
        placement=Placement.PER_DEVICE,
        worker_memory=4 * 10**9,
        ray_address="auto",
        packing=False,
        # Whole: what would be refused must not be cut to what is not.
        checkpoints="s3://key:secret@bucket/states",
    )
    assert execution_config(ExecutionConfig(workers=2), ExecutionArguments()) == ExecutionConfig(workers=2)


def test_a_folder_for_checkpoints_is_that_of_where_the_command_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ExecutionArguments(checkpoints="states")
    assert execution_config(ExecutionConfig(), given).checkpoints == str(tmp_path / "states")


def test_checkpoints_stay_where_they_are_when_a_search_is_resumed() -> None:
    config = ExperimentConfig(execution=ExecutionConfig(checkpoints="s3://bucket/adult-1"))
    same = Changes(execution=ExecutionArguments(checkpoints="s3://bucket/adult-1"))
    assert same.applied(config) == config
    other = Changes(execution=ExecutionArguments(checkpoints="s3://other"))
    with pytest.raises(ConfigError, match=r"'s3://other': those of this search stay .* s3://bucket/adult-1; leave"):
        other.applied(config)
    with pytest.raises(ConfigError, match=r"began to keep them, in its run directory; leave them out"):
        other.applied(ExperimentConfig())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ExecutionArguments(executor="rai"), r"executor is 'rai' \(did you mean 'ray'\?\): expected local, ray"),
        (ExecutionArguments(placement="mirror"), r"placement is 'mirror' \(did you mean 'mirrored'\?\)"),
        (ExecutionArguments(worker_memory="much"), "memory is 'much': expected a size such as 4GB"),
    ],
)
def test_a_setting_of_the_workers_that_cannot_be_used_is_named(given: ExecutionArguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        execution_config(ExecutionConfig(), given)


def test_a_resumed_search_keeps_what_is_not_changed() -> None:
    config = experiment_config(SearchArguments(target="y", time="5m", trials=7, algorithm="random"))
    assert Changes().applied(config) == config
    changed = Changes(seconds=60.0, algorithm="asha", execution=ExecutionArguments(workers=2)).applied(config)
    assert (changed.search.seconds, changed.search.trials, changed.search.algorithm) == (60.0, 7, "asha")
    assert changed.execution.workers == 2
