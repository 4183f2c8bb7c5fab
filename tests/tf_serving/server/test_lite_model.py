from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow as tf

    base = tmp_path_factory.mktemp("lite")

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def total(x: Any) -> dict[str, Any]:
        return {"sum": tf.reduce_sum(x, axis=1), "twice": x * 2.0}

    module = tf.Module()
    module.total = total
    folder = base / "saved"
    tf.saved_model.save(module, str(folder), signatures=total)
    converted = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    (base / "model" / "1").mkdir(parents=True)
    (base / "model" / "1" / "model.tflite").write_bytes(converted)
    (base / "broken" / "1").mkdir(parents=True)
    (base / "broken" / "1" / "model.tflite").write_bytes(b"no model")
    return base


def test_a_lite_model_answers_like_a_saved_model(run_server: Callable[..., Any], lite: Path) -> None:
    running = run_server(model_name="lite", model_base_path=str(lite / "model"), prefer_tflite_model=True)
    body = {"instances": [[1, 2], [3, 4], [5, 6]]}
    rows = [{"sum": 3.0, "twice": [2.0, 4.0]}, {"sum": 7.0, "twice": [6.0, 8.0]}, {"sum": 11.0, "twice": [10.0, 12.0]}]
    assert running.http.predict("lite", body) == (200, {"predictions": rows})
    assert running.http.predict("lite", {"instances": [[1, 2]]}) == (200, {"predictions": rows[:1]})
    status, answer = running.http.predict("lite", {"instances": [[1, 2, 3]]})
    assert status in (200, 400)
    assert ("error" in answer) == (status == 400)
    signature = running.http("GET", "/v1/models/lite/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert signature["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_a_broken_lite_model_is_refused(run_server: Callable[..., Any], lite: Path) -> None:
    from tf_serving.server.status import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"Cannot load .*model\.tflite"):
        run_server(model_name="broken", model_base_path=str(lite / "broken"), prefer_tflite_model=True)
