"""What a search on images may begin with: the network of an earlier run, or a file of weights; no TensorFlow.

It is checked before any data is read, and copied into the run directory, so that a search can be resumed whatever
becomes of the place it came from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from app.config import ExperimentConfig, SearchConfig
from app.data_stage import KnownData
from app.errors import ConfigError, RunDirectoryError
from app.run_directory import RunDirectory, read_json, write_atomically
from app.search_progress import read_progress
from pipelines.image_encoding import Colour, ImageEncoding
from pipelines.preprocessing import PreprocessingState
from tf_serving.errors import VerificationError
from tf_serving.version_manifest import verify_manifest

PRETRAINED_SPACE = "pretrained"

WEIGHTS_SUFFIXES = (".h5",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a search begins with.

    Attributes:
        file: The network, or the weights.
        encoding: What the network takes; None for weights, whose network takes any size.
    """

    file: Path
    encoding: ImageEncoding | None = None


def check_backbone(config: ExperimentConfig) -> Start | None:
    """Returns what a search begins with; None where nothing was asked for.

    Raises:
        ConfigError: The space does not begin with anything, or there is no such file.
        RunDirectoryError: The run is none on images, is not finished, or was changed since.
    """
    place, space = config.search.backbone, config.search.space
    if not place:
        return None
    if space not in (PRETRAINED_SPACE, SearchConfig().space):
        raise ConfigError(
            f"a backbone is given and the space is {space!r}: expected --space {PRETRAINED_SPACE}, or none, as other "
            f"spaces begin at random"
        )
    path = Path(place)
    if path.suffix in WEIGHTS_SUFFIXES:
        if not path.is_file():
            raise ConfigError(f"there are no weights {path}: expected a file, or the run directory of a search")
        return Start(file=path)
    return _start_of_run(RunDirectory.open(path))


def begun_with(config: ExperimentConfig, start: Start | None) -> ExperimentConfig:
    """Returns the settings with the space that begins with something, and with images as the network knows them.

    Args:
        config: The settings; a size and colours that were asked for stay.
        start: What the search begins with.
    """
    if start is None:
        return config
    config = replace(config, search=replace(config.search, space=PRETRAINED_SPACE))
    if start.encoding is None:
        return config
    images, encoding = config.images, start.encoding
    if images.colour is Colour.AUTO:
        images = replace(images, colour=Colour.GREY if encoding.channels == 1 else Colour.RGB)
    if not images.size and encoding.height == encoding.width:
        images = replace(images, size=encoding.height)
    return replace(config, images=images)


def check_fits(start: Start | None, data: KnownData) -> None:
    """Checks the images against what the network takes.

    Raises:
        ConfigError: They have another number of channels.
    """
    if start is None or start.encoding is None:
        return
    for encoding in data.preprocessing.images:
        if encoding.channels != start.encoding.channels:
            raise ConfigError(
                f"the images have {encoding.channels} channels and the backbone has learned from "
                f"{start.encoding.channels}: expected equal ones; leave out the setting colour of [images], which then "
                f"follows the backbone"
            )


def write_backbone(start: Start | None, *, directory: RunDirectory) -> None:
    """Copies what a search begins with into its run directory.

    Args:
        start: What it begins with; None for nothing.
        directory: The run directory, not yet in its final place.
    """
    if start is not None:
        write_atomically(directory.backbone / start.file.name, start.file.read_bytes())


def _start_of_run(directory: RunDirectory) -> Start:
    """Returns the network of a finished run on images, having checked that nothing in it was changed since."""
    place = directory.path
    state = PreprocessingState.from_json(read_json(directory.preprocessing_file))
    if not state.images:
        raise RunDirectoryError(
            f"{place} is a search on a table: expected the run directory of one on images as a backbone"
        )
    stages = read_progress(directory).stages
    if "export" not in stages:
        raise RunDirectoryError(f"{place} has no exported model yet: go on with `tamiz resume {place}` first")
    exported = place / str(stages["export"]["directory"])
    known = str(stages["final"].get("sha256", ""))
    try:
        verify_manifest(exported)
        found = hashlib.sha256(directory.model_file.read_bytes()).hexdigest()
    except (VerificationError, OSError) as error:
        raise RunDirectoryError(f"{place} cannot be a backbone: {error}") from error
    if found != known:
        raise RunDirectoryError(
            f"{place} cannot be a backbone: {directory.model_file.name} is not what its search ended with (expected "
            f"SHA-256 {known[:12] or 'none, from an older version'}, found {found[:12]}); search again, or give "
            f"another run"
        )
    return Start(file=directory.model_file, encoding=state.images[0])
