"""A server with TensorFlow Serving's own REST and gRPC interface; ``python -m tf_serving.server --help``.

The way of a request::

    http_protocol (bytes -> HttpRequest) -> rest (path, JSON) --\
                                                                 > inference -> extensions -> batching -> loaded_model
    grpc_loop (bytes -> GrpcCall) -> grpc_service (messages) ----/

What surrounds it: ``settings`` (every flag, frozen, no TensorFlow), ``flags`` (TensorFlow Serving's flag syntax),
``config_files`` (its text-format files), ``model_store`` (versions, policies, labels, states, hot swap), ``trust`` and
``preflight`` with ``preflight_child`` (what may be loaded), ``warmup_replay``, ``metrics``, ``worker_metrics`` (their
sum over processes), ``prediction_log`` (``logging_config``), ``logs``, ``app`` (start and drain), ``main`` (one process
or several).

The seam for what TensorFlow Serving does not have is ``extensions``. A router, a cache, a request log, shadow traffic,
keys, further pages and further body formats are objects with a few small methods, collected in one ``Extensions`` value
that ``app.Server`` takes. Without extensions the hot path pays one ``if`` for each kind.

Importing this package imports nothing; ``settings``, ``flags``, ``status``, ``extensions`` and ``main`` do without
TensorFlow.
"""
