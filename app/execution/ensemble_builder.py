"""The networks of an ensemble, built from their trials' hyperparameters and best weights, and saved (TensorFlow)."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from app.ensemble_file import SavedEnsemble, SavedNetwork, write_ensemble
from app.execution.messages import EnsembleMember, EnsembleSaved, SaveEnsemble
from app.run_directory import RunDirectory
from app.search.limits import PARAMETERS
from app.search.space import Value
from app.state_store import BEST_FILE, state_store
from app.training.averaged_networks import WeightedNetwork
from app.training.final_model import FinalModel, averaged, encoders_of, load_network, save_network
from app.training.measuring import ModelMeasurer
from app.training.network import TrainingPart, forget_graphs
from app.training.trainer import Trainer
from app.training.trial_network import network_of_trial
from app.trial_states import ensemble_parts


@final
class EnsembleBuilder:
    """Builds what a selection asks for; what was built once is there for the next, smaller selection.

    Args:
        trainer: Builds networks.
        parts: What the networks of a trial were trained on: the training rows, or those of each fold.
        directory: The experiment.
        measurer: Measures what would be exported.
    """

    def __init__(
        self, trainer: Trainer, parts: Sequence[TrainingPart], *, directory: RunDirectory, measurer: ModelMeasurer
    ) -> None:
        self._trainer, self._parts = trainer, tuple(parts)
        self._directory, self._measurer, self._states = directory, measurer, state_store(directory)
        self._built: dict[int, tuple[WeightedNetwork, ...]] = {}
        self._broken: set[int] = set()

    def build(self, request: SaveEnsemble, single: FinalModel) -> tuple[FinalModel, EnsembleSaved]:
        """Builds and saves the members in their order while there is time, at least the first.

        Args:
            request: The members and their weights.
            single: The winner, trained on all rows.

        Returns:
            What is exported, and what there is to tell of it. Fewer members than asked for are no ensemble yet: the
            request is to be made again with those.
        """
        winner = averaged(self._trainer, single.single.networks, temperature=request.single_temperature)
        done = {member.trial for member in request.members if self._is_built(member, request, single)}
        networks = [
            replace(
                network,
                weight=member.weight / len(found),
                # An average of intervals that are each widened by the margin is widened by it.
                answers=replace(network.answers, interval_margin=request.interval_margin),
            )
            for member in request.members
            if member.trial in done
            for found in [self._built[member.trial]]
            for network in found
        ]
        exported = averaged(self._trainer, networks, temperature=request.temperature) if networks else winner
        saved = SavedEnsemble(
            winner=request.winner,
            single_temperature=request.single_temperature,
            temperature=request.temperature,
            networks=tuple(
                SavedNetwork(
                    file=one.file, trial=one.trial, weight=one.weight, answers=one.answers.to_json(), fold=one.fold
                )
                for one in networks
            ),
        )
        write_ensemble(self._directory, saved)
        self._remove_others({one.file for one in networks})
        encoders = encoders_of(self._trainer, self._directory, folds=exported.folds)
        measures = self._measurer.exportable(exported, encoders=encoders, measures=request.measure)
        told = EnsembleSaved(
            trials=tuple(member.trial for member in request.members if member.trial in done),
            num_networks=len(exported.networks),
            num_parameters=exported.num_parameters,
            measures=measures | {PARAMETERS: float(exported.num_parameters)},
            broken=tuple(member.trial for member in request.members if member.trial in self._broken - done),
        )
        return replace(single, single=winner, exported=exported, saved=saved, encoders=encoders), told

    def _is_built(self, member: EnsembleMember, request: SaveEnsemble, single: FinalModel) -> bool:
        if member.trial in self._built:
            return True
        if self._built and time.time() >= request.deadline:
            return False
        if member.trial == request.winner and len(self._parts) == 1:
            # It has seen all rows by now; the weights of its trial have not.
            self._built[member.trial] = tuple(
                replace(network, trial=member.trial) for network in single.single.networks
            )
            return True
        self._trainer.data.encoder.alive()
        try:
            self._built[member.trial] = tuple(self._networks(member.trial, member.hyperparameters))
        except Exception:  # an ensemble does without a member whose files are damaged or whose space has changed
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            self._broken.add(member.trial)
            return False
        finally:
            forget_graphs()
        return True

    def _networks(self, trial: int, values: Mapping[str, Value]) -> list[WeightedNetwork]:
        with self._states.held(trial, only=[BEST_FILE]) as state:
            parts = zip(ensemble_parts(state), self._parts, strict=True)
            return [
                self._network(trial, values, part=part, state=folder, fold=number if len(self._parts) > 1 else 0)
                for number, (folder, part) in enumerate(parts, start=1)
            ]

    def _network(
        self, trial: int, values: Mapping[str, Value], *, part: TrainingPart, state: Path, fold: int
    ) -> WeightedNetwork:
        network = network_of_trial(self._trainer, part, values=values, state=state)
        suffix = f"-fold-{fold}" if fold else ""
        path = self._directory.members / f"{trial:04d}{suffix}.keras"
        save_network(network.model, path)
        # Inside a distribution strategy a network is in several places at once; elsewhere it is what was saved.
        mirrored = self._trainer.placement.num_replicas > 1
        model = load_network(path) if mirrored else network.model
        file = str(path.relative_to(self._directory.best))
        return WeightedNetwork(model=model, answers=network.answers, file=file, trial=trial, fold=fold)

    def _remove_others(self, files: set[str]) -> None:
        for path in self._directory.members.glob("*.keras"):
            if str(path.relative_to(self._directory.best)) not in files:
                path.unlink()
        if self._directory.members.is_dir() and not any(self._directory.members.iterdir()):
            self._directory.members.rmdir()
