"""TensorFlow Serving's configuration files, in protobuf's text format (imports TensorFlow Serving's protos).

The package tensorflow-serving-api lacks the messages of three of them; they are described here field by field, and
protobuf's own parser reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from tf_serving.model_versions import MODEL_NAME
from tf_serving.server.status import ConfigurationError

_Field = descriptor_pb2.FieldDescriptorProto
_WRAPPER = {"int64": "Int64Value", "bool": "BoolValue"}

# Every field of a message: its type, and whether it repeats. "int64*" is wrapped: `max_batch_size { value: 8 }`.
_MESSAGES: dict[str, dict[str, str]] = {
    "BatchingParameters": {
        "max_batch_size": "int64*",
        "batch_timeout_micros": "int64*",
        "max_enqueued_batches": "int64*",
        "num_batch_threads": "int64*",
        "thread_pool_name": "string*",
        "allowed_batch_sizes": "int64[]",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": "bool*",
        "max_execution_batch_size": "int64*",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
    "SSLConfig": {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"},
}
_SCALARS = {"int64": _Field.TYPE_INT64, "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING}


def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tamiz/serving_config.proto", package="tamiz.serving", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), 1):
            added = message.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
            plain = kind.rstrip("*[]")
            if kind.endswith("[]"):
                added.label = _Field.LABEL_REPEATED
            if kind.endswith("*"):
                added.type = _Field.TYPE_MESSAGE
                added.type_name = f".google.protobuf.{_WRAPPER.get(plain, 'StringValue')}"
            elif plain in _SCALARS:
                added.type = _SCALARS[plain]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".tamiz.serving.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tamiz.serving.{name}")) for name in _MESSAGES
    }


_CLASSES = _message_classes()


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions to serve.

    Attributes:
        kind: "latest", "all" or "specific".
        num_versions: How many of the latest.
        versions: Which specific ones.
    """

    kind: str = "latest"
    num_versions: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """Which requests of a model are logged, and where.

    Attributes:
        filename_prefix: Beginning of the files' absolute path.
        rate: Share of the requests, in [0, 1].
    """

    filename_prefix: str
    rate: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model of the server.

    Attributes:
        name: Name in requests.
        base_path: Directory of the versions.
        policy: Which versions.
        labels: Version by label.
        sampling: Of the requests that are logged, or None.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    sampling: RequestSampling | None = None


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How requests are batched; the defaults are TensorFlow's.

    Attributes:
        max_batch_size: Most rows of a request and of a batch.
        batch_timeout_micros: How long a batch waits for more rows.
        max_enqueued_batches: Most batches that wait.
        num_batch_threads: Most batches that run at once; 0 is the number of cores.
        thread_pool_name: Label of metrics.
        allowed_batch_sizes: Sizes to which batches are padded; empty for any.
        pad_variable_length_inputs: Whether inputs of different shapes are padded to one.
        split_large: Whether a request may be split over several batches.
        max_execution_batch_size: Most rows of a batch where requests are split.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 0
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    split_large: bool = False
    max_execution_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Contents of an SSLConfig, PEM text.

    Attributes:
        server_key: Private key.
        server_cert: Certificate chain.
        custom_ca: Authorities for clients' certificates, or "".
        client_verify: Whether clients have to show a certificate.
    """

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes
    client_verify: bool


def read_model_config(path: Path) -> tuple[ModelConfig, ...]:
    """Return the models of a ``--model_config_file``.

    Raises:
        ConfigurationError: It cannot be read or parsed, with line and column, or is not valid.
    """
    try:
        message = _parsed(path, model_server_config_pb2.ModelServerConfig(), "tensorflow.serving.ModelServerConfig")
    except OSError as error:
        raise ConfigurationError(f"Failed to read ModelServerConfig file {path}: {error.strerror}") from error
    return model_configs(message)


def model_configs(message: Any) -> tuple[ModelConfig, ...]:
    """Return the models of a ModelServerConfig.

    Raises:
        ConfigurationError: With TensorFlow Serving's words.
    """
    if message.WhichOneof("config") == "custom_model_config":
        raise ConfigurationError("custom_model_config is not supported; list the models in model_config_list")
    configs: dict[str, ModelConfig] = {}
    for entry in message.model_config_list.config:
        if entry.name in configs:
            raise ConfigurationError(f"Illegal to list model {entry.name} multiple times in config list")
        _check_model(entry)
        configs[entry.name] = ModelConfig(
            name=entry.name,
            base_path=Path(entry.base_path),
            policy=_policy(entry),
            labels={label: int(version) for label, version in entry.version_labels.items()},
            sampling=_sampling(entry) if entry.HasField("logging_config") else None,
        )
    return tuple(configs.values())


def _check_model(entry: Any) -> None:
    if not MODEL_NAME.fullmatch(entry.name):
        raise ConfigurationError(
            f"Expected a model name of letters, digits, '_', '-' and '.' (at most 128, not starting with '.'), "
            f"got {entry.name[:80]!r}"
        )
    if "://" in entry.base_path:
        raise ConfigurationError(
            f"base_path of model {entry.name} is {entry.base_path}: only folders of this machine are read; mount or "
            "copy it"
        )
    if not entry.base_path.startswith("/"):
        raise ConfigurationError(
            f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
        )
    if not entry.model_platform and not entry.model_type:
        raise ConfigurationError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f"model name is {entry.name}"
        )
    if entry.model_platform not in ("", "tensorflow"):
        raise ConfigurationError(f"Model {entry.name} requests unsupported platform {entry.model_platform}")


def _policy(entry: Any) -> VersionPolicy:
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice") or "latest"
    if kind == "latest":
        return VersionPolicy("latest", num_versions=policy.latest.num_versions or 1)
    if kind == "all":
        return VersionPolicy("all")
    if not policy.specific.versions:
        raise ConfigurationError(f"Model {entry.name} asks for specific versions and names none")
    return VersionPolicy("specific", versions=tuple(policy.specific.versions))


def _sampling(entry: Any) -> RequestSampling | None:
    collector = entry.logging_config.log_collector_config
    rate = entry.logging_config.sampling_config.sampling_rate
    if not rate:
        return None
    if not 0 < rate <= 1:
        raise ConfigurationError(f"sampling_rate of model {entry.name} is {rate:g}: expected a share in [0, 1]")
    if collector.type not in ("", "tfrecord"):
        raise ConfigurationError(
            f"Model {entry.name} asks for a log collector of type {collector.type!r}: here is only 'tfrecord'"
        )
    if not collector.filename_prefix.startswith("/"):
        raise ConfigurationError(
            f"filename_prefix of the log of model {entry.name} must be an absolute path, was "
            f"{collector.filename_prefix!r}"
        )
    return RequestSampling(collector.filename_prefix, rate)


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Return the parameters of a ``--batching_parameters_file``.

    Raises:
        ConfigurationError: It cannot be read or parsed, or sizes do not go together.
    """
    message = _read(path, "BatchingParameters")
    defaults = BatchingParameters()

    def value(name: str, default: Any) -> Any:
        return getattr(message, name).value if message.HasField(name) else default

    sizes = tuple(message.allowed_batch_sizes)
    largest = value("max_batch_size", defaults.max_batch_size)
    if sizes and list(sizes) != sorted(set(sizes)):
        raise ConfigurationError("allowed_batch_sizes entries must be monotonically increasing")
    split = bool(value("enable_large_batch_splitting", False))
    execution = value("max_execution_batch_size", 0)
    if execution and execution > largest:
        raise ConfigurationError("max_execution_batch_size must be less than or equal to max_batch_size")
    last = execution if split and execution else largest
    if sizes and sizes[-1] != last:
        raise ConfigurationError(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; expected {last}"
        )
    parameters = BatchingParameters(
        max_batch_size=largest,
        batch_timeout_micros=value("batch_timeout_micros", defaults.batch_timeout_micros),
        max_enqueued_batches=value("max_enqueued_batches", defaults.max_enqueued_batches),
        num_batch_threads=value("num_batch_threads", 0),
        thread_pool_name=value("thread_pool_name", defaults.thread_pool_name),
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        split_large=split,
        max_execution_batch_size=execution,
    )
    of_splitting = ("max_execution_batch_size",) if split else ()
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", *of_splitting):
        if message.HasField(name) and getattr(parameters, name) < 1:
            raise ConfigurationError(f"{name} must be positive; was {getattr(parameters, name)}")
    if parameters.batch_timeout_micros < 0:
        raise ConfigurationError(f"batch_timeout_micros must be non-negative; was {parameters.batch_timeout_micros}")
    return parameters


def read_monitoring_path(path: Path) -> str | None:
    """Return the path of the metrics page that a ``--monitoring_config_file`` asks for, or None.

    Raises:
        ConfigurationError: It cannot be read or parsed, or the path is none.
    """
    prometheus = _read(path, "MonitoringConfig").prometheus_config
    if not prometheus.enable:
        return None
    page = prometheus.path or "/monitoring/prometheus/metrics"
    if not page.startswith("/"):
        raise ConfigurationError(f"prometheus_config.path in {path} must start with '/'; was {page!r}")
    return str(page)


def read_tls(path: Path) -> TlsFiles:
    """Return the contents of a ``--ssl_config_file``.

    Raises:
        ConfigurationError: It cannot be read or parsed, or key or certificate are missing.
    """
    message = _read(path, "SSLConfig")
    for name in ("server_key", "server_cert"):
        if "-----BEGIN" not in getattr(message, name):
            raise ConfigurationError(f"{name} in {path} must hold PEM text, not a path")
    if message.client_verify and not message.custom_ca:
        raise ConfigurationError(f"client_verify in {path} needs custom_ca, the authorities to verify clients with")
    return TlsFiles(
        server_key=message.server_key.encode(),
        server_cert=message.server_cert.encode(),
        custom_ca=message.custom_ca.encode(),
        client_verify=message.client_verify,
    )


def _read(path: Path, name: str) -> Any:
    try:
        return _parsed(path, _CLASSES[name](), f"tensorflow.serving.{name}")
    except OSError as error:
        raise ConfigurationError(f"Failed to read {name} file {path}: {error.strerror}") from error


def _parsed(path: Path, message: Any, full_name: str) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Error parsing text-format {full_name}: {path}: {error}") from error
