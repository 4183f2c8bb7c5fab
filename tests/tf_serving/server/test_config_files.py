from __future__ import annotations

from pathlib import Path

import pytest

from tf_serving.server.config_files import (
    BatchingParameters,
    RequestSampling,
    VersionPolicy,
    read_batching_parameters,
    read_model_config,
    read_monitoring_path,
    read_tls,
)
from tf_serving.server.status import ConfigurationError

MODEL = 'name: "m" base_path: "/m" model_platform: "tensorflow"'
LOGGED = (
    MODEL + ' logging_config { log_collector_config { type: "%s" filename_prefix: "%s" } '
    "sampling_config { sampling_rate: %s } }"
)


def model_config(path: Path, *configs: str) -> Path:
    path.write_text("model_config_list { %s }" % " ".join(f"config {{ {config} }}" for config in configs))  # noqa: UP031
    return path


def test_logging_is_off_without_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    (one,) = read_model_config(model_config(path, LOGGED % ("", "/logs/m", 0.25)))
    assert one.sampling == RequestSampling("/logs/m", 0.25)
    (one,) = read_model_config(model_config(path, LOGGED % ("", "", 0)))
    assert one.sampling is None


def test_models_policies_and_labels(tmp_path: Path) -> None:
    one, two, three = read_model_config(
        model_config(
            tmp_path / "models.config",
            MODEL + " model_version_policy { latest { num_versions: 2 } }",
            MODEL.replace('"m"', '"n"') + " model_version_policy { all {} }",
            MODEL.replace('"m"', '"o"')
            + " model_version_policy { specific { versions: 42 versions: 43 } } "
            + 'version_labels { key: "stable" value: 42 }',
        )
    )
    assert one.policy == VersionPolicy("latest", num_versions=2)
    assert two.policy == VersionPolicy("all")
    assert three.policy == VersionPolicy("specific", versions=(42, 43))
    assert three.labels == {"stable": 42}


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([MODEL, MODEL], "Illegal to list model m multiple times in config list"),
        (['name: "m" base_path: "m" model_platform: "tensorflow"'], "Expected model m to have an absolute path or URI"),
        (
            ['name: "m" base_path: "/m"'],
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is m",
        ),
        ([MODEL.replace("tensorflow", "onnx")], "Model m requests unsupported platform onnx"),
        ([MODEL.replace('"/', '"gs://bucket/')], "only folders of this machine are read; mount or copy it"),
        ([LOGGED % ("tfrecord", "/logs/m", 1.5)], "sampling_rate of model m is 1.5: expected a share in [0, 1]"),
        ([LOGGED % ("kafka", "/logs/m", 1)], "log collector of type 'kafka': here is only 'tfrecord'"),
        ([LOGGED % ("", "logs/m", 1)], "filename_prefix of the log of model m must be an absolute path, was 'logs/m'"),
        (['name: "../m" base_path: "/m"'], "Expected a model name of letters"),
        ([MODEL + " model_version_policy { specific {} }"], "asks for specific versions and names none"),
        (["nme: 1"], "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (["nme: 1"], '1:30 : Message type "tensorflow.serving.ModelConfig" has no field named "nme"'),
    ],
)
def test_a_bad_model_config_is_refused_in_words(tmp_path: Path, configs: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_model_config(model_config(tmp_path / "models.config", *configs))
    assert message in str(raised.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Failed to read ModelServerConfig file"):
        read_model_config(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="Failed to read BatchingParameters file"):
        read_batching_parameters(tmp_path / "none")
    custom = tmp_path / "custom"
    custom.write_text("custom_model_config {}")
    with pytest.raises(ConfigurationError, match="custom_model_config is not supported"):
        read_model_config(custom)


def test_batching_parameters(tmp_path: Path) -> None:
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 4 }\n"
        "num_batch_threads { value: 2 } allowed_batch_sizes: 4 allowed_batch_sizes: 16\n"
        'thread_pool_name { value: "pool" }'
    )
    assert read_batching_parameters(path) == BatchingParameters(
        max_batch_size=16,
        batch_timeout_micros=500,
        max_enqueued_batches=4,
        num_batch_threads=2,
        thread_pool_name="pool",
        allowed_batch_sizes=(4, 16),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size { value: 32 } allowed_batch_sizes: 8",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 32",
        ),
        ("allowed_batch_sizes: 8 allowed_batch_sizes: 4", "must be monotonically increasing"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; was 0"),
        ("num_batch_threads { value: -1 }", "num_batch_threads must be positive; was -1"),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: -1 }",
            "max_execution_batch_size must be positive; was -1",
        ),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("max_batch_size: 3", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        (
            "max_batch_size { value: 4 } max_execution_batch_size { value: 8 }",
            "max_execution_batch_size must be less than or equal to max_batch_size",
        ),
    ],
)
def test_bad_batching_parameters_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_batching_parameters(path)
    assert message in str(raised.value)


def test_monitoring_and_tls(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('prometheus_config { enable: true, path: "/metrics" }')
    assert read_monitoring_path(path) == "/metrics"
    path.write_text("prometheus_config { enable: false }")
    assert read_monitoring_path(path) is None
    path.write_text('prometheus_config { enable: true, path: "metrics" }')
    with pytest.raises(ConfigurationError, match="must start with '/'; was 'metrics'"):
        read_monitoring_path(path)
    path.write_text('server_key: "/key.pem" server_cert: "/cert.pem"')
    with pytest.raises(ConfigurationError, match=r"server_key in .* must hold PEM text, not a path"):
        read_tls(path)
    path.write_text('server_key: "-----BEGIN" server_cert: "-----BEGIN" client_verify: true')
    with pytest.raises(ConfigurationError, match="needs custom_ca"):
        read_tls(path)
