"""The compiled epoch of a pack: one graph for any members, widths and batch sizes of an experiment (TensorFlow).

Every dimension but the number of layers is dynamic and every hyperparameter is a tensor, so the graph is traced once
for a worker's life, and a member that leaves costs no new trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from app.training.packing.layers import Scene, hidden_layer, permute, product, shared_product
from app.training.packing.update import Update, flatten, learning_rate
from pipelines.schema import Task
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.embedding_rule import embedding_lengths
from search_spaces.quantiles import pinball, rising
from search_spaces.recipe import CLIP_NORM

STATISTICS_MOMENTUM = 0.9
"""Of batch normalisation in `search_spaces.tabular`."""

Tensors = dict[str, tf.Tensor]

PER_MEMBER = (
    "step",
    "peak",
    "total_steps",
    "warmup_steps",
    "cosine",
    "decay",
    "momentum",
    "adamw",
    "rmsprop",
    "sgd",
    "dropout",
    "smoothing",
    "residual",
    "width",
)
"""Settings that are one number a member, float32 (num_members,)."""

UNDECAYED = frozenset({"vectors", "head_bias"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTensors:
    """Rows as tensors.

    Attributes:
        features: ``numeric`` (num_rows, num_numeric), ``categorical`` (num_rows, num_categorical).
        target: (num_rows, 1), class ids or standardised values.
        weights: (num_rows,) or None.
    """

    features: Tensors
    target: tf.Tensor
    weights: tf.Tensor | None = None


@final
class PackGraph:
    """The functions that train and evaluate packs on one table.

    Args:
        context: The table.
        answers: How a network's output becomes an answer.
        max_depth: Most hidden layers of a member.
        training: The training rows.
    """

    def __init__(
        self, context: TableContext, *, answers: AnswerForm, max_depth: int, training: TableTensors
    ) -> None:
        self.context, self.max_depth = context, max_depth
        self._answers, self._training = answers, training
        self._offsets = tf.constant(
            [sum(context.cardinalities[:column]) for column in range(len(context.cardinalities))], tf.int32
        )
        self._lengths = tf.constant(embedding_lengths(context.cardinalities), tf.int32)
        weights, statistics = self._block_specs(), self._statistics_specs()
        state = {"weights": weights, "first": weights, "second": weights, "statistics": statistics}
        settings = {name: tf.TensorSpec((None,), tf.float32) for name in PER_MEMBER}
        settings["trained"] = tf.TensorSpec((None, 3 * max_depth), tf.float32)
        positions = {
            f"{kind}{layer}": tf.TensorSpec((9,) if kind == "counts" else (None,), tf.int32)
            for kind in ("active", "counts", "order", "inverse")
            for layer in range(max_depth)
        }
        positions |= {name: tf.TensorSpec((None,), tf.int32) for name in ("finish", "start")}
        order, seed = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((2,), tf.int32)
        rows = [
            tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)
            for tensor in (*training.features.values(), training.target)
        ]
        features = dict(zip(training.features, rows, strict=False))
        # With a signature nothing is ever traced twice, whatever the shapes.
        self.train = tf.function(
            self._train, autograph=False, input_signature=[state, settings, positions, order, seed]
        )
        self.evaluate = tf.function(
            self._evaluate,
            autograph=False,
            input_signature=[
                weights, statistics, settings, positions, features, rows[-1], tf.TensorSpec((None,), tf.float32)
            ],
        )

    def trace(self) -> None:
        """Traces both functions, so that the first pack is as quick as any."""
        self.train.get_concrete_function()
        self.evaluate.get_concrete_function()

    def _block_specs(self) -> dict[str, tf.TensorSpec]:
        context, outputs = self.context, self.context.num_outputs
        shapes: dict[str, tuple[int | None, ...]] = {
            "head": (None, None, outputs),
            "head_bias": (None, outputs),
            "vectors": (None, 3 * self.max_depth, None),
        }
        if context.num_numeric:
            shapes["numeric"] = (None, context.num_numeric, None)
        if context.cardinalities:
            shapes["embedding"] = (None, sum(context.cardinalities), None)
            shapes["embedded"] = (None, None, None)
        shapes |= {f"hidden{layer}": (None, None, None) for layer in range(1, self.max_depth)}
        return {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}

    def _statistics_specs(self) -> dict[str, tf.TensorSpec]:
        return {f"statistics{layer}": tf.TensorSpec((None, 2, None), tf.float32) for layer in range(self.max_depth)}

    def _train(
        self,
        state: dict[str, Tensors],
        settings: Tensors,
        positions: Tensors,
        order: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[dict[str, Tensors], tf.Tensor]:
        """Trains one step for every row of `order` (num_steps, batch).

        Returns:
            The new state, and the sum of the losses (num_members,).
        """
        mask = self._mask(state["weights"], settings)
        trained = settings["trained"][..., tf.newaxis] * mask

        def step(done: tf.Tensor, state: Any, total: tf.Tensor) -> Any:
            steps = settings["step"] + tf.cast(done, tf.float32)
            noise_seed = tf.stack([seed[0], seed[1] + done])
            state, losses = self._step(state, settings, positions, order[done], steps, noise_seed, mask, trained)
            return done + 1, state, total + losses

        start = (tf.constant(0), state, tf.zeros_like(settings["step"]))
        # Dimensions that the signature leaves open change from one pack to the next, never in the loop.
        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, start)
        _, state, total = tf.while_loop(
            lambda done, *_: done < tf.shape(order)[0], step, start, shape_invariants=shapes, parallel_iterations=1
        )
        return state, total

    def _step(
        self,
        state: dict[str, Tensors],
        settings: Tensors,
        positions: Tensors,
        rows: tf.Tensor,
        steps: tf.Tensor,
        noise_seed: tf.Tensor,
        mask: tf.Tensor,
        trained: tf.Tensor,
    ) -> tuple[dict[str, Tensors], tf.Tensor]:
        weights = dict(state["weights"])
        features = {name: tf.gather(tensor, rows) for name, tensor in self._training.features.items()}
        target = tf.gather(self._training.target, rows)
        row_weights = None if self._training.weights is None else tf.gather(self._training.weights, rows)
        width, layers = tf.shape(weights["head"])[1], self.max_depth
        noise = tf.random.stateless_uniform((layers, tf.shape(rows)[0], width), noise_seed, alg="philox")
        vectors, where = self._look_up(weights, features)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            if vectors is not None:
                tape.watch(vectors)
            output, moments = self._forward(
                weights, features, vectors, settings, positions, mask=mask, noise=noise, statistics=None
            )
            losses = self._losses(output, target, settings, row_weights)
        sources = {name: tensor for name, tensor in weights.items() if name != "embedding"}
        gradients = tape.gradient(losses, [*sources.values(), *([] if vectors is None else [vectors])])
        found = dict(zip(sources, gradients, strict=False))
        found["vectors"] = found["vectors"] * trained
        flat = {name: flatten(gradient) for name, gradient in found.items()}
        squared = {name: tf.square(gradient) for name, gradient in flat.items()}
        squares = {name: tf.reduce_sum(square, axis=1) for name, square in squared.items()}
        if vectors is not None:
            # As Keras does with the gradient of a look-up: the norm is that of the rows, before equal ones are added.
            squares["embedding"] = tf.reduce_sum(tf.square(flatten(gradients[-1])), axis=1)
            flat["embedding"] = flatten(self._added_up(gradients[-1], where, weights["embedding"]))
            squared["embedding"] = tf.square(flat["embedding"])
        rate = learning_rate(settings, steps)
        update = Update(settings, steps, rate, clip=self._clip(squares, positions, tf.shape(steps)[0]))
        new: dict[str, Tensors] = {"weights": {}, "first": {}, "second": {}}
        for name in weights:
            of = self._members_of(name, positions)
            slots = state["first"][name], state["second"][name]
            parts = (weights[name], *slots, flat[name], squared[name])
            updated = update.applied(parts, of, decayed=name not in UNDECAYED)
            for kind, tensor in zip(new, updated, strict=True):
                new[kind][name] = tensor
        keep = STATISTICS_MOMENTUM
        new["statistics"] = {
            name: keep * old + (1.0 - keep) * moments[name] for name, old in state["statistics"].items()
        }
        return new, losses

    def _forward(
        self,
        weights: Tensors,
        features: Tensors,
        vectors: tf.Tensor | None,
        settings: Tensors,
        positions: Tensors,
        *,
        mask: tf.Tensor,
        noise: tf.Tensor | None,
        statistics: Tensors | None,
    ) -> tuple[tf.Tensor, Tensors]:
        """Returns the outputs (num_members, batch, num_outputs) and the moments of the batch of every layer."""
        x = shared_product(features["numeric"], weights["numeric"]) if self.context.num_numeric else None
        if vectors is not None:
            shape = tf.shape(vectors)
            # Past the length of its own column a vector is nothing; past that of its member it is zero by itself.
            vectors = vectors * tf.sequence_mask(self._lengths, shape[3], dtype=tf.float32)
            embedded = product(tf.reshape(vectors, (shape[0], shape[1], -1)), weights["embedded"])
            x = embedded if x is None else x + embedded
        moments, finished = {}, []
        layers = tf.split(weights["vectors"], 3 * self.max_depth, axis=1)
        for layer in range(self.max_depth):
            active = positions[f"active{layer}"]
            bias, scale, shift = (_of(tensor, active) for tensor in layers[3 * layer : 3 * layer + 3])
            rate, residual = (
                tf.gather(settings[name], active)[:, tf.newaxis, tf.newaxis] for name in ("dropout", "residual")
            )
            scene = Scene(
                counts=positions[f"counts{layer}"],
                mask=tf.gather(mask, active),
                rate=rate,
                noise=None if noise is None else noise[layer],
                moments=None if statistics is None else statistics[f"statistics{layer}"],
            )
            y = product(x, weights[f"hidden{layer}"]) if layer else x
            z, moments[f"statistics{layer}"] = hidden_layer(y, bias, scale, shift, scene)
            if layer:
                z = z + residual * x
            if layer + 1 < self.max_depth:
                # Those that have a further layer first, and the others wait for the head.
                z = permute(z, positions[f"order{layer}"], positions[f"inverse{layer}"])
                further = tf.shape(positions[f"active{layer + 1}"])[0]
                x, z = tf.split(z, [further, tf.shape(z)[0] - further], num=2)
            finished.append(z)
        order, back = positions["finish"], positions["start"]
        output = product(tf.concat(finished, axis=0), permute(weights["head"], order, back))
        return permute(output, back, order) + weights["head_bias"][:, tf.newaxis], moments

    def _evaluate(
        self,
        weights: Tensors,
        statistics: Tensors,
        settings: Tensors,
        positions: Tensors,
        features: Tensors,
        target: tf.Tensor,
        row_weights: tf.Tensor,
    ) -> tuple[Tensors, tf.Tensor]:
        """Returns the predictions, one row a member and row, and the mean loss of every member."""
        mask = self._mask(weights, settings)
        vectors, _ = self._look_up(weights, features)
        output, _ = self._forward(
            weights, features, vectors, settings, positions, mask=mask, noise=None, statistics=statistics
        )
        losses = self._losses(output, target, settings, row_weights)
        return self._answers.predictions(tf.reshape(output, (-1, self.context.num_outputs))), losses

    def _losses(
        self, output: tf.Tensor, target: tf.Tensor, settings: Tensors, row_weights: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the loss of every member, (num_members,): those of `search_spaces.losses.loss_for`."""
        smoothing = settings["smoothing"][:, tf.newaxis, tf.newaxis]
        if self.context.quantiles:
            rows = pinball(target[tf.newaxis], rising(output, self.context.quantiles), self.context.quantiles)
        elif not self.context.task.is_classification:
            rows = tf.reduce_mean(tf.square(output - target[tf.newaxis]), axis=-1)
        elif self.context.task is Task.MULTILABEL:
            rows = tf.reduce_mean(_binary_losses(output, target, smoothing), axis=-1)
        elif self.context.num_outputs == 1:
            rows = _binary_losses(output, target, smoothing)[..., 0]
        else:
            classes = self.context.num_outputs
            truth = tf.one_hot(target[:, 0], classes)[tf.newaxis] * (1.0 - smoothing) + smoothing / classes
            rows = -tf.reduce_sum(truth * tf.nn.log_softmax(output), axis=-1)
        return tf.reduce_mean(rows if row_weights is None else rows * row_weights, axis=1)

    def _look_up(self, weights: Tensors, features: Tensors) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Returns the vectors of all categories (num_members, batch, columns, size), and which rows they are of."""
        if not self.context.cardinalities:
            return None, None
        table = weights["embedding"]
        shape = tf.shape(table)
        members = tf.range(shape[0])[:, tf.newaxis, tf.newaxis] * shape[1]
        where = (features["categorical"] + self._offsets)[tf.newaxis] + members
        return tf.gather(tf.reshape(table, (-1, shape[2])), where), where

    def _added_up(self, gradient: tf.Tensor, where: Any, table: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(table)
        rows = tf.reshape(gradient, (-1, shape[2]))
        added = tf.math.unsorted_segment_sum(rows, tf.reshape(where, (-1,)), shape[0] * shape[1])
        return tf.reshape(added, shape)

    def _clip(self, squares: Tensors, positions: Tensors, num_members: tf.Tensor) -> tf.Tensor:
        """Returns what every member's gradients are multiplied by; NaN where they are not finite, as in Keras."""
        total = tf.zeros((num_members,))
        for name, square in squares.items():
            of = self._members_of(name, positions)
            total += square if of is None else tf.scatter_nd(of[:, tf.newaxis], square, tf.shape(total))
        norm = tf.sqrt(total)
        return CLIP_NORM * tf.minimum(1.0 / norm, 1.0 / CLIP_NORM) + (norm - norm)

    def _members_of(self, block: str, positions: Tensors) -> tf.Tensor | None:
        """Returns which members a block holds; None for all of them in order."""
        return positions[f"active{block.removeprefix('hidden')}"] if block.startswith("hidden") else None

    def _mask(self, weights: Tensors, settings: Tensors) -> tf.Tensor:
        """Returns 1 where a member has a unit, (num_members, 1, width)."""
        width = tf.shape(weights["head"])[1]
        mask: tf.Tensor = tf.sequence_mask(tf.cast(settings["width"], tf.int32), width, dtype=tf.float32)[:, tf.newaxis]
        return mask


def _binary_losses(output: tf.Tensor, target: tf.Tensor, smoothing: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of every logit, (num_members, batch, num_outputs)."""
    truth = tf.cast(target[tf.newaxis], tf.float32)
    truth = truth * (1.0 - smoothing) + 0.5 * smoothing
    return tf.maximum(output, 0.0) - output * truth + tf.math.softplus(-tf.abs(output))


def _of(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns the members of `x` at `positions`, none of them twice."""

    @tf.custom_gradient
    def gathered(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        shape = tf.shape(x)
        return tf.gather(x, positions), lambda upstream: tf.scatter_nd(positions[:, tf.newaxis], upstream, shape)

    return gathered(x)
