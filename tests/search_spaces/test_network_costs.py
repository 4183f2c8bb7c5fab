from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf
from keras import layers

from search_spaces.network_costs import network_costs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_operations_are_two_for_each_multiply_add_of_every_kind_of_layer() -> None:
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.Reshape((64, 4))(x)
    # Its projections and products are Einstein sums.
    x = layers.MultiHeadAttention(2, 2, use_bias=False)(x, x)
    model = keras.Model(image, layers.Dense(3, use_bias=False)(layers.Flatten()(x)))
    convolutions, dense = 64 * 9 * 2 * 4 + 64 * 9 * 4, 64 * 4 * 3
    attention = 4 * 64 * 4 * 4 + 2 * 64 * 64 * 4
    found = network_costs(model, tf.zeros((5, 8, 8, 2)), batch_size=1).flops
    # What is above are elementwise operations: the softmax and the scale of the attention.
    exact = 2 * (convolutions + dense + attention)
    assert exact <= found <= exact + 8 * 2 * 64 * 64


def test_memory_grows_with_the_batch_by_what_the_layers_put_out() -> None:
    inputs = keras.Input((16,))
    hidden = layers.Dense(32, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Dense(8, use_bias=False)(hidden))
    costs = [network_costs(model, tf.zeros((1, 16)), batch_size=size).memory_bytes for size in (1, 101)]
    # Two more of the largest: a gradient and what it is made of.
    of_a_row = 4 * (32 + 8) + 2 * 4 * 32
    assert costs[0] == 16 * (16 * 32 + 32 * 8) + of_a_row
    assert costs[1] - costs[0] == 100 * of_a_row
