"""Keras' optimizers with TensorFlow's fused update kernels.

Keras writes an update as a dozen element-wise operations a variable: each is traced anew for every trial, and each
passes over the whole variable in memory. TensorFlow has kernels that do one variable's update in a single pass. The
arithmetic is the same; a test holds every optimizer to its Keras parent, step by step. Under a distribution strategy
with several replicas the parent's own update runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf

Number = TypeVar("Number", int, float)


class _FusedUpdates:
    """Weight decay in one operation a variable, with the learning rate evaluated once; mixed into an optimizer."""

    weight_decay: Any
    learning_rate: Any
    _use_weight_decay: Any

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if _is_distributed():
            super()._apply_weight_decay(variables)  # type: ignore[misc]
        elif self.weight_decay is not None:
            share = tf.cast(self.learning_rate, tf.float32) * self.weight_decay
            for variable in variables:
                if self._use_weight_decay(variable):
                    variable.value.assign_sub(variable.value * tf.cast(share, variable.dtype))


@keras.saving.register_keras_serializable(package="tamiz")
class FusedAdamW(_FusedUpdates, keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) with TensorFlow's Adam kernel; arguments as `keras.optimizers.AdamW`."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its two moments."""
        if _is_distributed() or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


@keras.saving.register_keras_serializable(package="tamiz")
class GroupedAdamW(FusedAdamW):
    """AdamW with a factor on the learning rate of each group of variables, and decay that follows a schedule.

    The decay of a variable with factor ``f`` is ``learning_rate * f * f * weight_decay``: as in the authors' code of
    RealMLP, whose defaults were found with it (the factor once for the rate, once for the decay).

    Args:
        learning_rate: As of `keras.optimizers.AdamW`.
        factors: Part of a variable's path, ``layer/name`` -> factor; the first that is found in it holds, and 1 where
            none is.
        decay_schedule: What the weight decay is multiplied by at every step; None for 1.
        first_steps: Part of a variable's path -> the step (from 0) at which it is set free; 0 where none is found.
        kwargs: The other arguments of `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        factors: Mapping[str, float] | None = None,
        decay_schedule: Any = None,
        first_steps: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if isinstance(decay_schedule, Mapping):
            decay_schedule = keras.optimizers.schedules.deserialize(decay_schedule)
        self.factors, self.decay_schedule = dict(factors or {}), decay_schedule
        self.first_steps = dict(first_steps or {})
        self._factor_of: list[float] = []
        self._first_step_of: list[int] = []

    def build(self, var_list: Sequence[Any]) -> None:
        """Creates the moments, and finds the group of every variable."""
        if not self.built:
            super().build(var_list)
            self._factor_of = [self._factor(variable.path) for variable in var_list]
            self._first_step_of = [self._first_step(variable.path) for variable in var_list]

    def _factor(self, path: str) -> float:
        return _found(self.factors, path, 1.0)

    def _first_step(self, path: str) -> int:
        return _found(self.first_steps, path, 0)

    def _is_free(self, variable: Any) -> Any:
        """Returns 1 from the step on at which a variable is set free, and 0 before; None where it always is free."""
        first = self._first_step_of[self._get_variable_index(variable)]
        return tf.cast(tf.convert_to_tensor(self.iterations) >= first, tf.float32) if first else None

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable at the rate of its group."""
        factor = self._factor_of[self._get_variable_index(variable)]
        free = self._is_free(variable)
        super().update_step(gradient, variable, learning_rate * (factor if free is None else factor * free))

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        share = tf.cast(self.learning_rate, tf.float32) * self.weight_decay
        if self.decay_schedule is not None:
            share = share * self.decay_schedule(self.iterations)

        def shrink(variable: Any, by: tf.Tensor) -> None:
            variable.assign_sub(variable * tf.cast(by, variable.dtype))

        def on_replicas(distribution: Any, decayed: Sequence[Any]) -> None:
            for variable in decayed:
                factor, free = self._factor_of[self._get_variable_index(variable)], self._is_free(variable)
                by = share * (factor**2 if free is None else factor**2 * free)
                distribution.extended.update(variable.value, shrink, args=(by,), group=False)

        decayed = [variable for variable in variables if self._use_weight_decay(variable)]
        tf.__internal__.distribute.interim.maybe_merge_call(on_replicas, tf.distribute.get_strategy(), decayed)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same optimizer."""
        schedule = self.decay_schedule
        own = None if schedule is None else keras.optimizers.schedules.serialize(schedule)
        groups = {"factors": self.factors, "first_steps": self.first_steps}
        return {**super().get_config(), **groups, "decay_schedule": own}


@keras.saving.register_keras_serializable(package="tamiz")
class FusedRMSprop(_FusedUpdates, keras.optimizers.RMSprop):
    """RMSprop (Tieleman & Hinton, 2012) with TensorFlow's kernel; arguments as `keras.optimizers.RMSprop`."""

    def build(self, var_list: Sequence[Any]) -> None:
        """Creates the slots; the kernel wants a momentum slot even where there is no momentum."""
        if not self.built:
            super().build(var_list)
            if not self.momentum:
                self._momentums: Any = self.add_optimizer_variables(var_list, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its mean square."""
        if _is_distributed() or self.centered:
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=tf.cast(learning_rate, dtype),
            rho=tf.constant(self.rho, dtype),
            momentum=tf.constant(self.momentum, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


@keras.saving.register_keras_serializable(package="tamiz")
class FusedSGD(_FusedUpdates, keras.optimizers.SGD):
    """SGD with momentum with TensorFlow's kernel; arguments as `keras.optimizers.SGD`."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its momentum."""
        if _is_distributed() or self.momentum == 0:
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.constant(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )


def _found(groups: Mapping[str, Number], path: str, otherwise: Number) -> Number:
    """Returns what is said of a path itself, or of the first part of it; `otherwise` where nothing is."""
    return groups.get(path, next((value for part, value in groups.items() if part in path), otherwise))


def _is_distributed() -> bool:
    return bool(tf.distribute.get_strategy().num_replicas_in_sync > 1)
