"""tamiz: a table in, a searched, verified and served Keras model out.

import tamiz

experiment = tamiz.search(frame, target="Status", time="5m")
experiment.leaderboard        # the trials, best first
experiment.test_metrics       # the sealed test
experiment.predict(new_rows)  # answers of the exported model
experiment.export("models/credit")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.api import prepare, resume, search
from app.config import ExperimentConfig, ForecastConfig
from app.errors import TamizError
from app.experiment import Experiment, load
from app.search.space import Boolean, Categorical, Float, Int, Space
from app.view import ConsoleView, SilentView, View
from pipelines.errors import DataError
from pipelines.schema import DatasetSchema, FeatureKind, Task
from pipelines.sources import Origin

__all__ = [
    "Boolean",
    "Categorical",
    "ConsoleView",
    "DataError",
    "DatasetSchema",
    "Experiment",
    "ExperimentConfig",
    "FeatureKind",
    "Float",
    "ForecastConfig",
    "Int",
    "Origin",
    "SilentView",
    "Space",
    "TamizError",
    "Task",
    "View",
    "load",
    "prepare",
    "resume",
    "search",
]


if TYPE_CHECKING:
    from app.keras_tuner_oracle import KerasTunerOracle as KerasTunerOracle


def __getattr__(name: str) -> Any:
    """Import what needs TensorFlow when it is asked for, so that `import tamiz` does not."""
    if name == "KerasTunerOracle":
        from app.keras_tuner_oracle import KerasTunerOracle

        return KerasTunerOracle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
