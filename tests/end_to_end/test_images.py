"""One search of two trials on a folder of images, from the files to the verified SavedModel."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.schema import DatasetSchema, FeatureKind


def test_it_says_what_it_found(pictures: tuple[Any, Any]) -> None:
    searched, _ = pictures
    assert (searched.code, searched.errors) == (0, "")
    size = "8 x 8 pixels (all are 8 x 8; their own size); all are grey"
    for text in ("120 rows", "label: multiclass", size, "cnn:", "each trial alone", "2 trials: 2 completed"):
        assert text in searched.output


def test_the_target_of_a_folder_is_its_label_and_the_image_is_a_feature(pictures: tuple[Any, Any]) -> None:
    schema = DatasetSchema.from_json(json.loads((pictures[0].run / "schema.json").read_text()))
    assert schema.target.name == "label"
    assert [(feature.name, feature.kind) for feature in schema.used_features] == [("image", FeatureKind.IMAGE)]


def test_the_export_answers_encoded_images_as_a_request_has_them(pictures: tuple[Any, Any]) -> None:
    import tensorflow as tf

    version = pictures[0].run / "export" / "digits" / "1"
    request = json.loads((version / "assets.extra" / "sample_request.json").read_text())
    images = [base64.b64decode(instance["image"]["b64"]) for instance in request["instances"]]
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    answer = signature(image=tf.constant(images))
    assert answer["probabilities"].shape == (len(images), 3)
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1.0, rtol=1e-5)
    assert signature(image=tf.constant([], tf.string))["label"].shape == (0,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        signature(image=tf.constant([b"no image"]))


def test_pixels_are_answered_as_the_images_that_they_come_from(pictures: tuple[Any, Any], digit_folder: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(pictures[0].run / "export" / "digits" / "1"))
    files = sorted(digit_folder.rglob("*.png"))[::17]
    encoded = tf.constant([file.read_bytes() for file in files])
    pixels = tf.stack([tf.io.decode_png(data, channels=1) for data in encoded])
    by_bytes = loaded.signatures["serving_default"](image=encoded)["probabilities"].numpy()
    by_pixels = loaded.signatures["pixels"](image=pixels)["probabilities"].numpy()
    np.testing.assert_allclose(by_pixels, by_bytes, atol=1e-6)


def test_a_folder_is_answered_file_by_file(pictures: tuple[Any, Any], digit_folder: Path) -> None:
    _, answered = pictures
    assert (answered.code, answered.errors) == (0, "")
    answers = pd.read_csv(answered.run.parent / "answers.csv")
    assert answers["image"].tolist() == sorted(
        file.relative_to(digit_folder).as_posix() for file in digit_folder.rglob("*.png")
    )
    assert list(answers.columns) == ["image", "label", "probability of 0", "probability of 1", "probability of 2"]


def test_tensorboard_shows_pictures_mistakes_and_embeddings(pictures: tuple[Any, Any]) -> None:
    best = pictures[0].run / "best"
    shown = EventAccumulator(str(best), size_guidance={"tensors": 0})
    shown.Reload()
    wanted = {"training/after augmentation", "network/first filters", "validation/confusion", "validation/Grad-CAM",
              "validation/confusion table", "validation/table of mistakes"}  # fmt: skip
    assert wanted <= set(shown.Tags()["tensors"])
    table = shown.Tensors("validation/confusion table")[0].tensor_proto.string_val[0].decode()
    assert table.startswith("| truth \\ answer | 0 | 1 | 2 |")
    embedded = pd.read_csv(best / "embedding_labels.tsv", sep="\t")
    assert len(embedded) == len((best / "embedding.tsv").read_text().splitlines()) == 18
    assert (embedded["image"].str[0].astype(int) == embedded["class"]).all()
    assert "embedding.png" in (best / "projector_config.pbtxt").read_text()
