"""`tamiz serve`: from a run, or any folder of versions, to the flags of the model server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.errors import RunDirectoryError
from app.run_directory import FEATURES_FILE, SHIPPED_FOLDER, RunDirectory, read_json
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
    given = with_feature_tables(given, base)
    named = any(flag.partition("=")[0].replace("-", "_") == "__model_name" for flag in given)
    return [*([] if named else [f"--model_name={name}"]), f"--model_base_path={base.absolute()}", *given]


def with_feature_tables(given: Sequence[str], base: Path) -> list[str]:
    """Returns the flags with ``--features-from DATABASE`` as the tables of the feature groups of the newest version.

    Args:
        given: Flags.
        base: Folder of versions.

    Raises:
        RunDirectoryError: The model looks no features up, or the flag has no value.
    """
    flags = []
    pending = list(given)
    while pending:
        flag = pending.pop(0)
        name, equals, place = flag.partition("=")
        if name not in ("--features-from", "--features_from"):
            flags.append(flag)
            continue
        if not equals:
            if not pending:
                raise RunDirectoryError("--features-from needs a value: a database such as sqlite:///x.db")
            place = pending.pop(0)
        record = base / str(max(versions(base))) / SHIPPED_FOLDER / FEATURES_FILE
        if not record.is_file():
            raise RunDirectoryError(f"the model in {base} looks no features up: it was searched without --features")
        for group in read_json(record)["groups"]:
            flags.append(f"--feature_tables={place}#{group['name']}:{group['key']}")
    return flags


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
