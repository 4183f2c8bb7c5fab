"""The command line: TensorFlow Serving's flags under its own names, and ours beside them. No TensorFlow here.

``--flag=value`` as TensorFlow has it, ``--flag value`` and dashes for underscores too; booleans may stand alone.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from tf_serving.server.beyond.options import BeyondOptions, build_extensions, option_defaults
from tf_serving.server.settings import Limits, ServerSettings
from tf_serving.server.status import ConfigurationError

NOT_FOR_US = {
    "rest_api_max_body": "say --max_body_bytes",
    "num_load_threads": "versions load one after another",
    "num_unload_threads": "every version drains in a thread of its own",
    "flush_filesystem_caches": "files are read once",
    "tensorflow_session_config_file": "use the intra and inter op flags",
    "platform_config_file": "there is one platform",
    "per_process_gpu_memory_fraction": "set TensorFlow's own variables",
    "use_alts_credentials": "use --ssl_config_file",
    "remove_unused_fields_from_bundle_metagraph": "it has no effect on answers",
    "enable_profiler": "there is no profiler service",
    "enforce_session_run_timeout": "runs have the request's deadline",
    "use_tflite_model": "say --prefer_tflite_model",
    "num_tflite_pools": "one interpreter for each thread",
    "num_tflite_interpreters_per_pool": "one interpreter for each thread",
    "mixed_precision": "the graph runs as it was exported",
    "skip_initialize_tpu": "there is no TPU",
    "enable_cors_support": "say --rest_api_enable_cors_support",
    "thread_pool_factory_config_file": "threads have flags of their own",
}
"""Flags of TensorFlow Serving that are accepted and do nothing."""

_NOT_FLAGS = {"limits", "extensions"}
_LIMIT_PREFIX = "max_"


@dataclasses.dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line says.

    Attributes:
        settings: Of the server.
        notes: Lines for the user.
        version: Whether only the version is asked for.
        help: Whether only the list of flags is asked for.
    """

    settings: ServerSettings
    notes: tuple[str, ...] = ()
    version: bool = False
    help: bool = False


def parse_flags(arguments: Sequence[str]) -> CommandLine:
    """Return the settings.

    Args:
        arguments: Without the program's name.

    Raises:
        ConfigurationError: An unknown flag (not with ``--strict_compat``, which says so and goes on, as TensorFlow
            Serving does) or a value that does not fit.
    """
    fields = {field.name: field for field in dataclasses.fields(ServerSettings) if field.name not in _NOT_FLAGS}
    limits = {_LIMIT_PREFIX + field.name: field for field in dataclasses.fields(Limits)}
    defaults: dict[str, Any] = {name: getattr(ServerSettings(), name) for name in fields}
    defaults |= {name: getattr(Limits(), field.name) for name, field in limits.items()}
    beyond = option_defaults()
    defaults |= beyond
    values: dict[str, Any] = {}
    unknown: list[str] = []
    notes: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if argument in ("--version", "--help", "-h"):
            settings = ServerSettings()
            return CommandLine(settings, version=argument == "--version", help=argument != "--version")
        if name in NOT_FOR_US and argument.startswith("--"):
            notes.append(f"--{name} has no effect here: {NOT_FOR_US[name]}")
            continue
        if not argument.startswith("--") or name not in defaults:
            unknown.append(argument)
            continue
        default = defaults[name]
        if not equals and not isinstance(default, bool):
            if not pending:
                raise ConfigurationError(f"--{name} needs a value")
            text = pending.pop(0)
        value = _value(name, text if equals or not isinstance(default, bool) else "true", default)
        # A list may also be given by naming the flag again.
        values[name] = (*values.get(name, ()), *value) if isinstance(default, tuple) else value
    if unknown and not values.get("strict_compat"):
        near = difflib.get_close_matches(unknown[0].lstrip("-").partition("=")[0].replace("-", "_"), defaults, n=1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        raise ConfigurationError(f"unknown argument: {unknown[0]}{hint}")
    notes += [f"unknown argument: {argument}" for argument in unknown]
    limit_values = {limits[name].name: value for name, value in values.items() if name in limits}
    settings = ServerSettings(
        **{name: value for name, value in values.items() if name in fields},
        limits=Limits(**limit_values),
        extensions=build_extensions(BeyondOptions(**{name: values[name] for name in beyond if name in values})),
    )
    if unknown:
        notes.append(usage())
    if settings.strict_compat and settings.port and settings.port == settings.rest_api_port:
        # TensorFlow Serving goes on without REST, and says so in its log.
        notes.append(f"--port and --rest_api_port must differ, both are {settings.port}; REST is off")
        settings = dataclasses.replace(settings, rest_api_port=0)
    return CommandLine(_checked(settings), notes=tuple(notes))


def usage() -> str:
    """Return the flags, one a line, with their defaults."""
    lines = ["usage: python -m tf_serving.server --model_name=NAME --model_base_path=DIRECTORY [flags]", ""]
    for field in dataclasses.fields(ServerSettings):
        if field.name not in _NOT_FLAGS:
            lines.append(f"  --{field.name}={getattr(ServerSettings(), field.name)!r}")
    for field in dataclasses.fields(Limits):
        lines.append(f"  --{_LIMIT_PREFIX}{field.name}={field.default!r}")
    lines += [f"  --{name}={default!r}" for name, default in option_defaults().items()]
    return "\n".join(lines)


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigurationError(f"--{name} is true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if name == "route":
        return (text,)  # its commas stand between versions
    if isinstance(default, tuple):
        return tuple(part for part in text.split(",") if part)
    if isinstance(default, str):
        return text
    try:
        value = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ConfigurationError(f"--{name} is {kind}, not {text!r}") from None
    if value < 0:
        raise ConfigurationError(f"--{name} cannot be negative, was {text}")
    return value


def _checked(settings: ServerSettings) -> ServerSettings:
    if not settings.port and not settings.grpc_socket_path and not settings.rest_api_port:
        raise ConfigurationError("At least one of --port, --grpc_socket_path and --rest_api_port has to be set.")
    if settings.strict_compat and not settings.port and not settings.grpc_socket_path:
        raise ConfigurationError(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    if settings.port and settings.port == settings.rest_api_port:
        raise ConfigurationError(f"--port and --rest_api_port must differ, both are {settings.port}")
    for name in ("port", "rest_api_port"):
        if getattr(settings, name) > 65_535:
            raise ConfigurationError(f"--{name} is at most 65535, was {getattr(settings, name)}")
    for name in ("rest_api_num_threads", "grpc_max_threads", "workers"):
        if getattr(settings, name) < 1:
            raise ConfigurationError(f"--{name} is at least 1")
    if not settings.model_base_path and not settings.model_config_file:
        raise ConfigurationError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    if settings.batching_parameters_file and not settings.enable_batching:
        raise ConfigurationError(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    if settings.workers > 1 and settings.admin_token:
        raise ConfigurationError(
            "--admin_token needs one process: HandleReloadConfigRequest would reach one of the --workers only; change "
            "the --model_config_file and let all of them poll it"
        )
    threads = ("session_parallelism", "intra_op_parallelism", "inter_op_parallelism")
    if all(getattr(settings, f"tensorflow_{name}") for name in threads):
        raise ConfigurationError(
            "--tensorflow_session_parallelism has no effect beside --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism; leave one out"
        )
    for part in filter(None, settings.grpc_channel_arguments.split(",")):
        if "=" not in part:
            raise ConfigurationError(f"--grpc_channel_arguments is key=value,key=value; {part!r} has no value")
    if settings.log_format not in ("auto", "json", "text"):
        raise ConfigurationError(f"--log_format is auto, json or text, not {settings.log_format!r}")
    return settings
