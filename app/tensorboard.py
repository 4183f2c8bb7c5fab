"""TensorBoard event files written without TensorFlow: scalars, hyperparameters with status, and a graph.

The coordinator writes them for all trials, so that a trial whose worker died has its status too. Only modules of
the tensorboard package that do not import TensorFlow are used; its own `hparams.summary` does.

Directories of one run:
    trials/          the experiment record: which hyperparameters and metrics there are
    trials/0007/     one trial: train/loss, val/loss, val/<metric>, learning_rate by epoch; final/<metric>; status
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, final

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from app.search.space import Boolean, Categorical, Configuration, Float, Int, Parameter, Value
from app.search.trial import Completed, Failed, Outcome, Paused, Pruned

STATUS_TAG = "status"
FINAL_PREFIX = "final/"

_GRAPH_TAG = "graph"  # not a tag of TensorBoard's: marks that the directory holds a graph already
_PREFIX = "events.out.tfevents."
_HEADER = struct.Struct("<QI")  # length and checksum of the length, before every record
_FOOTER_BYTES = 4


@final
class TrialEventWriter:
    """Writes one trial's events; opened again for a resumed trial it goes on in a new file.

    What the directory holds already is read first: a step that was written before is not written again, because a
    trial that is resumed after a kill repeats the epochs since its last saved state. Every call is flushed, so a
    running search is seen live.

    Args:
        directory: of the trial; made if missing.

    Raises:
        OSError: the directory cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._last_steps = _last_steps(directory)
        path = _next_path(directory)
        # "x": a second writer of the same trial would be a bug, and must not mix its records into these.
        self._records = RecordWriter(path.open("xb"))
        _write_version(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_step(self) -> int:
        """The last step of any scalar in this directory; -1 if there is none."""
        return max(self._last_steps.values(), default=-1)

    def scalars(self, step: int, values: Mapping[str, float], *, wall_time: float | None = None) -> None:
        """Write one epoch's numbers.

        Args:
            step: epochs done; a tag already written at this step or a later one is skipped.
            values: by tag: `train/loss`, `val/loss`, `val/<metric>`, `learning_rate`. Not finite is shown as such.
            wall_time: seconds since the epoch of the clock; None for now.
        """
        summary = Summary()
        for tag, value in values.items():
            if step > self._last_steps.get(tag, -1):
                self._last_steps[tag] = step
                summary.value.append(_scalar(tag, float(value)))
        if summary.value:
            self._write(Event(step=step, summary=summary), wall_time)

    def hparams_start(
        self, hyperparameters: Configuration, *, group_name: str, wall_time: float | None = None
    ) -> None:
        """Write the trial's hyperparameters; skipped where a resumed trial has them already.

        Args:
            hyperparameters: the active ones.
            group_name: what the HParams table calls the row; trials of one name are averaged there.
            wall_time: seconds since the epoch of the clock; None for now.
        """
        if hparams_metadata.SESSION_START_INFO_TAG in self._last_steps:
            return
        info = plugin_data_pb2.SessionStartInfo(group_name=group_name, start_time_secs=_or_now(wall_time))
        for name, value in hyperparameters.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                info.hparams[name].number_value = value
            else:
                info.hparams[name].string_value = value
        data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
        self._write_hparams(hparams_metadata.SESSION_START_INFO_TAG, data, wall_time)

    def hparams_end(
        self, outcome: Outcome, *, metrics: Mapping[str, float], wall_time: float | None = None
    ) -> None:
        """Write how the trial ended, and its final numbers as `final/<name>`.

        The HParams plugin knows success and failure only, and TensorBoard keeps the first end it reads of a trial:
        a trial that pauses, is resumed and then fails stays a success there. The exact end is in the text `status`.

        Args:
            outcome: completed, paused and pruned are successes.
            metrics: by name, as declared to `write_experiment_summary`; may be empty.
            wall_time: seconds since the epoch of the clock; None for now.
        """
        step = max(self.last_step, 0)
        self.scalars(
            step, {FINAL_PREFIX + name: value for name, value in metrics.items()}, wall_time=wall_time
        )
        status = api_pb2.STATUS_FAILURE if isinstance(outcome, Failed) else api_pb2.STATUS_SUCCESS
        info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=_or_now(wall_time))
        data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
        self._write_hparams(hparams_metadata.SESSION_END_INFO_TAG, data, wall_time)
        text = Summary(value=[_text(STATUS_TAG, _describe(outcome))])
        self._write(Event(step=step, summary=text), wall_time)

    def graph(self, graph_def: bytes) -> None:
        """Write a serialized GraphDef; a directory keeps the first one."""
        if _GRAPH_TAG not in self._last_steps:
            self._last_steps[_GRAPH_TAG] = -1
            self._write(Event(graph_def=graph_def), None)

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if not self._records.closed:
            self._records.close()

    def _write_hparams(
        self, tag: str, data: plugin_data_pb2.HParamsPluginData, wall_time: float | None
    ) -> None:
        self._last_steps[tag] = -1
        self._write(Event(summary=_hparams_summary(tag, data)), wall_time)

    def _write(self, event: Event, wall_time: float | None) -> None:
        event.wall_time = _or_now(wall_time)
        self._records.write(event.SerializeToString())
        self._records.flush()


def write_experiment_summary(
    directory: Path, *, parameters: Sequence[Parameter], metrics: Sequence[str], description: str = ""
) -> None:
    """Tell the HParams plugin the hyperparameters with their domains, and the metrics of its table.

    Args:
        directory: the trials' parent. The record is replaced as a whole, so a space that grew is written again.
        parameters: of the space.
        metrics: names as given to `TrialEventWriter.hparams_end`.
        description: of the experiment, for people.

    Raises:
        OSError: the directory cannot be made or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    experiment = api_pb2.Experiment(
        description=description,
        time_created_secs=time.time(),
        hparam_infos=[_hparam_info(parameter) for parameter in parameters],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=FINAL_PREFIX + name), display_name=name)
            for name in metrics
        ],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    event = Event(wall_time=time.time(), summary=_hparams_summary(hparams_metadata.EXPERIMENT_TAG, data))
    path = directory / f"{_PREFIX}0000000000.tamiz.experiment"
    # TensorBoard takes any name holding "tfevents" for an event file, so the unfinished one must not.
    unfinished = directory / ".experiment.unfinished"
    with unfinished.open("wb") as file:
        records = RecordWriter(file)
        _write_version(records)
        records.write(event.SerializeToString())
    os.replace(unfinished, path)


def _hparam_info(parameter: Parameter) -> api_pb2.HParamInfo:
    # What is searched differs between trials: TensorBoard's tables show such columns without being asked.
    info = api_pb2.HParamInfo(name=parameter.name, differs=True)
    match parameter:
        case Float() | Int():
            info.type = api_pb2.DATA_TYPE_FLOAT64
            info.domain_interval.min_value = parameter.low
            info.domain_interval.max_value = parameter.high
        case Boolean():
            info.type = api_pb2.DATA_TYPE_BOOL
            info.domain_discrete.extend([False, True])
        case Categorical():
            info.type = _data_type(parameter.choices)
            info.domain_discrete.extend(parameter.choices)
    return info


def _data_type(choices: Sequence[Value]) -> api_pb2.DataType:
    if all(isinstance(choice, bool) for choice in choices):
        return api_pb2.DATA_TYPE_BOOL
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
        return api_pb2.DATA_TYPE_FLOAT64
    return api_pb2.DATA_TYPE_STRING


def _describe(outcome: Outcome) -> str:
    match outcome:
        case Completed():
            return "completed"
        case Paused(step):
            return f"paused after epoch {step}"
        case Pruned(step):
            return f"pruned after epoch {step}"
        case Failed(reason):
            return f"failed: {reason}"


def _scalar(tag: str, value: float) -> Summary.Value:
    tensor = TensorProto(dtype=DT_FLOAT, tensor_shape=TensorShapeProto(), float_val=[value])
    metadata = scalar_metadata.create_summary_metadata(display_name=None, description=None)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _text(tag: str, text: str) -> Summary.Value:
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[text.encode()])
    metadata = text_metadata.create_summary_metadata(display_name=None, description=None)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _hparams_summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)])


def _write_version(records: RecordWriter) -> None:
    source = SourceMetadata(writer="tamiz")
    first = Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=source)
    records.write(first.SerializeToString())
    records.flush()


def _next_path(directory: Path) -> Path:
    """A name that sorts behind all others: TensorBoard reads the files of a directory in the order of names."""
    taken = [path.name.removeprefix(_PREFIX).split(".")[0] for path in directory.glob(f"{_PREFIX}*")]
    latest = max((int(stamp) for stamp in taken if stamp.isdigit()), default=0)
    return directory / f"{_PREFIX}{max(int(time.time()), latest):010d}.tamiz.{len(taken):04d}"


def _last_steps(directory: Path) -> dict[str, int]:
    """The last step by tag over all event files; -1 for tags without steps."""
    steps: dict[str, int] = {}
    for path in sorted(directory.glob(f"{_PREFIX}*")):
        for event in _read_events(path):
            if event.HasField("graph_def"):
                steps[_GRAPH_TAG] = -1
            for value in event.summary.value:
                is_scalar = value.metadata.plugin_data.plugin_name == scalar_metadata.PLUGIN_NAME
                steps[value.tag] = max(steps.get(value.tag, -1), event.step if is_scalar else -1)
    return steps


def _read_events(path: Path) -> Iterator[Event]:
    """Events up to the first incomplete or damaged record: a kill may leave half of one at the end."""
    data = path.read_bytes()
    start = 0
    while start + _HEADER.size <= len(data):
        length, _ = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length
        if end + _FOOTER_BYTES > len(data):
            return
        try:
            yield Event.FromString(data[start + _HEADER.size : end])
        except DecodeError:
            return
        start = end + _FOOTER_BYTES


def _or_now(wall_time: float | None) -> float:
    return time.time() if wall_time is None else wall_time
