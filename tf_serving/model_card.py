"""The model card: one Markdown page that tells what a model is, how good it is and how to call it."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMetric:
    """One test metric with its interval, beside the same metric of the baselines.

    Attributes:
        name: Name of the metric.
        value: Value on the test split.
        low: Lower end of the 95 % interval; None where there is none.
        high: Upper end of the 95 % interval, likewise.
        baselines: Value of each baseline by its name.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    baselines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardInput:
    """One raw column of the exported signature.

    Attributes:
        name: Name of the column.
        dtype: ``float32`` or ``string``.
        kind: What the column means: numeric, categorical, ...
    """

    name: str
    dtype: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """The data a model was made from.

    Attributes:
        source: Where the rows came from.
        num_rows: Rows in all splits.
        num_columns: Columns of the source, the target included.
        target: The column that is predicted.
        classes: Class labels; empty for regression.
        splits: Number of rows by the name of the split.
        protocol: How rows came to their split, in a sentence.
    """

    source: str
    num_rows: int
    num_columns: int
    target: str
    classes: Sequence[str] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """All that a model card says.

    Attributes:
        name: Model name.
        task: What is predicted: binary, multiclass, regression, ...
        data: The data it was made from.
        metrics: Test metrics.
        inputs: Raw columns of the signature.
        outputs: What each output means, by its name.
        networks: Sentences about the networks that answer together; () for a single one.
        preprocessing: Sentences about what happens to the raw values inside the graph.
        limits: Sentences about what the model is not good for.
        versions: Version of each program by its name.
        sample_instance: One row as in ``{"instances": [...]}``; empty to point to the sample request instead.
    """

    name: str
    task: str
    data: CardData
    metrics: Sequence[CardMetric]
    inputs: Sequence[CardInput]
    outputs: Mapping[str, str]
    networks: Sequence[str] = ()
    preprocessing: Sequence[str] = ()
    limits: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    sample_instance: Mapping[str, Any] = field(default_factory=dict)


def model_card(card: ModelCard) -> str:
    """Return the card as Markdown; names and labels from the data cannot change its structure.

    Args:
        card: What to say.
    """
    sections = [
        f"# {escape(card.name)}\n\nA {escape(card.task)} model that predicts {escape(card.data.target)} from "
        f"{len(card.inputs)} raw columns.",
        _data_section(card.data),
        _metrics_section(card.metrics),
        "## Inputs\n\nRaw columns, each of shape (batch,). A missing number is NaN, a missing text is empty.\n\n"
        + _table(("column", "type", "kind"), [(item.name, item.dtype, item.kind) for item in card.inputs]),
        "## Outputs\n\n" + _table(("output", "meaning"), list(card.outputs.items())),
        *(["## Networks\n\n" + _bullets(card.networks)] if card.networks else []),
        "## Preprocessing\n\n" + _bullets(card.preprocessing or ("None: the columns are used as they come.",)),
        "## Limits\n\n" + _bullets(card.limits or ("None recorded.",)),
        _call_section(card),
        "## Versions\n\n" + _table(("program", "version"), list(card.versions.items())),
    ]
    return "\n\n".join(sections) + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line.

    Args:
        text: Any text, such as a column name.
    """
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]<>#|~$&])", r"\\\1", one_line)
    return re.sub(r"^(\d*)([-+.)])(?=\s|$)", r"\1\\\2", escaped)  # what would begin a list


def _data_section(data: CardData) -> str:
    lines = [
        f"Source: {escape(data.source)}",
        f"Rows: {data.num_rows:,}; columns: {data.num_columns:,}; target: {escape(data.target)}",
    ]
    if data.classes:
        lines.append(f"Classes: {', '.join(escape(label) for label in data.classes)}")
    if data.splits:
        splits = ", ".join(f"{escape(name)} {count:,}" for name, count in data.splits.items())
        lines.append(f"Splits: {splits}")
    if data.protocol:
        lines.append(escape(data.protocol))
    return "## Data\n\n" + "\n".join(f"- {line}" for line in lines)


def _metrics_section(metrics: Sequence[CardMetric]) -> str:
    baselines = list(dict.fromkeys(name for metric in metrics for name in metric.baselines))
    rows = [
        (
            metric.name,
            f"{metric.value:.4g}",
            "" if metric.low is None or metric.high is None else f"{metric.low:.4g} to {metric.high:.4g}",
            *(f"{metric.baselines[name]:.4g}" if name in metric.baselines else "" for name in baselines),
        )
        for metric in metrics
    ]
    header = ("metric", "value", "95 % interval", *baselines)
    return "## Test result\n\nMeasured once, on rows that nothing else has seen.\n\n" + _table(header, rows)


def _call_section(card: ModelCard) -> str:
    if not card.sample_instance:
        request = f"curl -d @assets.extra/sample_request.json http://localhost:8501/v1/models/{card.name}:predict"
        return f"## Calling it\n\nWith TensorFlow Serving:\n\n{_fenced(request)}"
    body = json.dumps({"instances": [card.sample_instance]}, ensure_ascii=False)
    call = f"POST http://localhost:8501/v1/models/{card.name}:predict\n{body}"
    section = f"## Calling it\n\nOver REST, with TensorFlow Serving:\n\n{_fenced(call)}"
    if any("=" in name or ";" in name for name in card.sample_instance):
        return section  # saved_model_cli splits its argument there and knows no quoting
    inputs = ";".join(f"{name}=[{_literal(value)}]" for name, value in card.sample_instance.items())
    command = (
        f"saved_model_cli run --dir export/{card.name}/1 --tag_set serve --signature_def serving_default \\\n"
        f"  --input_exprs {shlex.quote(inputs)}"
    )
    return f"{section}\n\nWithout a server:\n\n{_fenced(command)}"


def _literal(value: Any) -> str:
    # saved_model_cli evaluates Python literals, among which there is no NaN.
    return repr(0.0 if isinstance(value, float) and not math.isfinite(value) else value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[escape(cell) for cell in header], ["---"] * len(header)]
    lines += [[escape(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def _fenced(text: str) -> str:
    # A fence longer than any run of backticks inside cannot be closed by a column name.
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
