from __future__ import annotations

import dataclasses

import pytest

from tf_serving.server.flags import parse_flags, usage
from tf_serving.server.main import as_flags
from tf_serving.server.settings import Limits, ServerSettings
from tf_serving.server.status import ConfigurationError

MODEL = "--model_base_path=/models/m"


def test_a_command_line_of_tensorflow_serving_can_be_moved_over() -> None:
    line = [
        "--port=8500", "--rest_api_port=8502", "--model_name=m", MODEL, "--enable_batching",
        "--file_system_poll_wait_seconds=30", "--num_load_threads=4", "--rest_api_timeout_in_ms", "500",
        "--grpc_channel_arguments=grpc.max_send_message_length=1", "--enable_model_warmup=false",
    ]  # fmt: skip
    command = parse_flags(line)
    settings = command.settings
    assert (settings.port, settings.rest_api_port, settings.model_name) == (8500, 8502, "m")
    assert settings.enable_batching
    assert not settings.enable_model_warmup
    assert settings.rest_api_timeout_in_ms == 500
    assert settings.file_system_poll_wait_seconds == 30
    assert settings.grpc_channel_arguments == "grpc.max_send_message_length=1"
    assert [note.partition(" ")[0] for note in command.notes] == ["--num_load_threads"]


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = dataclasses.replace(
        ServerSettings(), model_base_path="/m", workers=3, allowed_roots=("/a", "/b"), limits=Limits(body_bytes=7)
    )
    assert parse_flags(as_flags(settings)).settings == settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            [MODEL, "--batching_parameters_file=b"],
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
        ([MODEL, "--model_nam=x"], "unknown argument: --model_nam=x; did you mean --model_name?"),
        ([MODEL, "--port=http"], "--port is a whole number, not 'http'"),
        ([MODEL, "--port=99999"], "--port is at most 65535, was 99999"),
        ([MODEL, "--port=-1"], "--port cannot be negative, was -1"),
        ([MODEL, "--port=8501"], "--port and --rest_api_port must differ, both are 8501"),
        ([MODEL, "--port=0", "--rest_api_port=0"], "At least one of --port"),
        ([MODEL, "--workers=0"], "--workers is at least 1"),
        ([MODEL, "--log_format=xml"], "--log_format is auto, json or text, not 'xml'"),
        ([MODEL, "--enable_batching=maybe"], "--enable_batching is true or false, not 'maybe'"),
        ([MODEL, "--drain_seconds=soon"], "--drain_seconds is a number, not 'soon'"),
        ([MODEL, "--host"], "--host needs a value"),
        ([MODEL, "--workers=2", "--admin_token=t"], "--admin_token needs one process"),
        (
            [MODEL, "--grpc_channel_arguments=a=1,b"],
            "--grpc_channel_arguments is key=value,key=value; 'b' has no value",
        ),
        (
            [MODEL, *(f"--tensorflow_{name}_parallelism=2" for name in ("session", "intra_op", "inter_op"))],
            "--tensorflow_session_parallelism has no effect beside",
        ),
        (
            [MODEL, "--strict_compat", "--port=0"],
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        ),
    ],
)
def test_a_bad_flag_is_refused_in_words(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_flags(flags)
    assert message in str(raised.value)


def test_strict_compatibility_goes_on_after_an_unknown_flag() -> None:
    command = parse_flags([MODEL, "--strict_compat", "--unheard_of=1"])
    assert command.notes == ("unknown argument: --unheard_of=1", usage())


def test_strict_compatibility_goes_on_without_rest_where_both_ports_are_the_same() -> None:
    command = parse_flags([MODEL, "--strict_compat", "--port=8501"])
    assert (command.settings.port, command.settings.rest_api_port) == (8501, 0)
    assert command.notes == ("--port and --rest_api_port must differ, both are 8501; REST is off",)


def test_every_flag_is_in_the_usage() -> None:
    text = usage()
    assert "--model_config_file=''" in text
    assert "--max_connections=4096" in text
