"""Folders and tables of images up to the point where a search begins."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.arguments import DataArguments, SearchArguments, experiment_config
from app.config import DataConfig, ExperimentConfig, ImageConfig, SearchConfig
from app.data_files import read_arrow, write_data
from app.data_source import check_same_data, read_source, source_of
from app.data_stage import PreparedData, prepare_data
from app.errors import ConfigError, RunDirectoryError
from app.experiment import prepare
from app.image_config import MirrorImages
from app.read_rows import facts_of
from app.run_directory import RunDirectory, read_json
from app.search_stage import suited_config
from app.view import SilentView
from pipelines.errors import DataError
from pipelines.image_files import image_column
from pipelines.image_references import file_contents, is_image_file
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


def test_an_absent_target_is_told_with_the_columns_of_the_data_alone(digit_folder: Path) -> None:
    config = ExperimentConfig(name="images", data=DataConfig(source=str(digit_folder), target="labl"))
    with pytest.raises(DataError, match=r"Did you mean 'label'\? Its columns are 'image', 'label'\.$"):
        prepared(digit_folder, config)


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


def records_of(folder: Path, path: Path) -> Path:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        records = RecordWriter(file)
        for image in sorted(folder.rglob("*.png")):
            records.write(example_of(image.read_bytes(), int(image.parent.name)).SerializeToString())
        records.flush()
    return path


def test_records_of_encoded_images_are_images(digit_folder: Path, tmp_path: Path) -> None:
    data = prepared(records_of(digit_folder, tmp_path / "digits.tfrecord"))
    assert [(feature.name, feature.kind) for feature in data.schema.used_features] == [
        ("image/encoded", FeatureKind.IMAGE)
    ]
    folder = prepared(digit_folder)
    of_record = dict(zip(data.table.column("image/encoded").to_pylist(), data.splits, strict=True))
    assert of_record == dict(zip(folder.table.column("image").to_pylist(), folder.splits, strict=True))


def large_source(kind: str, digits: Path, folder: Path) -> tuple[str, str]:
    """Writes encoded images, one of them empty, and returns what names them, and the folder of tfds."""
    (digits / "2" / "039.png").write_bytes(b"")
    if kind == "parquet":
        files = sorted(digits.rglob("*.png"))
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        table = pa.table({"image": images, "label": [file.parent.name for file in files]})
        pq.write_table(table, folder / "digits.parquet", row_group_size=50)
        return str(folder / "digits.parquet"), ""
    if kind == "tfrecord":
        return str(records_of(digits, folder / "digits.tfrecord")), ""
    version = folder / "digits" / "1.0.0"
    version.mkdir(parents=True)
    records_of(digits, version / "digits-train.tfrecord-00000-of-00001")
    splits = [{"name": "train", "shardLengths": ["120"]}]
    (version / "dataset_info.json").write_text(json.dumps({"name": "digits", "splits": splits}))
    features = {"featuresDict": {"features": {"image/encoded": {}, "label": {}}}}
    (version / "features.json").write_text(json.dumps(features))
    return "tfds:digits", str(folder)


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "tfds"])
def test_encoded_images_beyond_the_limit_stay_on_disk_and_are_the_same_rows(
    kind: str, digits: Path, tmp_path: Path
) -> None:
    place, data_dir = large_source(kind, digits, tmp_path)
    runs, tables = [], []
    for in_memory in (1 << 20, 1_000):
        data = DataConfig(source=place, data_dir=data_dir, target="label", in_memory=in_memory)
        config = ExperimentConfig(name="images", data=data)
        run = prepare(source_of(data), config, path=tmp_path / f"run-{in_memory}", view=SilentView())
        check_same_data(run, config, None)
        assert facts_of(source_of(data), config).fingerprint == read_json(run.manifest_file)["data"]["fingerprint"]
        run.path.rename(tmp_path / f"moved-{in_memory}")
        runs.append(RunDirectory(tmp_path / f"moved-{in_memory}"))
        tables.append(read_arrow(runs[-1].development_file))
    held, large = runs
    assert [path.name for path in large.data.iterdir()].count("images-0.arrow") == 1
    assert held.preprocessing_file.read_bytes() == large.preprocessing_file.read_bytes()
    assert read_json(held.manifest_file)["data"] == read_json(large.manifest_file)["data"]
    column = image_column(tables[0]) or ""
    assert is_image_file(tables[1].schema.field(column).type)
    assert file_contents(tables[1].column(column)).tolist() == tables[0].column(column).to_pylist()
    # Nothing of the rows is left beside the runs.
    assert not list(tmp_path.glob(".tamiz-rows-*"))


def test_a_table_of_paths_that_is_too_large_for_memory_names_images_all_the_same(digits: Path) -> None:
    files = [file.relative_to(digits).as_posix() for file in sorted(digits.rglob("*.png"))]
    pd.DataFrame({"photo": files, "label": [f"digit {file[0]}" for file in files]}).to_csv(
        digits / "table.csv", index=False
    )
    data = DataConfig(source=str(digits / "table.csv"), target="label", in_memory=1_000)
    config = ExperimentConfig(name="images", data=data)
    run = prepare(source_of(data), config, path=digits / "run", view=SilentView())
    check_same_data(run, config, None)
    assert is_image_file(read_arrow(run.test_file).schema.field("photo").type)
    assert facts_of(source_of(data), config).fingerprint == read_json(run.manifest_file)["data"]["fingerprint"]


def test_broken_records_are_told_by_their_row() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    table = pa.table({"photo": pa.array([whole, whole[:-3]], pa.binary()), "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"1 of 2 in column 'photo' cannot, such as 'row 2': the file is cut off"):
        read_source(open_source(table), config_of())
