from __future__ import annotations

import io
import json
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from app.tensorboard import TrialEventWriter
from app.training.image_board import (
    SPRITE_SIDE,
    Judged,
    confusion,
    confusion_text,
    first_filters,
    grad_cam,
    mistakes_text,
    worst_mistakes,
    write_projector,
)

LABELS = np.array([0, 1, 2, 1])
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.0, 0.8, 0.2], [0.1, 0.7, 0.2]])


def test_confusion_counts_truths_in_rows_and_answers_in_columns() -> None:
    table = confusion(LABELS, PROBABILITIES)
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert confusion_text(table, ("a", "b", "c")).splitlines()[3] == "| **b** | 1 | 1 | 0 |"


def test_mistakes_are_told_the_surest_first() -> None:
    worst = worst_mistakes(LABELS, PROBABILITIES)
    assert worst.tolist() == [2, 1]
    judged = Judged(
        images=np.zeros((4, 2, 2, 1), np.uint8),
        labels=LABELS,
        probabilities=PROBABILITIES,
        seen=np.zeros((4, 1)),
        paths=["0.png", "1.png", "2.png", "3.png"],
    )
    assert mistakes_text(judged, worst, ("a", "b", "c")).splitlines()[2] == "| 2.png | c (20.0%) | b (80.0%) |"
    assert mistakes_text(judged, worst[:0], ("a", "b", "c")) == "No mistake in 4 validation images."


def network(outputs: int) -> keras.Model:
    """Speaks for the first class, or against the second, by what is on the left."""
    image = keras.Input((8, 8, 1), name="image", dtype="uint8")
    seen = keras.layers.Conv2D(2, 1, use_bias=False, name="look")(keras.layers.Rescaling(1 / 255.0)(image))
    flat = keras.layers.Flatten()(seen)
    model = keras.Model({"image": image}, keras.layers.Dense(outputs, use_bias=False, name="score")(flat))
    model.get_layer("look").set_weights([np.ones((1, 1, 1, 2), np.float32)])
    weights = np.zeros((8, 8, 2, outputs), np.float32)
    weights[:, :4, :, 0] = 1.0 if outputs > 1 else -1.0
    model.get_layer("score").set_weights([weights.reshape(-1, outputs)])
    return model


def test_grad_cam_reddens_what_speaks_for_the_class() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[:, 3:5, 1:3] = 255
    for outputs in (2, 1):
        looked = grad_cam(network(outputs), images, np.array([0, 1]))
        assert looked is not None
        assert looked.shape == (2, 8, 8, 3)
        redness = looked[..., 0].astype(int) - looked[..., 2]
        assert redness[0, 3:5, 1:3].min() > redness[0, :, 4:].max()


def test_a_network_without_a_feature_map_has_no_grad_cam_and_no_filters() -> None:
    image = keras.Input((8, 8, 1), name="image")
    flat = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    assert first_filters(flat) is None
    filters = first_filters(network(3))
    assert filters is not None
    assert filters.shape == (2, 1, 1, 1)


def test_the_projector_of_tensorboard_reads_a_point_a_label_and_a_picture_of_each_image(tmp_path: Path) -> None:
    best, number = tmp_path / "best", 7
    with TrialEventWriter(best) as board:
        board.scalars(1, {"train/loss": 0.5})
    shades = np.arange(0, 210, 30, dtype=np.uint8)
    judged = Judged(
        images=np.broadcast_to(shades[:, None, None, None], (number, 6, 9, 3)),
        labels=np.arange(number) % 2,
        probabilities=np.zeros((number, 2)),
        seen=np.arange(number * 3, dtype=np.float32).reshape(number, 3) / 8,
        paths=[f"a\t{place}.png" for place in range(number)],
    )
    write_projector(judged, ("no\nline", 'a "b"'), best)

    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, str(tmp_path))
    routes = ProjectorPlugin(TBContext(logdir=str(tmp_path), data_provider=provider)).get_plugin_apps()

    def answer(route: str, name: str = "") -> bytes:
        response = Client(routes[route]).get("/", query_string={"run": "best", "name": name})
        assert response.status_code == 200, response.data
        return bytes(response.data)

    assert json.loads(answer("/runs")) == ["best"]
    (embedding,) = json.loads(answer("/info"))["embeddings"]
    name = embedding["tensorName"]
    assert embedding["tensorShape"] == [number, 3]
    points = np.frombuffer(answer("/tensor", name), np.float32).reshape(number, 3)
    np.testing.assert_allclose(points, judged.seen, rtol=1e-4)
    header, *labels = answer("/metadata", name).decode().splitlines()
    assert header == "image\tclass"
    assert labels == ["\t".join((f"a {place}.png", ("no line", 'a "b"')[place % 2])) for place in range(number)]
    assert embedding["sprite"]["singleImageDim"] == [SPRITE_SIDE, SPRITE_SIDE]
    sprite = np.asarray(Image.open(io.BytesIO(answer("/sprite_image", name))))
    # Row by row, as many to a row as the square root of their number.
    tiles = sprite.reshape(3, SPRITE_SIDE, 3, SPRITE_SIDE, 3).swapaxes(1, 2).reshape(9, -1)
    assert (tiles[:number] == shades[:, None]).all()
    assert not tiles[number:].any()
