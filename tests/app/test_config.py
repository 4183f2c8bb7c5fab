from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import (
    NAME_PATTERN,
    Balance,
    DataConfig,
    ExecutionConfig,
    ExecutorKind,
    ExperimentConfig,
    Placement,
    Precision,
    SearchConfig,
    TrainingConfig,
    check_name,
    did_you_mean,
    name_from,
    read_config,
)
from app.errors import ConfigError

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
shares = st.floats(0.01, 0.49)

configs = st.builds(
    ExperimentConfig,
    name=st.from_regex(NAME_PATTERN, fullmatch=True),
    keep=st.integers(1, 50),
    data=st.builds(
        DataConfig,
        source=texts,
        target=texts,
        task=st.sampled_from(["auto", "binary", "multiclass", "regression"]),
        features=st.dictionaries(texts, texts, max_size=3),
        group=texts,
        time_column=texts,
        missing_values=st.lists(texts, max_size=3).map(tuple),
        encoding=texts,
        delimiter=texts,
        validation_share=shares,
        test_share=shares,
    ),
    search=st.builds(
        SearchConfig,
        space=texts,
        algorithm=texts,
        objective=texts,
        limits=st.lists(texts, max_size=2).map(tuple),
        start_from=st.lists(texts, max_size=2).map(tuple),
        seconds=st.floats(0.5, 1e6),
        trials=st.integers(0, 10**6),
        seed=st.integers(0, 2**32 - 1),
    ),
    execution=st.builds(
        ExecutionConfig,
        executor=st.sampled_from(ExecutorKind),
        workers=st.integers(0, 1024),
        placement=st.sampled_from(Placement),
        worker_memory=st.integers(0, 2**50),
        ray_address=texts,
        packing=st.booleans(),
        checkpoints=texts,
    ),
    training=st.builds(
        TrainingConfig,
        max_epochs=st.integers(0, 10**6),
        patience=st.integers(1, 10**6),
        balance=st.sampled_from(Balance),
        precision=st.sampled_from(Precision),
        devices=st.lists(st.from_regex(r"(CPU|GPU):[0-9]{1,2}", fullmatch=True), max_size=3).map(tuple),
    ),
)


@given(config=configs)
@settings(deadline=None, max_examples=60)
def test_settings_survive_toml(config: ExperimentConfig) -> None:
    assert ExperimentConfig.from_toml(config.to_toml()) == config


def test_what_toml_leaves_out_keeps_its_default() -> None:
    assert ExperimentConfig.from_toml('[search]\nspace = "resnet"') == ExperimentConfig(
        search=SearchConfig(space="resnet")
    )


def test_every_setting_is_written_down() -> None:
    text = ExperimentConfig().to_toml()
    sections = {DataConfig: "data", SearchConfig: "search", TrainingConfig: "training"}
    for kind, section in sections.items():
        assert f"[{section}]" in text
        for field in dataclasses.fields(kind):
            assert field.name in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serach = 1", r"unknown setting 'serach' \(did you mean 'search'\?\)"),
        ("[search]\ntrails = 3", r"search has an unknown setting 'trails' \(did you mean 'trials'\?\)"),
        ("zzz = 1", r"unknown setting 'zzz'$"),
        ('[training]\nclass_weights = "always"', r"unknown setting 'class_weights': expected balance, with weights"),
        ("keep = 1.5", "keep is 1.5: expected a whole number"),
        ("keep = true", "keep is True: expected a whole number"),
        ("name = 3", "name is 3: expected a text"),
        ("search = 3", "search is 3: expected a section of settings"),
        ("[search]\nseconds = '10m'", "seconds is '10m': expected a number"),
        ("[data]\nfeatures = 3", "features is 3: expected a table of texts"),
        ("[data.features]\nzip = 3", "features is {'zip': 3}: expected a table of texts"),
        ("[data]\nmissing_values = [1]", r"missing_values is \[1\]: expected a list of texts"),
        ("[training]\nprecision = 'mixed_float'", r"did you mean 'mixed_float16'\?\): expected auto"),
        ("[training]\nprecision = 16", "precision is 16: expected one of auto, float32, mixed_float16"),
        ("= 3", "my.toml is not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExperimentConfig.from_toml(text, origin="my.toml")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataConfig(validation_share=0.5), "validation_share is 0.5: expected a share above 0 and below 0.5"),
        (lambda: DataConfig(test_share=0.0), "test_share is 0.0"),
        (lambda: DataConfig(test_share=float("nan")), "test_share is nan"),
        (lambda: DataConfig(task="binery"), r"task is 'binery' \(did you mean 'binary'\?\): expected one of auto"),
        (lambda: SearchConfig(seconds=-1.0), "the budget is -1.0 seconds"),
        (lambda: SearchConfig(seconds=float("inf")), "the budget is inf seconds .* ten years"),
        (lambda: SearchConfig(seconds=float("nan")), "the budget is nan seconds"),
        (lambda: SearchConfig(trials=-1), "and -1 trials: expected"),
        (lambda: SearchConfig(seconds=0.0), "needs a budget: give --time .* --trials .* or both"),
        (lambda: SearchConfig(seed=-1), "seed is -1: expected a whole number from 0 to 4294967295"),
        (lambda: SearchConfig(seed=2**32), "seed is 4294967296"),
        (lambda: TrainingConfig(max_epochs=-1), "max_epochs is -1 and patience 10"),
        (lambda: TrainingConfig(patience=0), "patience 0: expected"),
        (lambda: TrainingConfig(devices=("TPU:0",)), "device is 'TPU:0': expected a name such as GPU:0 or CPU:1"),
        (lambda: ExperimentConfig(keep=0), "keep is 0: expected at least 1"),
        (lambda: ExperimentConfig(name="../evil"), r"name is '../evil': expected up to 100 letters"),
    ],
)
def test_a_setting_out_of_range_is_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".hidden", "a/b", "a\\b", "a b", "é", "x" * 101, "a\n", "a\0"])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name is"):
        check_name(name)


@given(text=st.text(max_size=150))
@settings(deadline=None, max_examples=100)
def test_every_text_has_a_valid_name(text: str) -> None:
    assert check_name(name_from(text))


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*absent.toml: No such file"):
        read_config(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary.toml is not UTF-8 text: expected a TOML file"):
        read_config(tmp_path / "binary.toml")


def test_only_a_near_name_is_offered() -> None:
    assert did_you_mean("mpl", ["mlp", "resnet"]) == " (did you mean 'mlp'?)"
    assert did_you_mean("transformer", ["mlp", "resnet"]) == ""


def test_workers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"workers is -1: expected a number from 0 \(automatic\) to 1024"):
        ExecutionConfig(workers=-1)
    with pytest.raises(ConfigError, match=r"worker_memory is -1 bytes: expected at least 0 \(automatic\)"):
        ExecutionConfig(worker_memory=-1)
