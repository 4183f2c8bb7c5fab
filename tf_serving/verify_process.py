"""The program that ``verify`` runs by path with ``python -I``: TensorFlow and numpy alone answer here.

Keras and tamiz are hidden before TensorFlow is imported, so that a SavedModel that needs them cannot load. Jobs come
as JSON lines on standard input, answers leave as JSON lines on standard output. It imports nothing of tamiz, therefore
it repeats the few lines that read the cases.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

HIDDEN = {"keras", "tf_keras", "keras_tuner", "app", "pipelines", "search_spaces", "tf_serving", "tamiz"}
MAX_BATCHES = 128  # of each size and loader; a call costs milliseconds, and the whole is compared anyway
MAX_EXAMPLES = 32

Columns = dict[str, Any]  # name -> numpy array (num_rows, ...)


class Problem(Exception):  # noqa: N818 - it is the answer to the question asked, not an error of this program
    """The model does not answer as it should; the text goes to the user."""


class HidingFinder:
    """A module finder that does not see the hidden packages."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return None for hidden packages, what the wrapped finder says for all others."""
        return None if name.partition(".")[0] in HIDDEN else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)  # importlib.metadata asks finders for distributions


def main() -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever TensorFlow prints does not mix with the answers
    sys.meta_path[:] = [HidingFinder(finder) for finder in sys.meta_path]
    # What TensorFlow makes stays; a fifth of its import would go into looking among its objects for garbage.
    gc.disable()
    import tensorflow as tf

    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        try:
            answer = check(tf, json.loads(line))
        except Problem as problem:
            answer = {"problem": str(problem)}
        except Exception as error:
            text = f"{type(error).__name__}: {error}".strip()[:2_000]
            answer = {"problem": f"The exported model could not be checked: {text}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def check(tf: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Compare every signature through both loaders; return the report.

    Args:
        tf: The tensorflow module.
        job: ``directory``, ``cases``, ``tolerance`` and ``batch_sizes``.
    """
    started = time.monotonic()
    raw, expected, distances = read_cases(job["cases"])
    columns = input_columns(job["directory"], raw)
    num_rows = len(next(iter(raw.values())))
    comparison = Comparison(expected, tolerance=job["tolerance"], distances=distances)
    session = tf.compat.v1.Session(graph=tf.Graph())
    # TensorFlow Serving runs the V1 loader, people the V2 loader: both have to answer.
    with session, session.graph.as_default():
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], job["directory"])
        signatures = meta_graph.signature_def
        answer = session_function(session, signatures, "serving_default")
        check_inputs(signatures["serving_default"], raw)
        check_batches(answer, raw, comparison, job["batch_sizes"])
        for name, outputs in (
            ("classify", {"scores": "probabilities"}),
            ("regress", {"outputs": "prediction"}),
        ):
            if name in signatures:
                function = session_function(session, signatures, name)
                check_examples(tf, function, raw, columns, comparison.renamed(outputs, name))
    check_batches(eager_function(tf, job["directory"], columns), raw, comparison, job["batch_sizes"])
    loaded = sorted(HIDDEN & {module.partition(".")[0] for module in sys.modules})
    if loaded:
        raise Problem(f"The exported model loaded {', '.join(loaded)}; it has to answer with TensorFlow alone.")
    return {
        "num_rows": num_rows,
        "batch_sizes": sorted({*job["batch_sizes"], num_rows}),
        "max_difference": comparison.max_difference,
        "seconds": time.monotonic() - started,
    }


class Comparison:
    """Expected outputs, the tolerance, and the largest difference seen so far."""

    def __init__(
        self,
        expected: Columns,
        *,
        tolerance: float,
        place: str = "serving_default",
        distances: Columns | None = None,
    ) -> None:
        self.expected = expected
        self.distances = distances or {}
        self.tolerance = tolerance
        self.place = place
        self.max_difference = 0.0

    def renamed(self, names: dict[str, str], place: str) -> Comparison:
        """Return a comparison of the same answers under another signature's output names."""
        missing = [name for name in names.values() if name not in self.expected]
        if missing:
            raise Problem(f"The signature {place!r} needs the expected output {missing[0]!r}, the cases lack it.")
        renamed = {name: self.expected[old] for name, old in names.items()}
        return Comparison(renamed, tolerance=self.tolerance, place=place)

    def compare(self, got: Columns, rows: Any, *, batch_size: int) -> None:
        """Compare a batch of answers with the expected ones.

        Args:
            got: Outputs by name, each (batch, ...).
            rows: Row of each answer, (batch,).
            batch_size: Said in the message.
        """
        import numpy as np

        if got.keys() != self.expected.keys():
            raise Problem(
                f"The exported model's {self.place!r} answers {sorted(got)}, expected {sorted(self.expected)}."
            )
        for name, values in got.items():
            expected = self.expected[name][rows]
            values = np.asarray(values)
            if values.shape != expected.shape:
                raise Problem(
                    f"Output {name!r} of {self.place!r} has shape {values.shape}, expected {expected.shape} "
                    f"(batches of {batch_size})."
                )
            if expected.dtype.kind == "f":
                self._compare_numbers(name, values, expected, rows=rows, batch_size=batch_size)
            else:
                self._compare_text(name, values, expected, rows=rows, batch_size=batch_size)

    def _compare_numbers(self, name: str, got: Any, expected: Any, *, rows: Any, batch_size: int) -> None:
        import numpy as np

        exact = expected.astype(np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf, set right on the next line
            difference = np.abs(got.astype(np.float64) - exact)
            difference[got == expected] = 0.0
            if name not in ("probabilities", "scores"):
                # Near zero the rounding error is that of the usual magnitude, from which the answer is a difference.
                usual = np.median(np.abs(self.expected[name].astype(np.float64)))
                difference = difference / (1.0 + np.maximum(np.abs(exact), usual))
        wrong = ~(difference <= self.tolerance)  # NaN is wrong too
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0])
            self._refuse(
                name,
                rows[place[0]],
                batch_size,
                expected=f"{expected[place]:.9g}",
                got=f"{got[place]:.9g}",
                difference=f"{difference[place]:.3g} (allowed {self.tolerance:g})",
            )
        self.max_difference = max(self.max_difference, float(difference.max(initial=0.0)))

    def _compare_text(self, name: str, got: Any, expected: Any, *, rows: Any, batch_size: int) -> None:
        import numpy as np

        wrong = got != expected
        probabilities = self.expected.get("probabilities")
        if name in self.distances:
            wrong &= self.distances[name][rows] > self.tolerance
        elif name == "label" and probabilities is not None and probabilities.shape[-1] > 1:
            # Either label is right where the two best classes tie.
            best = np.sort(probabilities[rows], axis=-1)[:, -2:]
            wrong &= (best[:, 1] - best[:, 0]) > self.tolerance
        if wrong.any():
            place = int(np.argmax(wrong))
            self._refuse(
                name,
                rows[place],
                batch_size,
                expected=repr(expected[place]),
                got=repr(got[place]),
                difference="other text",
            )

    def _refuse(self, name: str, row: int, batch_size: int, *, expected: str, got: str, difference: str) -> None:
        raise Problem(
            f"The exported model differs from the Keras model: output {name!r} of {self.place!r}, row {row}, "
            f"in batches of {batch_size}: expected {expected}, got {got}, difference {difference}."
        )


def check_batches(
    answer: Callable[[Columns], Columns], raw: Columns, comparison: Comparison, batch_sizes: list[int]
) -> None:
    """Compare the answers in every batch size, the whole and the empty batch."""
    num_rows = len(next(iter(raw.values())))
    for batch_size in sorted({*batch_sizes, num_rows}):
        for rows in batches(num_rows, batch_size):
            comparison.compare(answer(take(raw, rows)), rows, batch_size=batch_size)
    nothing = slice(0, 0)
    for name, values in answer(take(raw, nothing)).items():
        if values.shape[:1] != (0,):
            raise Problem(f"Output {name!r} of an empty batch has shape {values.shape}, expected no rows.")


def batches(num_rows: int, batch_size: int) -> Iterator[Any]:
    """Yield row numbers in full batches, rows repeated where there are too few and sampled where there are too many."""
    import numpy as np

    most = MAX_BATCHES * batch_size
    if num_rows > most:
        # Half from the end, where the hostile rows are, half from everywhere.
        half = most // 2
        chosen = np.concatenate(
            [np.linspace(0, num_rows - half - 1, half).astype(int), np.arange(num_rows - half, num_rows)]
        )
    else:
        chosen = np.arange(-(-num_rows // batch_size) * batch_size) % num_rows
    for start in range(0, len(chosen), batch_size):
        yield chosen[start : start + batch_size]


def check_examples(
    tf: Any,
    function: Callable[[Columns], Columns],
    raw: Columns,
    columns: dict[str, str],
    comparison: Comparison,
) -> None:
    """Compare the signature on tf.Example; missing values are absent in even rows, empty lists in odd ones."""
    import numpy as np

    usable = np.ones(len(next(iter(raw.values()))), dtype=bool)
    for name, kind in columns.items():
        if kind == "int64_list":  # an integer feature cannot carry a fraction or an infinity
            values = raw[name].astype(np.float64)
            whole = np.isfinite(values) & (np.trunc(values) == values) & (np.abs(values) < 2.0**62)
            usable &= np.isnan(values) | whole
    candidates = np.flatnonzero(usable)
    spread = np.linspace(0, len(candidates) - 1, min(MAX_EXAMPLES, len(candidates))).astype(int)
    rows = candidates[spread]
    serialized = [example(tf, raw, columns, row, row % 2 == 1) for row in rows]
    got = function({"inputs": np.array(serialized, dtype=object)})
    got.pop("classes", None)  # constant labels; TensorFlow Serving wants them beside the scores
    comparison.compare(got, rows, batch_size=len(rows))
    for name, values in function({"inputs": np.array([], dtype=object)}).items():
        if values.shape[:1] != (0,):
            raise Problem(f"Output {name!r} of an empty batch has shape {values.shape}, expected no rows.")


def example(tf: Any, raw: Columns, columns: dict[str, str], row: int, empty_lists: bool) -> bytes:
    """Return one row as a serialized tf.Example."""
    message = tf.train.Example()
    for name, kind in columns.items():
        value = raw[name][row]
        missing = value == b"" if kind == "bytes_list" else value != value
        if not missing:
            values = getattr(message.features.feature[name], kind).value
            values.append(int(value) if kind == "int64_list" else value)
        elif empty_lists:
            getattr(message.features.feature[name], kind).SetInParent()
    return bytes(message.SerializeToString())


def session_function(session: Any, signatures: Any, name: str) -> Callable[[Columns], Columns]:
    """Return a signature of a V1 session as a function from numpy columns to numpy outputs."""
    if name not in signatures:
        raise Problem(f"The exported model has no signature {name!r}; it has {sorted(signatures)}.")
    signature = signatures[name]
    inputs = list(signature.inputs)
    outputs = list(signature.outputs)
    run = session.make_callable(
        [signature.outputs[output].name for output in outputs],
        feed_list=[signature.inputs[column].name for column in inputs],
    )

    def answer(columns: Columns) -> Columns:
        return dict(zip(outputs, run(*(columns[column] for column in inputs)), strict=True))

    return answer


def eager_function(tf: Any, directory: str, columns: dict[str, str]) -> Callable[[Columns], Columns]:
    """Return ``serving_default`` of ``tf.saved_model.load`` as a function of numpy columns."""
    loaded = tf.saved_model.load(directory)
    signature = loaded.signatures["serving_default"]
    # Names that are equal as Python parameters ("a b" and "a.b") can only be told apart by position.
    by_keyword = "self" not in columns and len(set(map(parameter_name, columns))) == len(columns)

    def answer(raw: Columns) -> Columns:
        tensors = {
            name: tf.constant(raw[name], dtype=tf.string if kind == "bytes_list" else tf.float32)
            for name, kind in columns.items()
        }
        outputs = signature(**tensors) if by_keyword else signature(*tensors.values())
        return {name: value.numpy() for name, value in outputs.items()}

    # The signature holds no reference to the variables; the closure has to keep the model.
    answer.__dict__["model"] = loaded
    return answer


def parameter_name(column: str) -> str:
    """Return the parameter that TensorFlow binds a keyword to."""
    cleaned = "".join(letter if letter.isalnum() else "_" for letter in column)
    return cleaned if cleaned[0].isalpha() else f"arg_{cleaned}"


def check_inputs(signature: Any, raw: Columns) -> None:
    """Check that the signature takes exactly the raw columns under their names."""
    if set(signature.inputs) != set(raw):
        raise Problem(f"The exported model takes the columns {sorted(signature.inputs)}, expected {sorted(raw)}.")


def input_columns(directory: str, raw: Columns) -> dict[str, str]:
    """Return the tf.Example kind of every raw column, in the order of the schema."""
    path = Path(directory, "assets.extra", "schema.json")
    schema = json.loads(path.read_text(encoding="utf-8"))
    columns = {
        feature["name"]: "bytes_list"
        if feature["raw_type"] == "string"
        else ("int64_list" if feature["integer"] else "float_list")
        for feature in schema["features"]
        if feature["used"]
    }
    if columns.keys() != raw.keys():
        raise Problem(f"The cases hold the columns {sorted(raw)}, the export's schema {sorted(columns)}.")
    return columns


def read_cases(path: str) -> tuple[Columns, Columns, Columns]:
    """Read what ``verification_cases.write_cases`` wrote: raw columns, expected outputs, distances."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        parts: list[Columns] = []
        for part in ("raw", "expected", "distances"):
            columns: Columns = {}
            for index, record in enumerate(header[part]):
                values = arrays[f"{part}_{index}"]
                if record["text"]:
                    content = values.tobytes()
                    offsets = arrays[f"{part}_{index}_offsets"].tolist()
                    pieces = [content[start:end] for start, end in pairwise(offsets)]
                    values = np.array(pieces, dtype=object)
                columns[record["name"]] = values
            parts.append(columns)
    return parts[0], parts[1], parts[2]


def take(columns: Columns, rows: Any) -> Columns:
    """Return some rows of all columns."""
    return {name: values[rows] for name, values in columns.items()}


if __name__ == "__main__":
    main()
