"""The part of a space that every network shares: optimizer, schedule, batch size, regularisation.

Ranges follow common practice for tables: learning rates and weight decay logarithmic, and a parameter that belongs
to one choice exists only under that choice.
"""

from __future__ import annotations

import math

import keras
import keras_tuner

from pipelines.balance import BALANCE, SEARCHED, Balance
from search_spaces.context import TrainingContext
from search_spaces.losses import loss_of
from search_spaces.network_size import EPOCH_SHARE, EPOCH_SHARES
from search_spaces.optimizers import FusedAdamW, FusedRMSprop, FusedSGD
from search_spaces.schedules import WarmupCosine

CLIP_NORM = 1.0
"""Global gradient norm that updates are clipped to; a single bad batch must not end a trial."""


def declare_batch_size(hp: keras_tuner.HyperParameters, context: TrainingContext, *, default: int = 64) -> None:
    """Declares the batch size.

    Args:
        hp: Receives the parameter.
        context: The data; decides the sizes.
        default: The nearest of the sizes is tried first.
    """
    sizes = context.batch_sizes()
    hp.Choice("batch_size", sizes, default=min(sizes, key=lambda size: abs(size - default)), ordered=True)


def declare_balance(hp: keras_tuner.HyperParameters, context: TrainingContext) -> None:
    """Declares how classes are balanced, where that is searched.

    Args:
        hp: Receives the parameter.
        context: The data; says whether the balance is searched.
    """
    if context.searches_balance:
        hp.Choice(BALANCE, [one.value for one in SEARCHED], default=Balance.WEIGHTS.value)


def declare_recipe(hp: keras_tuner.HyperParameters, context: TrainingContext) -> None:
    """Declares how a network is trained, but for the batch size.

    Args:
        hp: Receives the parameters.
        context: The data; decides whether labels can be smoothed.
    """
    hp.Choice("optimizer", ["adamw", "rmsprop", "sgd"], default="adamw")
    with hp.conditional_scope("optimizer", ["adamw", "rmsprop"]):
        hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    with hp.conditional_scope("optimizer", ["sgd"]):
        hp.Float("sgd_learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)
        hp.Float("momentum", 0.8, 0.98, default=0.9)
    hp.Float("weight_decay", 1e-6, 1e-1, sampling="log", default=1e-3)
    hp.Choice("schedule", ["cosine", "constant"], default="cosine")
    with hp.conditional_scope("schedule", ["cosine"]):
        hp.Float("warmup_share", 0.0, 0.2, default=0.05)
    if context.task.is_classification:
        hp.Choice("label_smoothing", [0.0, 0.05, 0.1], default=0.0, ordered=True)


def declare_focus(hp: keras_tuner.HyperParameters, context: TrainingContext) -> None:
    """Declares how much a classifier's loss looks away from what it knows already (focal loss); 0 for plain loss."""
    if context.task.is_classification:
        hp.Choice("focus", [0.0, 1.0, 2.0], default=0.0, ordered=True)


def declare_epoch_share(hp: keras_tuner.HyperParameters) -> None:
    """Declares the share of the epochs after which a schedule, and with it the training, is over."""
    hp.Choice(EPOCH_SHARE, sorted(EPOCH_SHARES), default=1.0, ordered=True)


def schedule_steps(hp: keras_tuner.HyperParameters, context: TrainingContext) -> int:
    """Returns the steps of a schedule that takes the declared share of the epochs, at least one epoch."""
    epochs = max(1, round(hp.get(EPOCH_SHARE) * context.max_epochs))
    steps: int = epochs * context.steps_per_epoch(hp.get("batch_size"))
    return steps


def learning_rate_schedule(
    hp: keras_tuner.HyperParameters, peak: float, total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the peak rate itself, or linear warm-up followed by a cosine down to zero over `total_steps`."""
    if hp.get("schedule") == "constant":
        return peak
    warmup = min(round(hp.get("warmup_share") * total_steps), total_steps - 1)
    return WarmupCosine(peak, total_steps=total_steps, warmup_steps=warmup)


def learning_rate_factor(hp: keras_tuner.HyperParameters, context: TrainingContext, *, adaptive: bool) -> float:
    """Returns what the searched learning rate is multiplied by when replicas forced a larger batch.

    Linear in the batch for SGD (Goyal et al., 2017), its square root for adaptive optimizers (Malladi et al., 2022).
    The factor is 1 on a single device, and on several as long as the searched batch is large enough for all.
    """
    batch_size = hp.get("batch_size")
    growth = max(1.0, context.global_batch(batch_size) / batch_size)
    return math.sqrt(growth) if adaptive else growth


def build_optimizer(hp: keras_tuner.HyperParameters, context: TrainingContext) -> keras.optimizers.Optimizer:
    """Returns the optimizer that `hp` asks for; weight decay is decoupled in all three."""
    shortened = EPOCH_SHARE in hp.values
    total_steps = schedule_steps(hp, context) if shortened else context.total_steps(hp.get("batch_size"))
    decay = hp.get("weight_decay")
    factor = learning_rate_factor(hp, context, adaptive=hp.get("optimizer") != "sgd")
    match hp.get("optimizer"):
        case "adamw":
            rate = learning_rate_schedule(hp, factor * hp.get("learning_rate"), total_steps)
            # Keras' own defaults are epsilon 1e-7 and decay 0.004; the literature's are meant here.
            return FusedAdamW(rate, weight_decay=decay, epsilon=1e-8, global_clipnorm=CLIP_NORM)
        case "rmsprop":
            rate = learning_rate_schedule(hp, factor * hp.get("learning_rate"), total_steps)
            return FusedRMSprop(rate, rho=0.9, weight_decay=decay, global_clipnorm=CLIP_NORM)
        case "sgd":
            rate = learning_rate_schedule(hp, factor * hp.get("sgd_learning_rate"), total_steps)
            return FusedSGD(
                rate, momentum=hp.get("momentum"), nesterov=True, weight_decay=decay, global_clipnorm=CLIP_NORM
            )
        case other:
            raise ValueError(f"optimizer is {other!r}: expected adamw, rmsprop or sgd")


def compile_model(
    model: keras.Model,
    hp: keras_tuner.HyperParameters,
    context: TrainingContext,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> keras.Model:
    """Compiles `model` with the optimizer and loss that `hp` asks for, or another optimizer, and returns it."""
    optimizer = optimizer or build_optimizer(hp, context)
    # Decay pulls weight matrices towards zero; on biases, scales and shifts it only hurts.
    # The biases of embedded numbers have two dimensions.
    kept = [v for v in model.trainable_variables if len(v.shape) < 2 or v.name == "bias"]
    optimizer.exclude_from_weight_decay(var_list=kept)
    smoothing = hp.get("label_smoothing") if context.task.is_classification else 0.0
    loss = loss_of(context, smoothing=smoothing, focus=hp.values.get("focus", 0.0))
    # XLA on CPU compiles for longer than a small network trains.
    model.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    return model
