"""models.config with the labels of stable and canary, and monitoring.config (no TensorFlow here)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tf_serving.errors import ExportError
from tf_serving.model_versions import check_model_name

METRICS_PATH = "/monitoring/prometheus/metrics"

MONITORING_CONFIG = f"""\
prometheus_config {{
  enable: true
  path: "{METRICS_PATH}"
}}
"""

_LABEL = re.compile(r'key: "(stable|canary)" value: ([0-9]{1,18}) ')


@dataclass(frozen=True, slots=True)
class Served:
    """Which versions are served under which label.

    Attributes:
        model: Name of the model.
        stable: The version that users get.
        canary: The version on trial; None for none.
    """

    model: str
    stable: int
    canary: int | None = None

    def __post_init__(self) -> None:
        check_model_name(self.model)

    def to_text(self) -> str:
        """Return models.config; ``canary.sh`` writes the same text.

        A request without a label gets the newest served version, as TensorFlow Serving always answers.
        """
        versions = [self.stable] if self.canary is None else [self.stable, self.canary]
        policy = " ".join(f"versions: {version}" for version in versions)
        labels = {"stable": self.stable} | ({} if self.canary is None else {"canary": self.canary})
        lines = "".join(f'    version_labels {{ key: "{label}" value: {value} }}\n' for label, value in labels.items())
        return (
            "model_config_list {\n"
            "  config {\n"
            f'    name: "{self.model}"\n'
            f'    base_path: "/models/{self.model}"\n'
            '    model_platform: "tensorflow"\n'
            f"    model_version_policy {{ specific {{ {policy} }} }}\n"
            f"{lines}"
            "  }\n"
            "}\n"
        )


def read_served(path: Path) -> Served | None:
    """Return what a models.config that was written before says; None where there is none.

    Args:
        path: The file.

    Raises:
        ExportError: It is another one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ExportError(f"Cannot read {path}: {error}.") from error
    name = re.search(r'name: "([^"]+)"', text)
    labels = {label: int(version) for label, version in _LABEL.findall(text)}
    if name is None or "stable" not in labels:
        raise ExportError(f"{path} is not a models.config of tamiz; choose another place, or move it away.")
    return Served(name[1], labels["stable"], labels.get("canary"))
