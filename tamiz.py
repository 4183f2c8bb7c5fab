"""tamiz: a table in, a searched, verified and served Keras model out.

import tamiz

experiment = tamiz.search(frame, target="Status", time="5m")
experiment.leaderboard        # the trials, best first
experiment.test_metrics       # the sealed test
experiment.predict(new_rows)  # answers of the exported model
experiment.export("models/credit")
"""

from __future__ import annotations

from app.api import search
from app.config import ExperimentConfig
from app.errors import TamizError
from app.experiment import Experiment, load, resume
from app.search.space import Boolean, Categorical, Float, Int, Space
from app.view import ConsoleView, SilentView, View
from pipelines.errors import DataError
from pipelines.schema import DatasetSchema, FeatureKind, Task

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
    "Int",
    "SilentView",
    "Space",
    "TamizError",
    "Task",
    "View",
    "load",
    "resume",
    "search",
]
