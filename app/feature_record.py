"""Which feature groups a model looks up: kept in its run, and shipped with the exported model."""

from __future__ import annotations

from pathlib import Path

from app.config import ExperimentConfig
from app.run_directory import FEATURES_FILE, RunDirectory, write_json
from pipelines.feature_groups import find_group


def write_feature_record(config: ExperimentConfig, *, directory: RunDirectory) -> None:
    """Writes which groups rows look up, by which keys; nothing where there are none.

    Args:
        config: The settings.
        directory: The run directory, not yet in its final place.
    """
    data = config.data
    groups = [find_group(Path(data.store), title) for title in data.feature_groups]
    if groups:
        record = [
            {"name": group.name, "version": group.version, "key": group.key, "columns": list(group.columns)}
            for group in groups
        ]
        write_json(directory.path / FEATURES_FILE, {"groups": record})
