"""Keras' optimizers with TensorFlow's fused update kernels.

Keras writes an update as a dozen element-wise operations a variable: each is traced anew for every trial, and each
passes over the whole variable in memory. TensorFlow has kernels that do one variable's update in a single pass. The
arithmetic is the same; a test holds every optimizer to its Keras parent, step by step. Under a distribution strategy
with several replicas the parent's own update runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


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


def _is_distributed() -> bool:
    return bool(tf.distribute.get_strategy().num_replicas_in_sync > 1)
