"""Every setting of the server. No TensorFlow here.

The names, and where nothing is said the defaults, are those of ``tensorflow_model_server``'s flags.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tf_serving.server.extensions import Extensions

MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the server.

    Attributes:
        body_bytes: Largest body on the wire, and largest gRPC message.
        decompressed_bytes: Largest body after gzip.
        json_depth: Deepest nesting of JSON.
        batch_rows: Most rows of one request.
        header_bytes: Largest sum of all header fields and of the request line.
        connections: Most open REST connections.
        queue: Most REST requests that wait for a worker thread.
        header_seconds: Time for a client to send a whole header.
        body_seconds: Time for a client to send a whole body.
        idle_seconds: Time a kept-alive connection may be idle.
    """

    body_bytes: int = 32 * MEGABYTE
    decompressed_bytes: int = 64 * MEGABYTE
    json_depth: int = 32
    batch_rows: int = 1_000_000
    header_bytes: int = 32_768
    connections: int = 4_096
    queue: int = 1_024
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All flags; the ones of TensorFlow Serving first.

    Attributes:
        port: gRPC port; 0 switches gRPC off.
        rest_api_port: REST port; 0 switches REST off.
        grpc_socket_path: A Unix socket for gRPC beside the port.
        rest_api_num_threads: Threads for REST requests that are not answered on the event loop.
        rest_api_timeout_in_ms: Time a model may run for one REST request.
        rest_api_enable_cors_support: Whether CORS headers are sent.
        enable_batching: Whether rows of several requests run in one call.
        batching_parameters_file: BatchingParameters in text format.
        enable_per_model_batching_parameters: Whether ``batching_params.pbtxt`` of a version counts.
        model_name: Name of the one model.
        model_base_path: Directory with its versions.
        model_config_file: ModelServerConfig in text format; name and base path are then ignored.
        model_config_file_poll_wait_seconds: Time between two readings of that file; 0 reads it once.
        file_system_poll_wait_seconds: Time between two looks for new versions; 0 looks once.
        allow_version_labels_for_unavailable_models: Whether new labels may point at versions still to come.
        max_num_load_retries: Tries after the first one of loading a version.
        load_retry_interval_micros: Time between two tries.
        grpc_max_threads: Most gRPC requests at once.
        enable_model_warmup: Whether warm-up requests are replayed.
        num_request_iterations_for_warmup: How often each is replayed; 0 is 1.
        monitoring_config_file: MonitoringConfig in text format: switches the metrics page and sets its path.
        ssl_config_file: SSLConfig in text format, for gRPC and REST.
        saved_model_tags: Comma-separated tags of the graph to load.
        prefer_tflite_model: Whether ``model.tflite`` is taken before ``saved_model.pb``.
        enable_signature_method_name_check: Whether classify and regress ask for signatures made for them.
        enable_serialization_as_tensor_content: Whether gRPC answers carry ``tensor_content``.
        enable_grpc_healthcheck_service: Whether grpc.health.v1 is served.
        grpc_channel_arguments: Options of gRPC, ``key=value,key=value``.
        tensorflow_session_parallelism: Threads of both kinds, where the two following say nothing.
        tensorflow_intra_op_parallelism: Threads within an operation; 0 is for TensorFlow to choose.
        tensorflow_inter_op_parallelism: Threads between operations; 0 is for TensorFlow to choose.
        host: Address to listen on.
        workers: Processes behind the same ports.
        allow_unverified: Whether SavedModels without a manifest are loaded, after a scan of their operations.
        enable_preflight: Whether a version is first loaded in a child process.
        admin_token: Token that HandleReloadConfigRequest asks for; "" refuses the call.
        allowed_roots: Directories below which a reloaded configuration may find models.
        strict_compat: Whether harmless deviations from TensorFlow Serving are switched back.
        drain_seconds: Time that running requests have after SIGTERM.
        log_format: "json" or "text"; "auto" is text where standard error is a terminal.
        access_log: Whether every answer is a line of the log.
        limits: What one client may ask.
        extensions: What TensorFlow Serving does not have.
    """

    port: int = 8500
    rest_api_port: int = 8501
    grpc_socket_path: str = ""
    rest_api_num_threads: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    enable_batching: bool = False
    batching_parameters_file: str = ""
    enable_per_model_batching_parameters: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: int = 0
    file_system_poll_wait_seconds: float = 1.0
    allow_version_labels_for_unavailable_models: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    grpc_max_threads: int = field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    monitoring_config_file: str = ""
    ssl_config_file: str = ""
    saved_model_tags: str = "serve"
    prefer_tflite_model: bool = False
    enable_signature_method_name_check: bool = False
    enable_serialization_as_tensor_content: bool = False
    enable_grpc_healthcheck_service: bool = True
    grpc_channel_arguments: str = ""
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    host: str = "127.0.0.1"
    workers: int = 1
    allow_unverified: bool = False
    enable_preflight: bool = True
    admin_token: str = ""
    allowed_roots: tuple[str, ...] = ()
    strict_compat: bool = False
    drain_seconds: float = 30.0
    log_format: str = "auto"
    access_log: bool = False
    limits: Limits = field(default_factory=Limits)
    extensions: Extensions = field(default_factory=Extensions)
