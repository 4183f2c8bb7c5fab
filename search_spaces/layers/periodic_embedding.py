"""Periodic embeddings of numbers: PLR (Gorishniy et al., NeurIPS 2022) and PBLD (Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.layers.learned import present


class PeriodicForm(StrEnum):
    """What is made of the waves of a number ``x`` with the frequencies ``c`` of its column.

    PLR: ``relu(linear([cos(2 pi c x), sin(2 pi c x)]))``. PL: the same without ``relu``. PBLD: ``[x, linear(cos(2 pi c
    x + b))]`` with phases ``b``, the linear part one shorter than the vector.
    """

    PLR = "plr"
    PL = "pl"
    PBLD = "pbld"


@keras.saving.register_keras_serializable(package="tamiz")
class PeriodicEmbedding(keras.layers.Layer):
    """Embeds every number by waves of trained frequencies.

    Frequencies start as N(0, sigma^2), cut at three sigma (PLR, PL); phases start uniform in [-pi, pi]. A missing
    value (NaN) counts as 0.

    Args:
        size: Length of a number's vector; at least 2 for PBLD, which holds the number itself.
        form: PLR, PL or PBLD.
        num_frequencies: Waves of a column. The papers' defaults: 48 for PLR (size 24), 16 for PBLD (size 4).
        frequency_scale: Sigma. The papers' defaults: 0.01 for PLR, 0.1 for PBLD; the most important parameter.
        lite: Whether all columns share one linear layer, which makes wide tables cheap.

    Shapes:
        Input (batch, num_features) float; output (batch, num_features, size).
    """

    def __init__(
        self,
        size: int,
        *,
        form: str = PeriodicForm.PLR,
        num_frequencies: int = 48,
        frequency_scale: float = 0.01,
        lite: bool = False,
        **kwargs: Any,
    ) -> None:
        # In float16 the argument of a wave would be off by a good part of its period.
        super().__init__(autocast=False, **kwargs)
        self.size, self.form = int(size), PeriodicForm(form)
        self.num_frequencies, self.frequency_scale = int(num_frequencies), float(frequency_scale)
        self.lite = bool(lite)
        least = 2 if self.form is PeriodicForm.PBLD else 1
        if self.size < least:
            raise ValueError(f"size is {self.size}: expected at least {least} for {self.form.value}")
        if self.num_frequencies < 1:
            raise ValueError(f"num_frequencies is {self.num_frequencies}: expected at least 1")
        if not self.frequency_scale > 0:
            raise ValueError(f"frequency_scale is {self.frequency_scale}: expected a positive number")

    def build(self, input_shape: Any) -> None:
        """Creates frequencies, phases (PBLD), kernel ``(num_features or 1, num_waves, units)`` and bias."""
        num_features, num = int(input_shape[-1]), self.num_frequencies
        is_pbld = self.form is PeriodicForm.PBLD
        sigma, uniform = self.frequency_scale, keras.initializers.RandomUniform
        draw = keras.initializers.RandomNormal(stddev=sigma) if is_pbld else _cut_normal(sigma)
        shape = (num_features, num)
        self.frequencies = self.add_weight(name="frequencies", shape=shape, initializer=draw, autocast=False)
        if is_pbld:
            phases = uniform(-math.pi, math.pi)
            self.phases = self.add_weight(name="phases", shape=shape, initializer=phases, autocast=False)
        waves = num if is_pbld else 2 * num
        units = self.size - 1 if is_pbld else self.size
        owners, limit = 1 if self.lite else num_features, waves**-0.5
        self.kernel = self.add_weight(
            name="kernel", shape=(owners, waves, units), initializer=uniform(-limit, limit)
        )
        self.bias = self.add_weight(name="bias", shape=(owners, units), initializer=uniform(-limit, limit))
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the vectors."""
        x = present(x)
        # Features first: one product for all columns, and only the small result is transposed.
        angles = ops.expand_dims(ops.transpose(x), -1) * ops.expand_dims(2.0 * np.pi * self.frequencies, 1)
        if self.form is PeriodicForm.PBLD:
            waves = ops.cos(angles + ops.expand_dims(self.phases, 1))
        else:
            waves = ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)
        dtype = self.compute_dtype
        vectors = ops.matmul(ops.cast(waves, dtype), ops.cast(self.kernel, dtype))
        vectors = ops.transpose(vectors, (1, 0, 2)) + ops.cast(self.bias, dtype)
        if self.form is PeriodicForm.PLR:
            return ops.relu(vectors)
        if self.form is PeriodicForm.PL:
            return vectors
        return ops.concatenate([ops.expand_dims(ops.cast(x, dtype), -1), vectors], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_features, size)``."""
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        own = {
            "size": self.size,
            "form": self.form.value,
            "num_frequencies": self.num_frequencies,
            "frequency_scale": self.frequency_scale,
            "lite": self.lite,
        }
        return {**super().get_config(), **own}


def _cut_normal(sigma: float) -> Any:
    """N(0, sigma^2) cut at three sigma, where Keras' own truncated normal is cut at two."""

    def draw(shape: Any, dtype: Any = None) -> Any:
        # The inverse of the distribution function at a uniform number between those of -3 and 3.
        share = keras.random.uniform(shape, 0.0013498980316301, 0.9986501019683699, dtype=dtype or "float32")
        return sigma * math.sqrt(2.0) * ops.erfinv(2.0 * share - 1.0)

    return draw
