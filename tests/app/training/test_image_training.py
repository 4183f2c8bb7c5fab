"""Networks for images in a worker: decoded or encoded in memory, augmented alike after a pause, judged and answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import read_arrow, write_data
from app.data_source import read_source, source_of
from app.data_stage import prepare_data
from app.errors import TamizError
from app.evaluation.metrics import METRICS
from app.evaluation.pixel_features import pixel_features
from app.experiment import prepare
from app.image_config import ImageCache, ImageConfig, MirrorImages
from app.run_directory import RunDirectory
from app.training.declaration import declare
from app.training.epochs import Verdict
from app.training.image_data import decoded_column, may_be_mirrored
from app.training.prediction_batches import prediction_batch
from app.training.trainer import Trainer
from app.training.trial_data import TrialData, load_trial_data
from app.view import SilentView
from pipelines.balance import Balance
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext

VALUES = {
    "batch_size": 16,
    "block": "plain",
    "num_stages": 1,
    "blocks_per_stage": 1,
    "width": 8,
    "learning_rate": 4e-3,
    "augmentation": "light",
    "shift": 0.125,
    "jitter": 0.2,
    "erasing": 0.5,
}


@pytest.fixture(scope="module")
def directory(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    config = ExperimentConfig(
        name="digits", data=DataConfig(source=str(digit_folder), target="label"), search=SearchConfig(space="cnn")
    )
    run = RunDirectory(tmp_path_factory.mktemp("run") / "digits")
    run.path.mkdir()
    write_data(prepare_data(read_source(digit_folder, config), config), config, directory=run)
    return run


@pytest.fixture(scope="module")
def decoded_data(directory: RunDirectory) -> TrialData:
    return load_trial_data(directory, balance=Balance.AUTO)


@pytest.fixture(scope="module")
def encoded_data(directory: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """The same rows in a directory where they are not decoded yet."""
    other = RunDirectory(tmp_path_factory.mktemp("encoded") / "digits")
    other.data.mkdir(parents=True)
    for name in ("schema_file", "preprocessing_file", "development_file"):
        getattr(other, name).write_bytes(getattr(directory, name).read_bytes())
    return load_trial_data(other, balance=Balance.AUTO, images=ImageConfig(cache=ImageCache.ENCODED))


def on_disk(source: Path, folder: Path) -> TrialData:
    """The same rows, whose images stay on disk."""
    data = DataConfig(source=str(source), target="label", in_memory=1_000)
    config = ExperimentConfig(name="digits", data=data, search=SearchConfig(space="cnn"))
    other = prepare(source_of(data), config, path=folder / "digits", view=SilentView())
    return load_trial_data(other, balance=Balance.AUTO, images=ImageConfig(cache=ImageCache.ENCODED))


@pytest.fixture(scope="module")
def filed_data(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """The same rows, whose images stay in their files."""
    return on_disk(digit_folder, tmp_path_factory.mktemp("filed"))


@pytest.fixture(scope="module")
def parquet_data(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """The same rows in the same order from Parquet, whose images stay in a file of the run."""
    folder = tmp_path_factory.mktemp("parquet")
    files = sorted(digit_folder.rglob("*.png"))
    table = pa.table({"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]})
    pq.write_table(table, folder / "digits.parquet")
    return on_disk(folder / "digits.parquet", folder)


@pytest.fixture(scope="module")
def train(placement: Any) -> Callable[..., list[float]]:
    """Trains to so many epochs, from the state if there is one; returns the losses of all epochs."""

    def trained(data: TrialData, state: Path, *, epochs: int) -> list[float]:
        trainer = Trainer(
            data, space_name="cnn", objective=METRICS["log_loss"], placement=placement, max_epochs=4, patience=10
        )
        curve: list[float] = []
        trainer.train_trial(
            VALUES,
            known=declare(trainer.space()),
            budget=epochs,
            seed=3,
            state=state,
            report=lambda result: curve.extend([result.scalars["train/loss"], result.objective]),
            ask=lambda: Verdict.GO_ON,
        )
        return curve

    return trained


def test_images_are_decoded_once_and_read_again(directory: RunDirectory, decoded_data: TrialData) -> None:
    images = decoded_data.training.images
    assert images is not None
    assert (images.shape[1:], images.dtype) == ((8, 8, 1), np.uint8)
    again = load_trial_data(directory, balance=Balance.AUTO).training.images
    assert isinstance(again, np.ndarray)
    np.testing.assert_array_equal(again, images)


def test_a_space_is_told_of_the_pixels_and_that_digits_have_no_mirror_image(decoded_data: TrialData) -> None:
    context = decoded_data.context(max_epochs=4, num_training_rows=84, num_replicas=1)
    assert isinstance(context, ImageContext)
    assert (context.image_shape, context.class_counts, context.may_flip) == ((8, 8, 1), (28, 28, 28), False)
    images = decoded_data.training.images
    assert images is not None
    np.testing.assert_allclose(context.pixel_mean, images.mean(axis=(0, 1, 2)))


def test_a_trial_that_pauses_sees_the_pictures_that_it_would_have_seen(
    decoded_data: TrialData,
    encoded_data: TrialData,
    filed_data: TrialData,
    parquet_data: TrialData,
    train: Callable[..., list[float]],
    tmp_path: Path,
) -> None:
    whole = train(decoded_data, tmp_path / "whole", epochs=2)
    # Images that stay encoded in memory, or on disk, are decoded in the pipeline, to the same pixels.
    for data, kind in ((encoded_data, "O"), (filed_data, "S"), (parquet_data, "S")):
        assert data.training.images is not None
        assert data.training.images.dtype.kind == kind
    assert train(encoded_data, tmp_path / "paused", epochs=1) == whole[:2]
    assert train(parquet_data, tmp_path / "paused", epochs=2) == whole


def test_images_on_disk_are_decoded_once_to_the_same_pixels(
    decoded_data: TrialData, filed_data: TrialData, parquet_data: TrialData, directory: RunDirectory
) -> None:
    table = read_arrow(directory.development_file)
    decoder = filed_data.encoder.images["image"]
    for data in (filed_data, parquet_data):
        assert data.validation.images is not None
        found = decoder.decode_all(data.validation.images.tolist(), are_places=True)
        np.testing.assert_array_equal(found, decoded_data.validation.images)
    assert decoded_column(decoder, table).shape == (table.num_rows, 8, 8, 1)


def test_an_image_that_cannot_be_decoded_after_all_is_named(directory: RunDirectory, decoded_data: TrialData) -> None:
    table = read_arrow(directory.development_file).slice(0, 3)
    broken = pa.array([*table.column("image").to_pylist()[:2], b"GIF89a no image"], pa.large_binary())
    table = table.set_column(table.column_names.index("image"), "image", broken)
    place = table.column("__tamiz_path__")[2].as_py()
    with pytest.raises(TamizError, match=f"the image {place} cannot be decoded .*: mend or remove it"):
        decoded_column(decoded_data.encoder.images["image"], table)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("cat", "dog"), True),
        (("0", "1", "2"), False),
        (("a", "b", "c"), False),
        (("turn left", "left", "right"), False),
        ((), True),
    ],
)
def test_letters_digits_and_sides_are_not_mirrored(classes: tuple[str, ...], expected: bool) -> None:
    assert may_be_mirrored(MirrorImages.AUTO, classes) is expected
    assert may_be_mirrored(MirrorImages.YES, classes)
    assert not may_be_mirrored(MirrorImages.NO, classes)


def test_large_images_are_answered_few_at_a_time(decoded_data: TrialData) -> None:
    context = decoded_data.context(max_epochs=4, num_training_rows=84, num_replicas=1)
    assert prediction_batch(context) == 4096
    import dataclasses

    assert isinstance(context, ImageContext)
    assert prediction_batch(dataclasses.replace(context, height=128, width=128)) == 64
    table = TableContext(context.task, 3, 1, (), num_training_rows=84, max_epochs=4)
    assert prediction_batch(table) == 4096


def test_pixel_features_are_the_mean_brightness_of_fields() -> None:
    images = np.zeros((2, 32, 40, 3), np.uint8)
    images[1, :2, :, 0] = 255
    found = pixel_features(images)
    assert found.shape == (2, 16 * 16 * 3)
    assert found[0].max() == 0.0
    np.testing.assert_allclose(found[1].reshape(16, 16, 3)[..., 0].sum(), 16.0)
    exact = pixel_features(np.full((1, 8, 8, 1), 51, np.uint8))
    np.testing.assert_allclose(exact, np.full((1, 64), 0.2), rtol=1e-6)


def test_string_tensors_are_decoded_in_the_graph(encoded_data: TrialData) -> None:
    images = encoded_data.training.images
    assert images is not None
    found = encoded_data.decoded({"image": tf.constant(images[:2])})
    assert (found["image"].shape, found["image"].dtype) == ((2, 8, 8, 1), tf.uint8)
