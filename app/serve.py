"""`tamiz serve`: from a run, or any folder of versions, to the flags of the model server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.errors import RunDirectoryError
from app.run_directory import RunDirectory
from tf_serving.model_versions import versions


def serving_flags(target: Path, *, given: Sequence[str] = ()) -> list[str]:
    """Returns the server's flags for a run directory or a model's folder; flags that were given stay as they are.

    Args:
        target: A run with an export, or a folder of version directories as TensorFlow Serving reads them.
        given: Flags under TensorFlow Serving's own names.

    Raises:
        RunDirectoryError: There is nothing to serve in `target`.
    """
    name, base = _model_in(target)
    named = any(flag.partition("=")[0].replace("-", "_") == "__model_name" for flag in given)
    return [*([] if named else [f"--model_name={name}"]), f"--model_base_path={base.absolute()}", *given]


def _model_in(target: Path) -> tuple[str, Path]:
    run = RunDirectory(target)
    if run.holds_experiment:
        name = run.read_config().name
        if not versions(run.exports / name):
            raise RunDirectoryError(f"{target} has no exported model yet: go on with `tamiz resume {target}`")
        return name, run.exports / name
    if not target.is_dir():
        raise RunDirectoryError(f"{target} is no folder: expected a run directory or a folder of model versions")
    if not versions(target):
        raise RunDirectoryError(
            f"{target} holds no model: expected a run directory, or version folders such as {target / '1'}"
        )
    return target.absolute().name, target
