from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util

from app.search.space import Boolean, Categorical, Condition, Float, Int, Scale, Value
from app.search.trial import Completed, Failed, Outcome, Paused, Pruned
from app.tensorboard import TrialEventWriter, write_experiment_summary

SPACE = (
    Float("learning_rate", 1e-5, 1e-1, scale=Scale.LOG),
    Int("depth", 1, 4),
    Boolean("residual"),
    Categorical("optimizer", ("adamw", "sgd")),
    Categorical("batch_size", (16, 32)),
    Float("momentum", 0.8, 0.99, conditions=(Condition("optimizer", ("sgd",)),)),
)


def events(directory: Path) -> Iterator[Event]:
    """All events of a directory in the order TensorBoard reads them, by its own reader, which checks sums."""
    for path in sorted(directory.glob("*tfevents*")):
        reader = PyRecordReader_New(str(path))
        while True:
            try:
                reader.GetNext()
            except (errors.OutOfRangeError, errors.DataLossError):  # the end, or a record cut off
                break
            yield Event.FromString(reader.record())


def values(directory: Path) -> Iterator[tuple[int, Any]]:
    return ((event.step, value) for event in events(directory) for value in event.summary.value)


def scalars(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for step, value in values(directory):
        if value.metadata.plugin_data.plugin_name == "scalars":
            number = float(tensor_util.make_ndarray(value.tensor))
            found.setdefault(value.tag, []).append((step, pytest.approx(number, rel=1e-6, nan_ok=True)))
    return found


def session_ends(directory: Path) -> list[Any]:
    return [
        hparams_metadata.parse_session_end_info_plugin_data(value.metadata.plugin_data.content)
        for _, value in values(directory)
        if value.tag == hparams_metadata.SESSION_END_INFO_TAG
    ]


def statuses(directory: Path) -> list[str]:
    return [
        tensor_util.make_ndarray(value.tensor).item().decode()
        for _, value in values(directory)
        if value.tag == "status"
    ]


def test_scalars_come_back_by_tag_and_step(tmp_path: Path) -> None:
    with TrialEventWriter(tmp_path) as writer:
        writer.scalars(1, {"train/loss": 0.7, "val/loss": 0.8}, wall_time=1000.5)
        writer.scalars(2, {"train/loss": 0.5, "learning_rate": 1e-3})
    assert scalars(tmp_path) == {
        "train/loss": [(1, 0.7), (2, 0.5)],
        "val/loss": [(1, 0.8)],
        "learning_rate": [(2, 1e-3)],
    }
    assert [event.wall_time for event in events(tmp_path) if event.step == 1] == [1000.5]


def test_every_epoch_can_be_read_while_the_writer_is_open(tmp_path: Path) -> None:
    writer = TrialEventWriter(tmp_path)
    for step in (1, 2, 3):
        writer.scalars(step, {"val/loss": step / 10})
        assert len(scalars(tmp_path)["val/loss"]) == step
    writer.close()
    writer.close()


def test_a_number_that_is_not_finite_is_written_as_it_is(tmp_path: Path) -> None:
    with TrialEventWriter(tmp_path) as writer:
        writer.scalars(1, {"train/loss": math.nan, "val/loss": math.inf})
    assert scalars(tmp_path) == {
        "train/loss": [(1, pytest.approx(math.nan, nan_ok=True))],
        "val/loss": [(1, math.inf)],
    }


def test_a_resumed_trial_goes_on_in_a_new_file_without_repeating_steps(tmp_path: Path) -> None:
    with TrialEventWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"val/loss": 1.0})
    with TrialEventWriter(tmp_path) as writer:
        assert writer.last_step == 3
        for step in (3, 4):  # epoch 3 is trained again: its state was not saved before the kill
            writer.scalars(step, {"val/loss": 2.0, "val/accuracy": 0.5})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert scalars(tmp_path) == {
        "val/loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)],
        "val/accuracy": [(3, 0.5), (4, 0.5)],
    }


def test_a_file_cut_off_by_a_kill_is_continued_after_its_last_whole_record(tmp_path: Path) -> None:
    with TrialEventWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"val/loss": 1.0})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    with TrialEventWriter(tmp_path) as writer:
        assert writer.last_step == 2
        writer.scalars(3, {"val/loss": 3.0})
    assert scalars(tmp_path)["val/loss"] == [(1, 1.0), (2, 1.0), (3, 3.0)]


def test_files_sort_in_the_order_they_were_opened(tmp_path: Path) -> None:
    for step in range(12):
        with TrialEventWriter(tmp_path) as writer:
            writer.scalars(step, {"val/loss": 1.0})
    assert [step for step, _ in scalars(tmp_path)["val/loss"]] == list(range(12))


def test_hyperparameters_keep_their_types_and_are_written_once(tmp_path: Path) -> None:
    hyperparameters: dict[str, Value] = {
        "learning_rate": 0.01,
        "depth": 3,
        "residual": True,
        "optimizer": "adamw",
    }
    for _ in range(2):
        with TrialEventWriter(tmp_path) as writer:
            writer.hparams_start(hyperparameters, group_name="trial 7", wall_time=5.0)
    (value,) = [
        value for _, value in values(tmp_path) if value.tag == hparams_metadata.SESSION_START_INFO_TAG
    ]
    info = hparams_metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
    assert (info.group_name, info.start_time_secs) == ("trial 7", 5.0)
    read = {name: getattr(item, item.WhichOneof("kind")) for name, item in info.hparams.items()}
    assert read == hyperparameters
    assert info.hparams["residual"].WhichOneof("kind") == "bool_value"


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        (Completed(0.3), api_pb2.STATUS_SUCCESS, "completed"),
        (Pruned(4), api_pb2.STATUS_SUCCESS, "pruned after epoch 4"),
        (Paused(4), api_pb2.STATUS_SUCCESS, "paused after epoch 4"),
        (Failed("out of memory"), api_pb2.STATUS_FAILURE, "failed: out of memory"),
    ],
)
def test_the_end_tells_the_status_and_the_exact_outcome(
    tmp_path: Path, outcome: Outcome, status: int, text: str
) -> None:
    with TrialEventWriter(tmp_path) as writer:
        writer.scalars(4, {"val/loss": 0.3})
        writer.hparams_end(outcome, metrics={"roc_auc": 0.75}, wall_time=9.0)
    (end,) = session_ends(tmp_path)
    assert (end.status, end.end_time_secs) == (status, 9.0)
    assert statuses(tmp_path) == [text]
    assert scalars(tmp_path)["final/roc_auc"] == [(4, 0.75)]


def test_a_trial_that_failed_before_its_first_epoch_has_an_end(tmp_path: Path) -> None:
    with TrialEventWriter(tmp_path) as writer:
        writer.hparams_end(Failed("the worker died"), metrics={})
    assert [end.status for end in session_ends(tmp_path)] == [api_pb2.STATUS_FAILURE]


def test_final_numbers_of_a_resumed_trial_come_last(tmp_path: Path) -> None:
    for step, value in ((3, 0.6), (9, 0.7)):
        with TrialEventWriter(tmp_path) as writer:
            writer.scalars(step, {"val/loss": 1.0})
            writer.hparams_end(Paused(step), metrics={"roc_auc": value})
    assert scalars(tmp_path)["final/roc_auc"] == [(3, 0.6), (9, 0.7)]


def test_a_graph_is_kept_once(tmp_path: Path) -> None:
    graph = GraphDef()
    graph.node.add(name="x", op="Placeholder")
    for _ in range(2):
        with TrialEventWriter(tmp_path) as writer:
            writer.graph(graph.SerializeToString())
    (read,) = [event.graph_def for event in events(tmp_path) if event.graph_def]
    assert GraphDef.FromString(read) == graph


def test_the_experiment_record_holds_every_domain(tmp_path: Path) -> None:
    write_experiment_summary(tmp_path, parameters=SPACE[:2], metrics=("roc_auc",))
    write_experiment_summary(
        tmp_path, parameters=SPACE, metrics=("roc_auc", "log_loss"), description="the space grew"
    )
    (value,) = [value for _, value in values(tmp_path)]
    experiment = hparams_metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
    assert experiment.description == "the space grew"
    assert [info.name.tag for info in experiment.metric_infos] == ["final/roc_auc", "final/log_loss"]
    infos = {info.name: info for info in experiment.hparam_infos}
    assert list(infos) == [parameter.name for parameter in SPACE]
    assert infos["learning_rate"].domain_interval.max_value == 0.1
    assert infos["depth"].domain_interval.min_value == 1
    assert infos["residual"].type == api_pb2.DATA_TYPE_BOOL
    assert list(infos["optimizer"].domain_discrete) == ["adamw", "sgd"]
    assert list(infos["batch_size"].domain_discrete) == [16, 32]
    assert [path.name.startswith("events.out.tfevents.") for path in tmp_path.iterdir()] == [True]


def test_choices_of_several_types_and_of_truth_values_have_a_type(tmp_path: Path) -> None:
    mixed = (Categorical("mixed", ("none", 3, True)), Categorical("flag", (True, False)))
    write_experiment_summary(tmp_path, parameters=mixed, metrics=())
    (value,) = [value for _, value in values(tmp_path)]
    infos = hparams_metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content).hparam_infos
    assert [info.type for info in infos] == [api_pb2.DATA_TYPE_STRING, api_pb2.DATA_TYPE_BOOL]


# The HParams backend of TensorBoard itself, with the switch it has for running without TensorFlow.
READ_SESSIONS = """
    import json, sys, types
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(sys.argv[1])
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, sys.argv[1])
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = context.RequestContext()
    metadata = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(request, "", True, metadata, [])
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN],
        col_params=[{"metric": {"tag": "final/roc_auc"}, "order": "ORDER_DESC"}],
    )
    answer = list_session_groups.Handler(request, backend, "", wanted).run()
    print(json.dumps({
        "hparams": [info.name for info in experiment.hparam_infos],
        "scalars": {run: sorted(tags) for run, tags in multiplexer.PluginRunToTagToContent("scalars").items()},
        "groups": [
            [group.name, group.sessions[0].name, api_pb2.Status.Name(group.sessions[0].status),
             {value.name.tag: round(value.value, 4) for value in group.metric_values}, sorted(group.hparams)]
            for group in answer.session_groups
        ],
        "tensorflow": "tensorflow" in sys.modules,
    }))
"""


def test_tensorboards_own_backend_lists_the_trials_best_first(tmp_path: Path) -> None:
    write_experiment_summary(tmp_path / "trials", parameters=SPACE, metrics=("roc_auc",))
    ends: list[tuple[Outcome, dict[str, float]]] = [
        (Completed(-0.8), {"roc_auc": 0.8}),
        (Pruned(1), {"roc_auc": 0.9}),
        (Failed("loss is NaN"), {}),
    ]
    for number, (outcome, metrics) in enumerate(ends):
        with TrialEventWriter(tmp_path / "trials" / f"{number:04d}") as writer:
            writer.hparams_start({"depth": number + 1, "optimizer": "adamw"}, group_name=f"{number:04d}")
            writer.scalars(1, {"val/loss": 0.5})
            writer.hparams_end(outcome, metrics=metrics)
    script = [sys.executable, "-c", textwrap.dedent(READ_SESSIONS), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["hparams"] == sorted(parameter.name for parameter in SPACE)
    assert answer["scalars"]["trials/0001"] == ["final/roc_auc", "val/loss"]
    hyperparameters = ["depth", "optimizer"]
    assert answer["groups"] == [
        ["0001", "trials/0001", "STATUS_SUCCESS", {"final/roc_auc": 0.9}, hyperparameters],
        ["0000", "trials/0000", "STATUS_SUCCESS", {"final/roc_auc": 0.8}, hyperparameters],
        ["0002", "trials/0002", "STATUS_FAILURE", {}, hyperparameters],
    ]
    assert not answer["tensorflow"]
