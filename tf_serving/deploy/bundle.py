"""Write everything that TensorFlow Serving needs to run a model in production (no TensorFlow here)."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tf_serving.deploy.batching import BatchingPlan, plan_batching
from tf_serving.deploy.latency import measure_latency
from tf_serving.deploy.serving_files import METRICS_PATH, MONITORING_CONFIG, Served, read_served
from tf_serving.errors import ExportError, VerificationError
from tf_serving.model_versions import create_staging, discard, publish, versions
from tf_serving.version_manifest import verify_manifest

SERVING_TAG = "2.20.0"
"""The newest image; exports hold plain operations only, which it knows as well as the TensorFlow they come from."""
PROMETHEUS_TAG = "v3.5.0"
GRAFANA_TAG = "12.1.0"

_MEGABYTE = 1 << 20
_SERVER_MEGABYTES = 384
_TEMPLATES = (
    "Dockerfile",
    "README.md",
    "canary.sh",
    "compose.yaml",
    "dockerignore",
    "grafana/dashboards/serving.json",
    "grafana/provisioning/dashboards/tamiz.yaml",
    "grafana/provisioning/datasources/prometheus.yaml",
    "kserve/inference_service.yaml",
    "kubernetes/autoscaler.yaml",
    "kubernetes/deployment.yaml",
    "kubernetes/disruption_budget.yaml",
    "kubernetes/kustomization.yaml",
    "kubernetes/network_policy.yaml",
    "kubernetes/service.yaml",
    "prometheus/prometheus.yml",
    "prometheus/rules.yml",
)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,200}[a-z0-9]", re.ASCII)
_PLACEHOLDER = re.compile(r"@[A-Z0-9_]+@")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySettings:
    """What the deployment is for.

    Attributes:
        p95_ms: The 95th percentile that requests should keep, in milliseconds.
        cpus: Cores of one server.
        min_replicas: Servers at least.
        max_replicas: Servers at most.
        image: Name of the image with the model; "" for the model's own name.
    """

    p95_ms: float = 50.0
    cpus: int = 2
    min_replicas: int = 2
    max_replicas: int = 10
    image: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.p95_ms <= 600_000:
            raise ExportError(f"Expected a target between 0 and 600,000 ms, received {self.p95_ms:g}.")
        if not 1 <= self.cpus <= 512:
            raise ExportError(f"Expected between 1 and 512 cores, received {self.cpus}.")
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ExportError(
                f"Expected 1 <= min_replicas <= max_replicas, received {self.min_replicas} and {self.max_replicas}."
            )
        if self.image and not _IMAGE.fullmatch(self.image):
            raise ExportError(
                f"Expected the name of an image such as registry.example/adult:1, received {self.image!r}."
            )


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was written.

    Attributes:
        directory: Where.
        served: The versions and their labels.
        version: The version that was added, or was there already.
        batching: The batching parameters.
    """

    directory: Path
    served: Served
    version: int
    batching: BatchingPlan


def write_bundle(version: Path, *, directory: Path, settings: DeploySettings) -> Deployed:
    """Write, or bring up to date, the folder that serves a model.

    The model is copied there under the next free version; one that is there already is not copied again. The first
    version is the stable one, a later one becomes the canary.

    Args:
        version: Directory of the exported version, whose parent has the model's name.
        directory: Where to write; created when missing.
        settings: What it is for.

    Raises:
        ExportError: The export was changed, the target cannot be met, or the place cannot be written or holds
            something else.
    """
    expected = verify_manifest(version)
    model = version.parent.name
    config = directory / "serving" / "models.config"
    before = read_served(config)
    if before is not None and before.model != model:
        raise ExportError(f"{directory} serves the model {before.model!r}, not {model!r}; choose another place.")
    if before is None and directory.exists() and any(directory.iterdir()):
        raise ExportError(f"{directory} is not empty and was not written by tamiz; choose another place.")
    # Before anything is written: the target may be out of reach.
    batching = plan_batching(measure_latency(version), p95_ms=settings.p95_ms, cpus=settings.cpus)
    try:
        number = _add_version(version, directory / "models" / model, expected)
        served = _served(before, model, number)
        _write(directory / "serving" / "batching.config", batching.to_text())
        _write(directory / "serving" / "monitoring.config", MONITORING_CONFIG)
        values = _values(served, number, settings, megabytes=_size(version) / _MEGABYTE)
        for name in _TEMPLATES:
            target = directory / (".dockerignore" if name == "dockerignore" else name)
            _write(target, _filled(name, values))
        # Last: a server that polls it finds everything in place.
        _write(config, served.to_text())
    except OSError as error:
        raise ExportError(
            f"Cannot write {error.filename or directory}: {error.strerror}; choose a writable place."
        ) from error
    return Deployed(directory, served, number, batching)


def _served(before: Served | None, model: str, number: int) -> Served:
    if before is None:
        return Served(model, number)
    if number in (before.stable, before.canary):
        return before
    return Served(model, before.stable, number)


def _add_version(version: Path, base: Path, expected: object) -> int:
    for number in versions(base):
        try:
            if verify_manifest(base / str(number)) == expected:
                return number
        except VerificationError:
            continue
    staging = create_staging(base)
    try:
        shutil.copytree(version, staging, dirs_exist_ok=True)
        if verify_manifest(staging) != expected:
            raise ExportError(f"{version} changed while it was copied; try again.")
    except BaseException:
        discard(staging)
        raise
    return int(publish(staging).name)


def _values(served: Served, number: int, settings: DeploySettings, *, megabytes: float) -> dict[str, str]:
    # A new version is loaded beside the old one, and a loaded model takes about 1.2 times its files.
    request = int(_SERVER_MEGABYTES + 2.4 * megabytes)
    kube_name = re.sub(r"[^a-z0-9]+", "-", served.model.lower()).strip("-")[:50] or "model"
    kube_name = kube_name if kube_name[0].isalpha() else f"m-{kube_name}"
    return {
        "MODEL": served.model,
        "MODEL_LOWER": kube_name,
        "KUBE_NAME": kube_name,
        "VERSION": str(number),
        "IMAGE": settings.image or f"{kube_name}:{number}",
        "SERVING_TAG": SERVING_TAG,
        "PROMETHEUS_TAG": PROMETHEUS_TAG,
        "GRAFANA_TAG": GRAFANA_TAG,
        "METRICS_PATH": METRICS_PATH,
        "P95_MS": f"{settings.p95_ms:g}",
        "P95_MICROS": f"{settings.p95_ms * 1000:.0f}",
        "CPUS": str(settings.cpus),
        "MIN_REPLICAS": str(settings.min_replicas),
        "MAX_REPLICAS": str(settings.max_replicas),
        "MEMORY_REQUEST": str(request),
        "MEMORY_LIMIT": str(2 * request),
    }


def _filled(name: str, values: dict[str, str]) -> str:
    text = files("tf_serving.deploy").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: values[match[0].strip("@")], text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
