"""``best/ensemble.json``: which saved networks answer together, with what weights and at what temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.run_directory import RunDirectory, read_json, write_json

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedNetwork:
    """A network of the ensemble.

    Attributes:
        file: Relative to ``best/``; ``model.keras`` is the winner, trained on all rows.
        trial: The trial that it comes from.
        weight: Its share of the average.
        answers: `AnswerForm.to_json` of it.
        fold: The fold whose encoding of the columns it reads, from 1; 0 for that of all rows.
    """

    file: str
    trial: int
    weight: float
    answers: Mapping[str, Any]
    fold: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedEnsemble:
    """What is exported.

    Attributes:
        winner: The trial that ``model.keras`` was trained from; -1 where nothing says.
        single_temperature: Temperature of the winner alone.
        temperature: Temperature of the ensemble.
        networks: Its networks; () when the winner is exported alone.
    """

    winner: int = -1
    single_temperature: float = 1.0
    temperature: float = 1.0
    networks: tuple[SavedNetwork, ...] = ()


def write_ensemble(directory: RunDirectory, ensemble: SavedEnsemble) -> None:
    """Writes the file."""
    write_json(directory.ensemble_file, {"format": FORMAT, **asdict(ensemble)})


def read_ensemble(directory: RunDirectory) -> SavedEnsemble:
    """Returns what was written; where there is no file, the winner alone is all there is.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    if not directory.ensemble_file.is_file():
        return SavedEnsemble()
    record = dict(read_json(directory.ensemble_file))
    record.pop("format")
    networks = tuple(SavedNetwork(**network) for network in record.pop("networks"))
    return SavedEnsemble(**record, networks=networks)
