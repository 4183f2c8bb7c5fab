"""A search on images that begins with the network of an earlier one."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

from app.backbone_stage import begun_with, check_backbone
from app.config import DataConfig, ExperimentConfig, ImageConfig, SearchConfig
from app.errors import ConfigError, RunDirectoryError
from app.evaluation.metrics import METRICS
from app.experiment import prepare
from app.run_directory import RunDirectory
from app.search.warm_start import filled
from app.view import SilentView
from pipelines.image_encoding import Colour

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]


def config_of(backbone: object, **changes: Any) -> ExperimentConfig:
    search = SearchConfig(trials=1, backbone=str(backbone), **changes)
    return ExperimentConfig(name="later", data=DataConfig(target="label"), search=search)


@pytest.fixture(name="earlier")
def earlier_fixture(pictures: tuple[Any, Any], tmp_path: Path) -> Path:
    """A copy of a finished search on images, to change."""
    return Path(shutil.copytree(pictures[0].run, tmp_path / "earlier"))


def test_a_trial_begins_with_the_network_of_the_earlier_run(
    pictures: tuple[Any, Any], digit_folder: Path, tmp_path: Path
) -> None:
    import numpy as np

    from app.config import TrainingConfig
    from app.training.declaration import declare
    from app.training.epochs import Verdict
    from app.training.strategy import prepare_devices
    from app.training.trainer import Trainer
    from app.training.trial_data import load_trial_data

    config = config_of(pictures[0].run)
    directory = prepare(str(digit_folder), config, path=tmp_path / "later", view=SilentView())
    settings = directory.read_config()
    assert (settings.search.space, settings.images.size, settings.images.colour) == ("pretrained", 8, Colour.GREY)
    assert Path(directory.backbone_file).read_bytes() == RunDirectory(pictures[0].run).model_file.read_bytes()
    trainer = Trainer(
        load_trial_data(directory, balance=config.training.balance, images=settings.images),
        space_name=settings.search.space,
        objective=METRICS["accuracy"],
        placement=prepare_devices(TrainingConfig()),
        max_epochs=2,
        patience=10,
    )
    known = declare(trainer.space())
    epochs: list[Any] = []
    result = trainer.train_trial(
        filled({"batch_size": 16, "fine_tuning": "frozen"}, space=known),
        known=known,
        budget=2,
        seed=3,
        state=tmp_path / "state",
        report=epochs.append,
        ask=lambda: Verdict.GO_ON,
    )
    assert result.epoch == len(epochs) == 2
    assert np.isfinite(epochs[-1].scalars["val/loss"])


def test_without_a_backbone_the_settings_stay() -> None:
    config = config_of("")
    assert begun_with(config, check_backbone(config)) is config


def test_a_size_and_colours_that_were_asked_for_stay(pictures: tuple[Any, Any]) -> None:
    config = dataclasses.replace(config_of(pictures[0].run), images=ImageConfig(size=12, colour=Colour.RGB))
    assert begun_with(config, check_backbone(config)).images == config.images


def test_images_with_other_channels_are_refused_before_anything_is_written(
    pictures: tuple[Any, Any], digit_folder: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(config_of(pictures[0].run), images=ImageConfig(colour=Colour.RGB))
    message = r"the images have 3 channels and the backbone has learned from 1: expected equal ones; leave out"
    with pytest.raises(ConfigError, match=message):
        prepare(str(digit_folder), config, path=tmp_path / "later", view=SilentView())
    assert not (tmp_path / "later").exists()


def test_another_space_begins_at_random(pictures: tuple[Any, Any]) -> None:
    message = r"a backbone is given and the space is 'cnn': expected --space pretrained, or none"
    with pytest.raises(ConfigError, match=message):
        check_backbone(config_of(pictures[0].run, space="cnn"))


def test_a_run_on_a_table_is_refused(finished: Any) -> None:
    with pytest.raises(RunDirectoryError, match=r"penguins is a search on a table: expected the run directory of one"):
        check_backbone(config_of(finished.run))


def test_a_run_that_has_not_ended_is_refused(earlier: Path) -> None:
    journal = earlier / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    ended = next(number for number, line in enumerate(lines) if '"stage":"export"' in line.replace(" ", ""))
    journal.write_text("".join(lines[:ended]))
    message = r"earlier has no exported model yet: go on with `tamiz resume .*earlier` first"
    with pytest.raises(RunDirectoryError, match=message):
        check_backbone(config_of(earlier))


def test_a_network_that_was_changed_since_is_refused(earlier: Path) -> None:
    with (earlier / "best" / "model.keras").open("ab") as file:
        file.write(b"more")
    with pytest.raises(RunDirectoryError, match=r"model\.keras is not what its search ended with \(expected SHA-256"):
        check_backbone(config_of(earlier))


def test_an_export_that_was_changed_since_is_refused(earlier: Path) -> None:
    (earlier / "export" / "digits" / "1" / "more.txt").write_text("more")
    with pytest.raises(RunDirectoryError, match=r"earlier cannot be a backbone: .* holds 'more.txt', which its manif"):
        check_backbone(config_of(earlier))


def test_what_is_neither_a_run_nor_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no experiment: expected a folder made by `tamiz search`"):
        check_backbone(config_of(tmp_path))
    with pytest.raises(ConfigError, match=r"there are no weights .*none\.h5: expected a file, or the run directory"):
        check_backbone(config_of(tmp_path / "none.h5"))
