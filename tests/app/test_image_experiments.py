"""Folders and tables of images up to the point where a search begins."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from app.arguments import DataArguments, SearchArguments, experiment_config
from app.config import DataConfig, ExperimentConfig, ImageConfig, SearchConfig
from app.data_files import read_arrow, write_data
from app.data_source import check_same_data, read_source
from app.data_stage import PreparedData, prepare_data
from app.errors import ConfigError, RunDirectoryError
from app.experiment import prepare
from app.image_config import MirrorImages
from app.run_directory import RunDirectory
from app.search_stage import suited_config
from app.view import SilentView
from pipelines.errors import DataError
from pipelines.schema import FeatureKind, Task
from pipelines.sources import open_source
from pipelines.sources.image_folder import ImageFolderSource
from pipelines.splits import Split
from search_spaces.catalogue import SpaceError


def config_of(source: Any = "", **changes: Any) -> ExperimentConfig:
    data = DataConfig(source=str(source), target="label")
    return ExperimentConfig(name="images", data=data, **changes)


def prepared(source: Any, config: ExperimentConfig | None = None) -> PreparedData:
    config = config or config_of()
    return prepare_data(read_source(source, config), config)


@pytest.fixture
def digits(digit_folder: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(digit_folder, tmp_path / "digits"))


def test_the_label_of_a_folder_needs_no_target(digit_folder: Path) -> None:
    settings = experiment_config(SearchArguments(data=DataArguments(places=(str(digit_folder),)), trials=1))
    assert (settings.data.target, settings.name) == ("label", "digits")


def test_a_folder_is_recognised_and_split_by_class(digit_folder: Path) -> None:
    data = prepared(digit_folder)
    assert data.schema.target.task is Task.MULTICLASS
    assert [(feature.name, feature.kind) for feature in data.schema.features] == [("image", FeatureKind.IMAGE)]
    (encoding,) = data.preprocessing.images
    assert (encoding.height, encoding.width, encoding.channels) == (8, 8, 1)
    assert np.bincount(data.splits).tolist() == [84, 18, 18]
    assert data.fold_choice.number == 1


def test_equal_images_stay_together_and_other_labels_are_reported(digits: Path) -> None:
    for number in range(12):
        shutil.copy(digits / "0" / f"{number:03d}.png", digits / "0" / f"copy-{number}.png")
        shutil.copy(digits / "0" / f"{number:03d}.png", digits / "1" / f"wrong-{number}.png")
    data = prepared(digits)
    contents = [value.as_py() for value in data.table.column("image")]
    splits = pd.Series(data.splits).groupby(pd.Series(contents)).nunique()
    assert splits.max() == 1
    told = " ".join(finding.message for finding in data.profile.findings)
    assert "12 images are there more than once, in 36 rows; each stays in one split." in told
    assert "12 images have labels that differ, such as '0/" in told
    conflicting = pd.Series(contents).isin(contents[:12]).to_numpy()
    assert (data.splits[conflicting] == Split.TRAIN).all()


def test_one_class_is_refused_before_a_search_and_not_in_new_images(digits: Path, tmp_path: Path) -> None:
    shutil.rmtree(digits / "1")
    for path in (digits / "2").iterdir():
        path.unlink()
    message = (
        r"at least two folders with images in '.*digits', one for each class, but all 40 images lie in the folder '0' "
        r"\('2' without an image\); put the images of each class into a folder of its own\.$"
    )
    assert read_source(digits, config_of()).table.num_rows == 40
    with pytest.raises(DataError, match=message):
        prepare(digits, config_of(), path=tmp_path / "run", view=SilentView())


def test_parts_of_a_data_set_are_told_from_classes(digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part in ("Test", "train"):
        shutil.copytree(digits, data / part)
    message = (
        r"its folders 'Test', 'train' are parts of a data set: 'Test/0' and 'train/0' would be two classes\. "
        r"Give one of them, such as '.*data/train': rows to test on are set aside from it\.$"
    )
    with pytest.raises(DataError, match=message):
        prepare(data, config_of(), path=tmp_path / "run", view=SilentView())
    # Folders within folders are classes all the same, whatever some are called.
    (data / "Test").rename(data / "other")
    ImageFolderSource(str(data)).check_classes()


def test_images_in_no_folder_are_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="but all 40 images lie in no folder of a class; put the images of each class"):
        prepare(digits / "0", config_of(), path=tmp_path / "run", view=SilentView())
    assert not (tmp_path / "run").exists()


def test_folds_are_refused_and_not_taken_by_themselves(digit_folder: Path) -> None:
    config = config_of(search=SearchConfig(folds=3))
    with pytest.raises(DataError, match="one validation part to judge images on, received --folds 3: leave it out, or"):
        prepared(digit_folder, config)


def test_images_get_a_space_of_their_own_and_tables_keep_theirs(digit_folder: Path) -> None:
    schema = prepared(digit_folder).schema
    assert suited_config(config_of(), schema).search.space == "cnn"
    with pytest.raises(SpaceError, match="'tabm' builds networks for a table, and the data is images"):
        suited_config(config_of(search=SearchConfig(space="tabm")), schema)


def test_size_and_colour_can_be_set(digit_folder: Path) -> None:
    text = "[images]\nsize = 12\ncolour = 'rgb'\nresize = 'pad'\nmirror = 'no'\n"
    images = ExperimentConfig.from_toml(text).images
    assert images.mirror is MirrorImages.NO
    (encoding,) = prepared(digit_folder, config_of(images=images)).preprocessing.images
    assert (encoding.height, encoding.width, encoding.channels, encoding.resize) == (12, 12, 3, "pad")
    with pytest.raises(ConfigError, match=r"size of images is 2: expected 4 to 1024 pixels, or 0 \(automatic\)"):
        ImageConfig(size=2)


def test_an_image_that_changed_is_other_data(digits: Path, tmp_path: Path) -> None:
    config = config_of(digits)
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepared(digits, config), config, directory=staged)
    check_same_data(directory, config, None)
    shutil.copy(digits / "1" / "000.png", digits / "0" / "000.png")
    with pytest.raises(RunDirectoryError, match="has changed since"):
        check_same_data(directory, config, None)


def test_the_run_holds_the_images_and_the_sealed_ones_apart(digit_folder: Path, tmp_path: Path) -> None:
    config = config_of(digit_folder)
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepared(digit_folder, config), config, directory=staged)
    development, sealed = read_arrow(directory.development_file), read_arrow(directory.test_file)
    assert (development.num_rows, sealed.num_rows) == (102, 18)
    known = set(development.column("image").to_pylist())
    assert not known & set(sealed.column("image").to_pylist())


def test_a_table_of_paths_keeps_its_other_columns(digits: Path) -> None:
    files = sorted(digits.rglob("*.png"))
    table = pd.DataFrame(
        {
            "photo": [file.relative_to(digits).as_posix() for file in files],
            "ink": np.random.default_rng(0).normal(size=len(files)),
            "label": [f"digit {file.parent.name}" for file in files],
        }
    )
    table.to_csv(digits / "table.csv", index=False)
    data = prepared(digits / "table.csv")
    kinds = {feature.name: feature.kind for feature in data.schema.used_features}
    assert kinds == {"photo": FeatureKind.IMAGE, "ink": FeatureKind.NUMERIC}
    # The images alone decide the split: the same as without the column beside them.
    assert (np.sort(data.splits) == np.sort(prepared(digits / "table.csv").splits)).all()


def example_of(image: bytes, label: int) -> Any:
    from pipelines.sources.example_proto import example_class

    example = example_class()()
    example.features.feature["image/encoded"].bytes_list.value.append(image)
    example.features.feature["label"].int64_list.value.append(label)
    return example


def test_records_of_encoded_images_are_images(digit_folder: Path, tmp_path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    files = sorted(digit_folder.rglob("*.png"))
    with (tmp_path / "digits.tfrecord").open("wb") as file:
        records = RecordWriter(file)
        for path in files:
            records.write(example_of(path.read_bytes(), int(path.parent.name)).SerializeToString())
        records.flush()
    data = prepared(tmp_path / "digits.tfrecord")
    assert [(feature.name, feature.kind) for feature in data.schema.used_features] == [
        ("image/encoded", FeatureKind.IMAGE)
    ]
    folder = prepared(digit_folder)
    of_record = dict(zip(data.table.column("image/encoded").to_pylist(), data.splits, strict=True))
    assert of_record == dict(zip(folder.table.column("image").to_pylist(), folder.splits, strict=True))


def test_broken_records_are_told_by_their_row() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    table = pa.table({"photo": pa.array([whole, whole[:-3]], pa.binary()), "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"1 of 2 in column 'photo' cannot, such as 'row 2': the file is cut off"):
        read_source(open_source(table), config_of())
