"""Ask the exported model about two penguins, with TensorFlow alone: tamiz is not imported.

python examples/predict_without_tamiz.py runs/demo/export/penguins/1
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

NAN = float("nan")

PENGUINS = {
    "island": ["Torgersen", "Biscoe"],
    "bill_length_mm": [39.1, 46.1],
    "bill_depth_mm": [18.7, 13.2],
    "flipper_length_mm": [181.0, 211.0],
    "body_mass_g": [3750.0, NAN],  # a missing number is NaN
    "sex": ["male", ""],  # a missing text is empty
    "year": [2007.0, 2007.0],
}


def main(directory: str) -> None:
    answer = tf.saved_model.load(directory).signatures["serving_default"]
    wanted = answer.structured_input_signature[1]
    columns = {name: tf.constant(values) for name, values in PENGUINS.items() if name in wanted}
    outputs = answer(**columns)
    for row, label in enumerate(outputs["label"].numpy()):
        print(f"penguin {row + 1}: {label.decode()} (probability {max(outputs['probabilities'].numpy()[row]):.3f})")


if __name__ == "__main__":
    main(sys.argv[1])
