"""The server as a process: start, signals, ports, TLS."""

from __future__ import annotations

import datetime
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.logs import LOGGER
from tf_serving.server.status import ConfigurationError


@contextmanager
def process(*flags: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "tf_serving.server", *flags]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def get(port: int, path: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return int(answer.status)


def wait_until_ready(started: subprocess.Popen[str], port: int) -> None:
    for _ in range(1200):
        if started.poll() is not None:
            raise RuntimeError(started.communicate()[1])
        try:
            if get(port, "/readyz") == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError


def wait_until_closed(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise TimeoutError


def workers_of(started: subprocess.Popen[str]) -> list[int]:
    return [int(child) for child in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()]


def ok_count(port: int) -> float:
    """What the metrics of all workers say."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/monitoring/prometheus/metrics", timeout=20) as answer:
        page = answer.read().decode()
    found = re.search(r':tensorflow:serving:request_count\{model_name="half",status="OK"\} (\d+)', page)
    return float(found[1]) if found else 0.0


class Load:
    """Clients that ask one request after another, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/models/half:predict"
        self._stop = threading.Event()
        self.answers: list[bytes] = []
        self.lost: list[OSError | http.client.HTTPException] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self._url, b'{"instances": [0.0]}', timeout=20) as answer:
                    self.answers.append(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(error)
                time.sleep(0.01)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def wait_until(condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_killed_under_load_is_replaced_and_nobody_gets_a_wrong_answer(
    models: Path, new_port: Callable[[], int]
) -> None:
    rest = new_port()
    with process(
        "--model_name=half", f"--model_base_path={models}/half_plus_two", "--allow-unverified", "--workers=2",
        f"--port={new_port()}", f"--rest_api_port={rest}", "--enable_preflight=false",
    ) as started:  # fmt: skip
        wait_until_ready(started, rest)
        with Load(rest) as load:
            wait_until(lambda: ok_count(rest) > 20)
            first, before = workers_of(started), ok_count(rest)
            # Both are there before one dies: else the port would be nobody's for a while.
            wait_until(lambda: all(Path(f"/proc/{worker}/task").exists() for worker in first))
            os.kill(first[0], signal.SIGKILL)
            wait_until(lambda: len(workers_of(started)) == 2 and first[0] not in workers_of(started))
            wait_until_ready(started, rest)
            answered = len(load.answers)
            wait_until(lambda: len(load.answers) > answered + 20)
        assert set(load.answers) == {b'{\n    "predictions": [3.0\n    ]\n}'}
        # Only what the dead worker had begun is lost, and its clients hear of it.
        assert all(isinstance(error, ConnectionError | urllib.error.URLError) for error in load.lost)
        # The counts of the dead worker are still in the sum.
        assert ok_count(rest) >= before
        workers = workers_of(started)
        started.send_signal(signal.SIGKILL)
        _, log = started.communicate(timeout=60)  # ends when the workers have ended, too
        assert "Worker 0 ended with code -9 and is started again" in log
        wait_until(lambda: not any(Path(f"/proc/{worker}/fd").exists() for worker in workers))


def test_a_process_starts_and_drains_on_sigterm(models: Path, new_port: Callable[[], int]) -> None:
    rest, grpc = new_port(), new_port()
    body = b'{"instances": [0.0]}'
    with process(
        "--model_name=half", f"--model_base_path={models}/half_plus_two", "--allow-unverified",
        f"--port={grpc}", f"--rest_api_port={rest}",
    ) as started:  # fmt: skip
        wait_until_ready(started, rest)
        # The process that tried the model before is a copy of the server made at its start.
        (child,) = workers_of(started)
        assert Path(f"/proc/{child}/cmdline").read_bytes() == Path(f"/proc/{started.pid}/cmdline").read_bytes()
        with socket.create_connection(("127.0.0.1", rest), timeout=20) as connection:
            head = b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
            # Half a request is there when the signal comes: it is accepted, so it is answered.
            connection.sendall(head + body[:5])
            time.sleep(0.2)
            started.send_signal(signal.SIGTERM)
            wait_until_closed(rest)
            connection.sendall(body[5:])
            answer = connection.recv(1000)
        assert answer.endswith(b'{\n    "predictions": [3.0\n    ]\n}')
        assert b"Connection: close" in answer
        _, log = started.communicate(timeout=60)
        assert started.returncode == 0
        assert not Path(f"/proc/{child}/fd").exists()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    messages = [line["message"] for line in lines]
    assert f"Serving half (version 2): REST on http://127.0.0.1:{rest}/v1/models, gRPC on 127.0.0.1:{grpc}" in messages
    assert messages[-1] == "Stopped"
    assert all(line["level"] == "info" for line in lines)
    assert log.count("\n") == len(lines)  # nothing else reaches standard error


def test_a_taken_port_names_who_has_it(run_server: Callable[..., Any], models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("rest_api_port", "port"):
            with pytest.raises(ConfigurationError) as raised:
                run_server(model_name="half", model_base_path=str(models / "half_plus_two"), **{name: port})
            assert f":{port}: Address already in use (taken by " in str(raised.value)
            assert f"process {os.getpid()})" in str(raised.value)


def test_a_server_that_cannot_start_says_why(run_server: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Could not find base path .* for servable none"):
        run_server(model_name="none", model_base_path=str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="start the server with --allow-unverified"):
        run_server(model_name="half", model_base_path=str(models / "half_plus_two"), allow_unverified=False)
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigurationError, match=r"Could not find base path .*/file for servable file: Not a directory"
    ):
        run_server(model_name="file", model_base_path=str(tmp_path / "file"))
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"did not become available: \{broken\}: Could not find SavedModel"):
        run_server(model_name="broken", model_base_path=str(tmp_path / "broken"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(run_server: Callable[..., Any], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    with pytest.raises(ConfigurationError, match=r"Could not find base path .* Permission denied"):
        run_server(model_name="closed", model_base_path=str(closed))


@pytest.mark.parametrize("folders", [(), ("latest", "v1", "1.0", "-1")])
def test_ports_stay_closed_until_there_is_a_version(
    models: Path,
    tmp_path: Path,
    new_port: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
    folders: tuple[str, ...],
) -> None:
    from tf_serving.server.app import Server
    from tf_serving.server.settings import ServerSettings

    base = tmp_path / "half"
    base.mkdir()
    for folder in folders:
        shutil.copytree(models / "half_plus_two" / "2", base / folder)
    rest = new_port()
    settings = ServerSettings(
        port=0, rest_api_port=rest, model_name="half", model_base_path=str(base), allow_unverified=True
    )
    server = Server(settings)
    LOGGER.addHandler(caplog.handler)
    thread = threading.Thread(target=server.start)
    thread.start()
    try:
        words = "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        wait_until(lambda: words in caplog.text)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", rest), timeout=20)
        shutil.copytree(models / "half_plus_two" / "2", base / ".1")
        (base / ".1").rename(base / "1")
        thread.join()
        assert get(rest, "/readyz") == 200
    finally:
        LOGGER.removeHandler(caplog.handler)
        server._stopping.set()
        thread.join()
        server.stop()


def test_the_exit_code_says_whether_it_started(
    tmp_path: Path, new_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    from tf_serving.server.main import main

    config = tmp_path / "models.config"
    config.write_text("model_config_list { config }")
    flags = [f"--model_config_file={config}", f"--port={new_port()}", "--rest_api_port=0"]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert main(flags) == 2
        assert main([*flags, "--strict_compat"]) == 255
        assert main(["--no_such_flag"]) == 2
        assert main(["--strict-compat"]) == 255
        assert main(["--version"]) == 0
        assert main(["--help"]) == 0
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    printed = capsys.readouterr()
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in printed.err
    assert (
        "Failed to start server. Error: INVALID_ARGUMENT: Both server_options.model_base_path and "
        "server_options.model_config_file are empty!" in printed.err
    )
    assert "TensorFlow ModelServer: " in printed.out
    assert "--model_config_file" in printed.out


def certificate() -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, built.public_bytes(pem)


def test_one_file_gives_both_interfaces_tls(run_server: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    import grpc
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    key, cert = certificate()
    path = tmp_path / "ssl.config"

    def write(cert: bytes) -> None:
        path.write_text(f"server_key: {json.dumps(key.decode())} server_cert: {json.dumps(cert.decode())}")

    write(cert)
    values = {"model_name": "half", "model_base_path": str(models / "half_plus_two"), "ssl_config_file": str(path)}
    running = run_server(host="localhost", **values)
    context = ssl.create_default_context(cadata=cert.decode())
    with urllib.request.urlopen(f"https://localhost:{running.rest}/readyz", context=context, timeout=20) as answer:
        assert answer.status == 200
    with grpc.secure_channel(f"localhost:{running.grpc}", grpc.ssl_channel_credentials(cert)) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "half"
        assert model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request).model_version_status
    write(certificate()[1])
    with pytest.raises(ConfigurationError, match="server_key and server_cert cannot be used together"):
        run_server(**values)


def test_clients_have_to_show_a_certificate_where_asked(
    run_server: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    import grpc
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    (key, cert), (client_key, client_cert) = certificate(), certificate()
    fields = {"server_key": key, "server_cert": cert, "custom_ca": client_cert}
    text = " ".join(f"{name}: {json.dumps(content.decode())}" for name, content in fields.items())
    (tmp_path / "ssl.config").write_text(f"{text} client_verify: true")
    (tmp_path / "client.pem").write_bytes(client_key + client_cert)
    running = run_server(
        host="localhost", model_name="half", model_base_path=str(models / "half_plus_two"),
        ssl_config_file=str(tmp_path / "ssl.config"),
    )  # fmt: skip
    url = f"https://localhost:{running.rest}/readyz"
    context = ssl.create_default_context(cadata=cert.decode())
    with pytest.raises(OSError, match=r"certificate required|reset|closed|EOF"):
        urllib.request.urlopen(url, context=context, timeout=20)
    context.load_cert_chain(tmp_path / "client.pem")
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        assert answer.status == 200
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"

    def ask(*client: bytes) -> Any:
        credentials = grpc.ssl_channel_credentials(cert, *client)
        with grpc.secure_channel(f"localhost:{running.grpc}", credentials) as channel:
            return model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=20)

    assert ask(client_key, client_cert).model_version_status
    with pytest.raises(grpc.RpcError) as raised:
        ask()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_strict_compatibility(run_server: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true, path: "/metrics" }')
    running = run_server(
        model_name="half",
        model_base_path=str(models / "half_plus_two"),
        strict_compat=True,
        monitoring_config_file=str(monitoring),
        grpc_socket_path=str(tmp_path / "socket"),
    )
    assert running.http("GET", "/v1/models")[:2] == (400, {"error": "Missing model name in request."})
    assert running.http("GET", "/healthz")[0] == 404
    status, page, _ = running.http("GET", "/metrics")
    assert status == 200
    assert b":tensorflow:serving:request_count" in page
    assert b"tamiz" not in page
    assert b"# HELP" not in page
    assert (tmp_path / "socket").is_socket()
