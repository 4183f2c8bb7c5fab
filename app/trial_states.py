"""Which trials keep what on disk: the best a state to go on from, the good ones what an ensemble needs of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import final

from app.run_directory import RunDirectory
from app.search.trial import History, Paused, Trial
from app.state_store import BEST_FILE, PREDICTIONS_FILE, state_store

ENSEMBLE_FILES = (BEST_FILE, PREDICTIONS_FILE)
"""Of a state, or of each of its folds."""

POOL_BYTES = 512 * 2**20
"""What the trials that wait for an ensemble may take on disk, beside the best ones."""


@final
class TrialStates:
    """The states of one search.

    Args:
        directory: The experiment.
        known: Its trials. A power cut may take the end of the journal and leave a state: another trial will have that
            number, so it is removed.
        keep: Number of best trials whose state stays whole.
        pool: Number of best trials of which the files for an ensemble stay.
    """

    def __init__(self, directory: RunDirectory, *, known: Container[int], keep: int, pool: int = 0) -> None:
        self._store, self._keep, self._pool = state_store(directory), keep, pool
        found = self._store.numbers()
        strangers = {number for number in found if number not in known}
        for number in strangers:
            self._store.delete(number)
        # Only these can have a state: looking at all trials after each would be most of a long search's cost.
        self._present = found - strangers
        self._sizes: dict[int, int] = {}

    def begun(self, numbers: Iterable[int]) -> None:
        """Takes note of trials that a worker has."""
        for number in numbers:
            self._present.add(number)
            self._sizes.pop(number, None)

    def delete_losers(self, history: History, *, running: Container[int], ranking: Sequence[Trial]) -> None:
        """Deletes what nothing needs any more of ended trials.

        Whoever is paused in an earlier bracket has lost; a scheduler that thinks otherwise has it trained anew.

        Args:
            history: All trials.
            running: Those that train now.
            ranking: Those with a result, best first.
        """
        current = max((trial.bracket for trial in history.values()), default=0)
        having = [history[number] for number in sorted(self._present) if number not in running]
        ended = [trial for trial in having if trial.outcome is not None]
        self.delete((t for t in ended if not isinstance(t.outcome, Paused) or t.bracket < current), ranking=ranking)

    def delete(self, trials: Iterable[Trial], *, ranking: Sequence[Trial]) -> None:
        """Deletes the states of all of `trials` but the best of `ranking`."""
        whole = {trial.number for trial in ranking[: self._keep]}
        rest = {trial.number for trial in trials} & self._present - whole
        room = POOL_BYTES
        for trial in ranking[self._keep : self._pool]:
            if trial.number in rest:
                room -= self._reduced(trial.number)
                if room >= 0 and trial.number in self._present:
                    rest.remove(trial.number)
        for number in rest & self._present:
            self._remove(number)

    def delete_pool(self, ranking: Sequence[Trial]) -> None:
        """Deletes what was kept for an ensemble that is saved by now; the best keep their states."""
        for number in self._present - {trial.number for trial in ranking[: self._keep]}:
            self._remove(number)

    def _reduced(self, number: int) -> int:
        """Leaves of a state what an ensemble needs; returns its size in bytes."""
        if number not in self._sizes:
            sizes = self._store.sizes(number)
            needed = {name for name in sizes if PurePosixPath(name).name in ENSEMBLE_FILES}
            self._sizes[number] = sum(sizes[name] for name in needed)
            self._store.delete(number, names=sizes.keys() - needed)
            if not self._sizes[number]:
                self._remove(number)
        return self._sizes.get(number, 0)

    def _remove(self, number: int) -> None:
        self._store.delete(number)
        self._present.discard(number)
        self._sizes.pop(number, None)


def ensemble_parts(state: Path) -> list[Path]:
    """Returns the folders of a state that hold networks with their predictions: its folds in order, or itself."""
    folds = sorted(state.glob("fold-*"), key=lambda folder: int(folder.name.removeprefix("fold-")))
    return folds or [state]
