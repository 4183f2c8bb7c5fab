"""What `tamiz deploy` writes, read by the readers that will read it where a package has them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tf_serving.deploy import bundle
from tf_serving.deploy.bundle import Deployed, DeploySettings, write_bundle
from tf_serving.deploy.serving_files import Served, read_served
from tf_serving.errors import ExportError, VerificationError
from tf_serving.version_manifest import verify_manifest

SETTINGS = DeploySettings(p95_ms=40.0, cpus=2, image="registry.example:5000/penguins:1")


@pytest.fixture(scope="session")
def deployed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return write_bundle(exported, directory=tmp_path_factory.mktemp("deploy"), settings=SETTINGS)


def documents(directory: Path, pattern: str = "**/*.y*ml") -> Iterator[tuple[str, Any]]:
    for path in sorted(directory.glob(pattern)):
        for document in yaml.safe_load_all(path.read_text()):
            yield str(path.relative_to(directory)), document


def parsed_models(path: Path) -> Any:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    return text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())


def test_the_model_is_there_unchanged(deployed: Deployed, exported: Path) -> None:
    copied = deployed.directory / "models" / "penguins" / "1"
    assert verify_manifest(copied) == verify_manifest(exported)
    assert (copied / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0


def test_tensorflow_serving_reads_its_configuration(deployed: Deployed) -> None:
    (config,) = parsed_models(deployed.directory / "serving" / "models.config").model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("penguins", "/models/penguins", "tensorflow")
    assert list(config.model_version_policy.specific.versions) == [1]
    assert dict(config.version_labels) == {"stable": 1}


def test_batching_and_monitoring_are_read_back(deployed: Deployed) -> None:
    from tf_serving.server.config_files import read_batching_parameters, read_monitoring_path

    batching = read_batching_parameters(deployed.directory / "serving" / "batching.config")
    plan = deployed.batching
    assert batching.max_batch_size == plan.max_batch_size >= batching.max_execution_batch_size >= 1
    assert batching.batch_timeout_micros == plan.batch_timeout_micros
    assert batching.max_enqueued_batches == plan.max_enqueued_batches
    assert batching.num_batch_threads == 2
    assert [entry.rows for entry in plan.measured] == sorted(entry.rows for entry in plan.measured)
    assert all(0 < entry.p50_ms <= entry.p95_ms for entry in plan.measured)
    path = read_monitoring_path(deployed.directory / "serving" / "monitoring.config")
    assert path == "/monitoring/prometheus/metrics"
    (scrape,) = yaml.safe_load((deployed.directory / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["metrics_path"] == path


def test_no_placeholder_is_left(deployed: Deployed) -> None:
    texts = [path for path in deployed.directory.rglob("*") if path.is_file() and "models" not in path.parts]
    assert len(texts) == len(bundle._TEMPLATES) + 3
    for path in texts:
        assert not re.search(r"@[A-Z0-9_]+@", path.read_text()), path


def test_every_template_is_written() -> None:
    folder = Path(bundle.__file__).parent / "templates"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(bundle._TEMPLATES)


def test_kubernetes_accepts_its_manifests(deployed: Deployed) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    kinds = set()
    for name, document in documents(deployed.directory, "kubernetes/*.yaml"):
        if document["kind"] != "Kustomization":
            validator.validate(document, validator.latest_version(), strict=True)
        else:
            assert {f"kubernetes/{entry}" for entry in document["resources"]} | {name} == {
                str(path.relative_to(deployed.directory)) for path in deployed.directory.glob("kubernetes/*")
            }
        kinds.add(document["kind"])
    assert kinds == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Kustomization",
    }  # fmt: skip


def test_a_wrong_manifest_would_be_noticed(deployed: Deployed) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    document = yaml.safe_load((deployed.directory / "kubernetes" / "deployment.yaml").read_text())
    document["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(validator.ValidationError):
        validator.validate(document, validator.latest_version(), strict=True)


def test_selectors_and_targets_meet(deployed: Deployed) -> None:
    found = [document for _, document in documents(deployed.directory, "kubernetes/*.yaml")]
    deployment = next(document for document in found if document["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for document in found:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                assert spec["selector"].items() <= labels.items()
                assert {port["targetPort"] for port in spec["ports"]} <= ports
            case "PodDisruptionBudget":
                assert spec["selector"]["matchLabels"].items() <= labels.items()
            case "NetworkPolicy":
                assert spec["podSelector"]["matchLabels"].items() <= labels.items()
            case "HorizontalPodAutoscaler":
                assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_the_kserve_service_serves_the_same_model(deployed: Deployed) -> None:
    ((_, service),) = documents(deployed.directory, "kserve/*.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"}
    assert model["storageUri"].endswith("/penguins")
    assert model["runtimeVersion"] == bundle.SERVING_TAG


def test_the_dockerfile_is_clean(deployed: Deployed) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    command = [hadolint, "--failure-threshold", "style", str(deployed.directory / "Dockerfile")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_what_compose_mounts_is_there(deployed: Deployed) -> None:
    compose = yaml.safe_load((deployed.directory / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert not service["image"].endswith("latest")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (deployed.directory / source).is_dir()
    # The same server, with the same flags, as the image.
    dockerfile = (deployed.directory / "Dockerfile").read_text()
    assert set(compose["services"]["serving"]["command"]) == set(re.findall(r'"(--[^"]+)"', dockerfile))


def test_prometheus_understands_rules_and_dashboard(deployed: Deployed) -> None:
    parser = pytest.importorskip("promql_parser")
    (group,) = yaml.safe_load((deployed.directory / "prometheus" / "rules.yml").read_text())["groups"]
    expressions = [rule["expr"] for rule in group["rules"]]
    assert all(("record" in rule) != ("alert" in rule) for rule in group["rules"])
    dashboard = json.loads((deployed.directory / "grafana" / "dashboards" / "serving.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expressions.append(target["expr"].replace("$__rate_interval", "1m").replace("$model", "penguins"))
    assert len(expressions) > 12
    for expression in expressions:
        parser.parse(expression)
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        parser.parse("sum by (rate(")
    assert "> 40000" in next(rule["expr"] for rule in group["rules"] if rule.get("alert") == "ServingSlow")


def test_the_dashboard_asks_for_metrics_that_the_server_has(deployed: Deployed) -> None:
    text = (deployed.directory / "grafana" / "dashboards" / "serving.json").read_text()
    text += (deployed.directory / "prometheus" / "rules.yml").read_text()
    asked = {name.removesuffix("_bucket") for name in re.findall(r"(?<![a-z])(:tensorflow:[a-z:_]+)", text)}
    assert asked == {
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency",
        ":tensorflow:serving:runtime_latency",
        ":tensorflow:serving:request_example_count_total",
        ":tensorflow:serving:batching_session:queuing_latency",
    }


@pytest.fixture
def canary(deployed: Deployed, tmp_path: Path) -> Path:
    """A copy of the folder with a second version."""
    shutil.copytree(deployed.directory, tmp_path / "deploy")
    shutil.copytree(tmp_path / "deploy/models/penguins/1", tmp_path / "deploy/models/penguins/2")
    return tmp_path / "deploy" / "canary.sh"


def sh(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(script), *arguments], capture_output=True, text=True, check=False)


def test_a_canary_is_tried_and_promoted_or_rolled_back(canary: Path) -> None:
    config = canary.parent / "serving" / "models.config"
    for step, served in [
        (("try", "2"), Served("penguins", 1, 2)),
        (("rollback",), Served("penguins", 1)),
        (("try", "2"), Served("penguins", 1, 2)),
        (("promote",), Served("penguins", 2)),
    ]:
        result = sh(canary, *step)
        assert (result.returncode, result.stderr) == (0, "")
        assert config.read_text() == served.to_text()
        assert read_served(config) == served
        parsed_models(config)
    assert sh(canary, "status").stdout == "stable 2\ncanary none\n"


def test_the_files_start_a_server_of_the_same_interface(canary: Path, tmp_path: Path) -> None:
    from tf_serving.server.app import Server
    from tf_serving.server.config_files import read_model_config
    from tf_serving.server.flags import parse_flags

    folder, moved = canary.parent, tmp_path / "models.config"
    sample = (folder / "models" / "penguins" / "1" / "assets.extra" / "sample_request.json").read_bytes()
    ports = {"8500": free_port(), "8501": free_port()}

    def move() -> Path:
        text = (folder / "serving" / "models.config").read_text()
        moved.write_text(text.replace('"/models/', f'"{folder}/models/'))
        return moved

    # Only places and ports are others than in the container.
    command = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["serving"]["command"]
    flags = [flag.replace("/serving/models.config", str(move())) for flag in command]
    flags = [flag.replace("=/serving/", f"={folder}/serving/") for flag in flags]
    flags = [re.sub("port=(850[01])$", lambda match: f"port={ports[match[1]]}", flag) for flag in flags]
    server = Server(parse_flags([*flags, "--enable_preflight=false"]).settings)

    def ask(method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", ports["8501"], timeout=60)
        try:
            connection.request(method, path, sample if method == "POST" else None)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def asked() -> dict[str, int]:
        labels = ("stable", "canary")
        return {label: ask("POST", f"/v1/models/penguins/labels/{label}:predict")[0] for label in labels}

    server.start()
    try:
        assert asked() == {"stable": 200, "canary": 400}
        for step, versions, answers in [
            (("try", "2"), (2, 1), {"stable": 200, "canary": 200}),
            (("promote",), (2,), {"stable": 200, "canary": 400}),
        ]:
            assert sh(canary, *step).returncode == 0
            assert server.reload(read_model_config(move())) == []
            assert server.models.available("penguins") == versions
            assert asked() == answers
        (scrape,) = yaml.safe_load((folder / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
        status, page = ask("GET", scrape["metrics_path"])
        assert (status, b":tensorflow:serving:request_count{" in page) == (200, True)
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected status, try VERSION, promote or rollback"),
        (("try",), "expected a version, such as: canary.sh try 2"),
        (("try", "2; rm"), "expected a version"),
        (("try", "7"), "there is no version 7 in"),
        (("try", "1"), "version 1 is the stable one"),
        (("promote",), "there is no canary"),
        (("rollback",), "there is no canary"),
    ],
)
def test_steps_that_make_no_sense_change_nothing(canary: Path, arguments: tuple[str, ...], message: str) -> None:
    before = (canary.parent / "serving" / "models.config").read_text()
    result = sh(canary, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert (canary.parent / "serving" / "models.config").read_text() == before


@pytest.fixture
def another(penguins: Any, tmp_path: Path) -> Path:
    """A second export of the same name, with another file inside."""
    from tf_serving.export import export_saved_model

    return export_saved_model(
        penguins.answer,
        track=penguins.track,
        schema=penguins.schema,
        directory=tmp_path / "export" / "penguins",
        sample=penguins.raw,
        extra_files={"notes.md": b"second\n"},
    )


def test_a_later_version_becomes_the_canary(
    deployed: Deployed, exported: Path, another: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "measure_latency", lambda _: deployed.batching.measured)
    directory = tmp_path / "deploy"
    assert write_bundle(exported, directory=directory, settings=SETTINGS).served == Served("penguins", 1)
    assert write_bundle(another, directory=directory, settings=SETTINGS).served == Served("penguins", 1, 2)
    again = write_bundle(exported, directory=directory, settings=SETTINGS)
    assert (again.version, again.served) == (1, Served("penguins", 1, 2))
    assert sorted(path.name for path in (directory / "models" / "penguins").iterdir()) == ["1", "2"]


def test_an_export_that_was_changed_is_not_deployed(another: Path, tmp_path: Path) -> None:
    (another / "assets.extra" / "notes.md").write_text("changed")
    with pytest.raises(VerificationError, match=r"'assets.extra/notes.md' in .* was changed after the export"):
        write_bundle(another, directory=tmp_path / "deploy", settings=SETTINGS)
    assert not (tmp_path / "deploy").exists()


def test_a_place_that_holds_something_else_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not empty and was not written by tamiz; choose another place"):
        write_bundle(exported, directory=tmp_path, settings=SETTINGS)
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "models.config").write_text("model_config_list {}")
    with pytest.raises(ExportError, match=r"is not a models.config of tamiz"):
        write_bundle(exported, directory=tmp_path, settings=SETTINGS)
    (tmp_path / "serving" / "models.config").write_text(Served("other", 1).to_text())
    with pytest.raises(ExportError, match="serves the model 'other', not 'penguins'; choose another place"):
        write_bundle(exported, directory=tmp_path, settings=SETTINGS)


def test_a_place_that_cannot_be_written_is_told(
    deployed: Deployed, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "measure_latency", lambda _: deployed.batching.measured)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"Cannot write .*: Not a directory"):
        write_bundle(exported, directory=tmp_path / "file" / "deploy", settings=SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p95_ms": 0}, "a target between 0 and 600,000 ms, received 0"),
        ({"p95_ms": float("nan")}, "a target between 0 and 600,000 ms, received nan"),
        ({"cpus": 0}, "between 1 and 512 cores, received 0"),
        ({"min_replicas": 3, "max_replicas": 2}, "1 <= min_replicas <= max_replicas, received 3 and 2"),
        ({"image": "Adult:1 && rm"}, "the name of an image such as .* received 'Adult:1 && rm'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        DeploySettings(**settings)


def test_a_name_that_is_none_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="Expected a model name of letters"):
        Served('x" } }', 1)
