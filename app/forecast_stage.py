"""From time series to rows that are windows: order, gaps, splits in time, lags, and what a repeated season comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import DataConfig, ExperimentConfig
from app.errors import ConfigError
from app.evaluation.baselines import seasonal_values
from app.evaluation.number_text import number_text
from app.forecast_config import embargo_parts
from pipelines.column_values import numbers_of, parse_numbers, plain_array, require_column
from pipelines.data_report import Finding, Severity
from pipelines.errors import DataError
from pipelines.inference import infer_features
from pipelines.instants import Instants, check_not_ahead, instants
from pipelines.raw_columns import encode_target
from pipelines.schema import FeatureKind, FeatureSpec, Override, TargetSpec, Task
from pipelines.seasonality import find_period
from pipelines.series_steps import OrderedSeries, order_series
from pipelines.sources import SourceTable
from pipelines.splits import Split, cut_in_order
from pipelines.time_splits import LEFT_OUT, Embargo, embargoed
from pipelines.windows import Reach, Windows, WindowSpec, check_static, find_windows, series_values, window_table

MIN_WINDOWS = 20
"""Training windows below which nothing can be learned."""

MAX_AUTOMATIC_CONTEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedWindows:
    """Windows as the rows of a table.

    Attributes:
        table: A row a window.
        target: What is predicted.
        splits: Split of every window, ``(num_windows,)`` int8.
        overrides: Kind of every column.
        notes: What was left out, in sentences.
        findings: What a person should know beside that.
        spec: What the windows are made of.
    """

    table: pa.Table
    target: TargetSpec
    splits: NDArray[np.int8]
    overrides: Mapping[str, Override]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    spec: WindowSpec


def embargo_of(data: DataConfig) -> Embargo:
    """Returns how far the settings keep splits in time apart."""
    seconds, steps = embargo_parts(data.embargo)
    return Embargo(seconds=seconds, steps=steps)


def without_embargo(
    table: pa.Table, splits: NDArray[np.int8], data: DataConfig
) -> tuple[pa.Table, NDArray[np.int8], str | None]:
    """Returns the rows that are in a split, and a note that counts the others (None where there are none)."""
    kept = splits != LEFT_OUT
    if kept.all():
        return table, splits, None
    number = f"{int((~kept).sum()):,} of {table.num_rows:,} rows"
    note = f"{number} lie between the splits and are in none of them (embargo {data.embargo})."
    return table.filter(pa.array(kept)), splits[kept], note


def ahead_findings(table: pa.Table, time_column: str | None) -> tuple[Finding, ...]:
    """Returns a warning where rows happened later than now, by this machine's clock: one of two clocks is wrong."""
    if time_column is None:
        return ()
    try:
        check_not_ahead(instants(table, time_column), time_column)
    except DataError as error:
        return (Finding(severity=Severity.WARNING, code="clock-ahead", message=str(error)),)
    return ()


def framed_windows(
    source: SourceTable, config: ExperimentConfig, *, kinds: Mapping[str, Override]
) -> FramedWindows:
    """Returns the windows of time series as rows: lags and columns known ahead, and a target for each step ahead.

    Args:
        source: A row a step of each series.
        config: The settings, with a horizon.
        kinds: Column of the series -> kind that the user gave it.

    Raises:
        DataError: A column is absent or unfit, a time occurs twice in a series, or the series are too short.
        ConfigError: A setting names a column that it cannot have.
    """
    table = source.table
    ordered, known = ordered_steps(table, config)
    splits = split_steps(ordered, known, config)
    spec = window_spec(table, ordered, config, training=splits == Split.TRAIN)
    windows = find_windows(ordered, splits, spec, reach=Reach.BACK)
    complete = known[windows.rows[:, spec.context :]].all(axis=1)
    kept = replace(windows, rows=windows.rows[complete], splits=windows.splits[complete])
    _check_enough(kept, ordered, spec)
    framed = window_table(table, kept.rows, spec)
    columns = spec.targets if spec.horizon > 1 else ()
    reason = f"the next {spec.horizon} steps of {spec.target}" if columns else f"the next step of {spec.target}"
    target = TargetSpec(", ".join(spec.targets), task=Task.REGRESSION, reason=reason, columns=columns)
    unknown = int((~complete).sum())
    notes = _notes(kept, spec, config, left_out=int((splits == LEFT_OUT).sum()), unknown=unknown)
    return FramedWindows(
        table=framed,
        target=target,
        splits=kept.splits,
        overrides=_kinds(table, spec, kinds),
        notes=notes,
        findings=(*series_findings(ordered), _seasonal_finding(framed, target, kept, spec)),
        spec=spec,
    )


def ordered_steps(table: pa.Table, config: ExperimentConfig) -> tuple[OrderedSeries, NDArray[np.bool_]]:
    """Returns the rows in the order of their series and times, and which of them have a target.

    Args:
        table: A row a step.
        config: The settings, with a time column and a target.

    Raises:
        DataError: A column is absent or unfit, or a time occurs twice in a series.
    """
    data, forecast = config.data, config.forecast
    target = plain_array(table, require_column(table, data.target, role="target column"))
    if target.type == pa.string():
        numbers = parse_numbers(target)
        wrong = np.flatnonzero(np.asarray(numbers.is_null()) & np.asarray(target.is_valid()))
        if wrong.size:
            raise DataError(
                f"Expected numbers in the target {data.target!r} of a forecast, received "
                f"{target[int(wrong[0])].as_py()!r} in row {int(wrong[0]) + 1} ({wrong.size:,} such rows)."
            )
        target = numbers
    if target.type not in (pa.int64(), pa.float64(), pa.bool_()):
        raise DataError(f"Expected numbers in the target {data.target!r} of a forecast, received {target.type}.")
    values = numbers_of(target)
    if np.isinf(values).any():
        raise DataError(
            f"Expected finite numbers in the target {data.target!r}, received an infinite one in row "
            f"{int(np.flatnonzero(np.isinf(values))[0]) + 1}; mend it or leave it empty."
        )
    ordered = order_series(table, time_column=data.time_column, series_id=forecast.series_id or None)
    return ordered, ~np.isnan(values)


def split_steps(ordered: OrderedSeries, known: NDArray[np.bool_], config: ExperimentConfig) -> NDArray[np.int8]:
    """Returns the split of every row, cut at the same instants in all series; rows behind the last value are test rows.

    Args:
        ordered: The rows in order.
        known: Which rows have a target, ``(num_rows,)``.
        config: The settings.

    Raises:
        DataError: No row has a target, or a split would be empty.
    """
    data = config.data
    times: Instants = np.empty_like(ordered.times)
    times[ordered.order] = ordered.times
    if not known.any():
        raise DataError(f"The target {data.target!r} is missing in all {len(known):,} rows; give another target.")
    of_known = cut_in_order(times[known], shares=(data.validation_share, data.test_share))
    begins = []
    for split in (Split.VALIDATION, Split.TEST):
        if not (of_known == split).any():
            raise DataError(
                f"Expected times for training, validation and test, but {np.unique(times[known]).size:,} leave "
                f"{split.name.lower()} empty; give more data or other shares."
            )
        begins.append(times[known][of_known == split].min())
    splits = np.searchsorted(np.array(begins), times, side="right").astype(np.int8)
    return embargoed(splits, times, embargo_of(data), name=data.time_column)


def window_spec(
    table: pa.Table, ordered: OrderedSeries, config: ExperimentConfig, *, training: NDArray[np.bool_]
) -> WindowSpec:
    """Returns what windows are made of: what the user said, and for the rest what the training rows suggest.

    Args:
        table: A row a step.
        ordered: Their order.
        config: The settings, with a horizon.
        training: Mask of the training rows, ``(num_rows,)``.

    Raises:
        DataError: A column is absent, or a static one changes within a series.
        ConfigError: A column is given two parts to play.
    """
    data, forecast = config.data, config.forecast
    roles = [data.target, data.time_column, *([forecast.series_id] if forecast.series_id else [])]
    for name in (*forecast.known_future, *forecast.static):
        require_column(table, name, role="column")
        if name in roles:
            raise ConfigError(f"{name!r} is the target, the time or the series: it cannot be known ahead or static")
    static = (*([forecast.series_id] if forecast.series_id else []), *forecast.static)
    check_static(table, ordered, forecast.static)
    ignored = {name for name, kind in data.features.items() if kind == "ignore"}
    others = set(roles) | set(forecast.known_future) | set(static) | ignored
    series = [part[np.isfinite(part)] for part in _training_values(table, ordered, data.target, training=training)]
    likely = ordered.report.per_cycle
    period = forecast.season or find_period(series, horizon=forecast.horizon, likely=likely)
    longest = max((len(values) for values in series), default=1)
    automatic = min(max(2 * period, forecast.horizon), MAX_AUTOMATIC_CONTEXT, max(1, longest // 3))
    return WindowSpec(
        target=data.target,
        time_column=data.time_column,
        series_id=forecast.series_id,
        context=forecast.context or automatic,
        horizon=forecast.horizon,
        stride=forecast.stride,
        period=period,
        past=tuple(name for name in table.column_names if name not in others),
        known_future=forecast.known_future,
        static=static,
    )


def series_findings(ordered: OrderedSeries) -> tuple[Finding, ...]:
    """Returns what a person should know of the steps: how they are spaced, gaps, and irregular ones."""
    report = ordered.report
    spaced, *rest = report.sentences()
    found = [Finding(severity=Severity.INFO, code="series-steps", message=spaced)]
    code = "series-gaps" if report.is_regular else "series-irregular"
    found += [Finding(severity=Severity.WARNING, code=code, message=sentence) for sentence in rest]
    return tuple(found)


def series_report(source: SourceTable, config: ExperimentConfig) -> tuple[Finding, ...]:
    """Returns what a person should know of time series: steps, gaps, and what repeating the season comes to.

    Args:
        source: A row a step of each series.
        config: The settings; without a column of series and without a horizon there is nothing to tell.

    Raises:
        DataError: As `framed_windows`.
        ConfigError: As `framed_windows`; or there is no time column.
    """
    forecast = config.forecast
    if not forecast.series_id and not forecast.horizon:
        return ()
    if not config.data.time_column:
        raise ConfigError("series need the order of their steps: name the column of dates with --time-column")
    if forecast.horizon and config.data.target:
        framed = framed_windows(source, config, kinds={})
        notes = [Finding(severity=Severity.INFO, code="windows", message=note) for note in framed.notes]
        return (*framed.findings, *notes)
    ordered = order_series(
        source.table, time_column=config.data.time_column, series_id=forecast.series_id or None
    )
    return series_findings(ordered)


def told_features(features: Sequence[FeatureSpec], spec: WindowSpec) -> tuple[FeatureSpec, ...]:
    """Returns the columns of windows with what they are as the reason of their kind.

    None has mean targets: the lags tell the level of a series as it was known, its other windows what came later.
    """
    return tuple(replace(feature, reason=spec.told(feature.name), target_encoded=False) for feature in features)


def _training_values(
    table: pa.Table, ordered: OrderedSeries, target: str, *, training: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    ends = np.flatnonzero(np.diff(ordered.series)) + 1
    masks = np.split(training[ordered.order], ends)
    return [part[mask] for part, mask in zip(series_values(table, ordered, target), masks, strict=True)]


def _check_enough(windows: Windows, ordered: OrderedSeries, spec: WindowSpec) -> None:
    for split in Split:
        number, least = int((windows.splits == split).sum()), MIN_WINDOWS if split is Split.TRAIN else 1
        if number < least:
            raise DataError(
                f"Expected at least {least} {split.name.lower()} windows of {spec.context} steps known and "
                f"{spec.horizon} ahead, received {number} from series of {ordered.report.shortest:,} to "
                f"{ordered.report.longest:,} rows ({windows.over_gap:,} windows would reach over a gap, "
                f"{windows.over_boundary:,} over a boundary between splits); give a shorter --context or --horizon, "
                f"a smaller --stride, or longer series."
            )


def _kinds(table: pa.Table, spec: WindowSpec, given: Mapping[str, Override]) -> dict[str, Override]:
    """Returns the kind of every column of the windows: that of the column it was taken from.

    A lag is used whatever its values are in the training windows: it is the column that was judged.
    """
    sources = [*spec.lagged, *spec.known_future, *spec.static]
    overrides = {name: kind for name, kind in given.items() if name in sources}
    # No column has this name, so that every column is looked at.
    guessed = infer_features(table.select(sources), TargetSpec("", task=Task.REGRESSION), overrides=overrides)
    kinds: dict[str, Override] = {
        feature.name: feature.kind if feature.used else "ignore" for feature in guessed.features
    }
    kinds[spec.target] = FeatureKind.NUMERIC
    if spec.series_id:
        kinds[spec.series_id] = overrides.get(spec.series_id, FeatureKind.CATEGORICAL)
    return {name: kinds[source] for name, source in spec.sources().items()}


def _notes(
    windows: Windows, spec: WindowSpec, config: ExperimentConfig, *, left_out: int, unknown: int
) -> tuple[str, ...]:
    season = f", season of {spec.period}" if spec.period > 1 else ", no season found"
    notes = [
        f"{len(windows.rows):,} windows: {spec.context} steps known, {spec.horizon} ahead, a window every "
        f"{spec.stride} {'step' if spec.stride == 1 else 'steps'}{season}."
    ]
    if left_out:
        notes.append(f"{left_out:,} rows between the splits are in none of them (embargo {config.data.embargo}).")
    for number, why in (
        (windows.over_boundary, "would forecast over a boundary between splits"),
        (windows.over_gap, "would reach over a gap"),
        (unknown, f"have no {spec.target!r} somewhere ahead"),
    ):
        if number:
            notes.append(f"{number:,} windows {why} and were left out.")
    return tuple(notes)


def _seasonal_finding(framed: pa.Table, target: TargetSpec, windows: Windows, spec: WindowSpec) -> Finding:
    """Returns what repeating the season comes to on the validation windows."""
    judged = framed.filter(pa.array(windows.splits == Split.VALIDATION))
    truth: NDArray[Any] = encode_target(judged, target).reshape(judged.num_rows, -1)
    name, values = seasonal_values(judged, spec)
    errors = values - truth
    known = np.isfinite(errors)
    told = "has no value to repeat"
    if known.any():
        mae, rmse = np.abs(errors[known]).mean(), np.sqrt((errors[known] ** 2).mean())
        told = f"errs by {number_text(float(mae))} (mean absolute) and {number_text(float(rmse))} (root mean square)"
    message = f"On {judged.num_rows:,} validation windows {name} (period {spec.period}) {told}."
    return Finding(severity=Severity.INFO, code="seasonal-naive", message=message)
