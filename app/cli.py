"""The command line: arguments in, one call of the program, exit codes out. No logic and no heavy import at the top.

Exit codes: 0 done, 1 data that breaks its contract, 2 something the user can mend (one line on standard error), 130
left by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cache_commands import cache_app
from app.command_options import (
    Context,
    Data,
    DataDir,
    Embargo,
    Horizon,
    Join,
    KnownFuture,
    MaxFileSize,
    Season,
    SeriesId,
    Sql,
    Static,
    Store,
    Stride,
    TimeColumn,
    Url,
    console_view,
    data_arguments,
    mendable_errors,
)
from app.data_commands import data_app, profile, validate
from app.feature_commands import features_app

if TYPE_CHECKING:
    from app.config import ExperimentConfig

STARTED = time.time()
"""When the command began; the time budget counts from here."""


app = typer.Typer(
    name="tamiz",
    help="Takes a table to a searched, verified and served Keras model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@mendable_errors
def search(
    data: Data = None,
    target: Annotated[str, typer.Option(help="Column to predict; several: a,b,c.")] = "",
    time_: Annotated[str, typer.Option("--time", help="Wall-clock budget of everything: 90s, 10m, 1h30m.")] = "",
    trials: Annotated[int, typer.Option(min=0, help="Number of trials; 0: no limit.")] = 0,
    run: Annotated[Path | None, typer.Option(help="Run directory [default: runs/NAME].")] = None,
    name: Annotated[str, typer.Option(help="Name of experiment and model [default: the file's].")] = "",
    space: Annotated[str, typer.Option(help="tabular, one family such as tabm, or module:build.")] = "",
    algorithm: Annotated[str, typer.Option(help="auto, bayesian, tpe, asha, hyperband, bohb, random ...")] = "",
    objective: Annotated[str, typer.Option(help="Validation metric to select by, such as roc_auc.")] = "",
    task: Annotated[str, typer.Option(help="auto, binary, multiclass, regression, forecast.")] = "",
    feature: Annotated[list[str] | None, typer.Option(help="NAME=KIND overrides a guess; ignore drops it.")] = None,
    group: Annotated[str, typer.Option(help="Column whose rows stay together in one split.")] = "",
    features: Annotated[list[str] | None, typer.Option(help="Registered feature group to look up.")] = None,
    store: Store = "",
    time_column: TimeColumn = "",
    embargo: Embargo = "",
    horizon: Horizon = 0,
    context: Context = 0,
    stride: Stride = 1,
    season: Season = 0,
    series_id: SeriesId = "",
    known_future: KnownFuture = None,
    static: Static = None,
    quantiles: Annotated[str, typer.Option(help="Quantiles of a regression to predict: 0.05,0.5,0.95.")] = "",
    interval: Annotated[float, typer.Option(help="Prediction intervals that hold this share of rows: 0.9.")] = 0.0,
    weight: Annotated[str, typer.Option(help="Column that says how much a row counts.")] = "",
    balance: Annotated[str, typer.Option(help="Rare classes: none, weights, oversample, undersample, search.")] = "",
    missing: Annotated[list[str] | None, typer.Option(help="A further text that means a missing value.")] = None,
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
    lock: Annotated[Path | None, typer.Option(help="Lock file of `tamiz data lock` that the data must match.")] = None,
    cache: Annotated[str, typer.Option(help="Folder of prepared tables, or none [default: beside the run].")] = "",
    encoding: Annotated[str, typer.Option(help="Text encoding of the file [default: recognised].")] = "",
    delimiter: Annotated[str, typer.Option(help="Delimiter of the file [default: recognised].")] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of a trial at full budget; 0: by the rows.")] = 0,
    folds: Annotated[int | None, typer.Option(help="Folds that judge a trial; 1: validation rows; 0: by rows.")] = None,
    ensemble: Annotated[int | None, typer.Option(help="Trials that answer together; 1: one; 0: up to 8.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice [default: 42].")] = None,
    device: Annotated[list[str] | None, typer.Option(help="GPU:0, CPU:1 ...; several: see --placement.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="latency_ms<=5, num_parameters<=2e6, size_mb<=10.")] = None,
    start_from: Annotated[list[Path] | None, typer.Option(help="Earlier run on like data to learn from.")] = None,
    backbone: Annotated[str, typer.Option(help="Earlier run on images, or file of weights, to begin with.")] = "",
    keep: Annotated[int, typer.Option(min=0, help="Best trials whose state is kept [default: 3].")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes [default: 1].")] = 0,
    placement: Annotated[str, typer.Option(help="auto, per-device (a trial a device) or mirrored.")] = "",
    worker_memory: Annotated[str, typer.Option(help="Memory past which a worker is replaced: 4GB.")] = "",
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "",
    ray_address: Annotated[str, typer.Option(help="Ray cluster to join [default: started here].")] = "",
    packing: Annotated[bool | None, typer.Option(help="Trials of one shape train in one graph.")] = None,
    checkpoints: Annotated[str, typer.Option(help="URL for the states of trials: s3://bucket/folder.")] = "",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; options here win.")] = None,
) -> None:
    """Search, train, test, export and verify a model for a table."""
    from app.arguments import ExecutionArguments, SearchArguments, experiment_config
    from app.config import ForecastConfig

    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    execution = ExecutionArguments(
        executor=executor, workers=workers, placement=placement, worker_memory=worker_memory,
        ray_address=ray_address, packing=packing, checkpoints=checkpoints,
    )  # fmt: skip
    forecast = ForecastConfig(
        series_id=series_id, horizon=horizon, context=context, stride=stride, season=season,
        known_future=tuple(known_future or ()), static=tuple(static or ()),
    )  # fmt: skip
    arguments = SearchArguments(
        data=given, lock=str(lock.absolute()) if lock else "", cache=cache, target=target, time=time_, trials=trials,
        name=name, space=space, algorithm=algorithm,
        objective=objective, task=task, features=tuple(feature or ()), group=group, time_column=time_column,
        feature_groups=tuple(features or ()), store=store, embargo=embargo, forecast=forecast,
        quantiles=quantiles, interval=interval, weight=weight, missing=tuple(missing or ()), encoding=encoding,
        delimiter=delimiter, epochs=epochs, folds=folds, ensemble=ensemble, seed=seed,
        devices=tuple(device or ()), limits=tuple(limit or ()), start_from=tuple(map(str, start_from or ())),
        backbone=backbone, keep=keep, balance=balance, execution=execution,
    )  # fmt: skip
    settings = experiment_config(arguments, base=config)
    _launch(settings, run or Path("runs") / settings.name, url=url)


def _launch(settings: ExperimentConfig, run: Path, *, url: str) -> None:
    from app.execution.executors import make_executor

    # The worker imports TensorFlow, which takes seconds, while this process imports pandas and reads the data.
    with contextlib.closing(make_executor(settings.execution, devices=settings.training.devices)) as executor:
        from app.data_source import source_of
        from app.experiment import launch

        source = source_of(settings.data, url=url)
        launch(source, settings, path=run, executor=executor, view=console_view(), started=STARTED)


@app.command()
@mendable_errors
def resume(
    run: Annotated[Path, typer.Argument(help="Run directory of the search to go on with.")],
    time_: Annotated[str, typer.Option("--time", help="Another time budget for the whole experiment.")] = "",
    trials: Annotated[int | None, typer.Option(min=1, help="Another number of trials.")] = None,
    algorithm: Annotated[str, typer.Option(help="Another algorithm; it learns from the trials so far.")] = "",
    ensemble: Annotated[int | None, typer.Option(help="Trials that answer together; 1: one; 0: up to 8.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Another number of worker processes.")] = 0,
    worker_memory: Annotated[str, typer.Option(help="Memory past which a worker is replaced: 4GB.")] = "",
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "",
    ray_address: Annotated[str, typer.Option(help="Ray cluster to join [default: started here].")] = "",
    packing: Annotated[bool | None, typer.Option(help="Trials of one shape train in one graph.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data, if its file has moved.")] = None,
    stored_rows: Annotated[bool, typer.Option("--stored-rows", help="Go on though the file has changed.")] = False,
) -> None:
    """Go on with a search that was interrupted or killed, as it was or with other budgets, workers or algorithm."""
    from app.arguments import Changes, ExecutionArguments
    from app.experiment import resume as resume_experiment
    from app.quantities import parse_duration

    changes = Changes(
        seconds=parse_duration(time_) if time_ else None,
        trials=trials,
        algorithm=algorithm,
        ensemble=ensemble,
        execution=ExecutionArguments(
            executor=executor, workers=workers, worker_memory=worker_memory, ray_address=ray_address, packing=packing
        ),
    )
    resume_experiment(run, view=console_view(), changes=changes, source=data, stored_rows=stored_rows).close()


@app.command()
@mendable_errors
def predict(
    run: Annotated[Path, typer.Argument(help="Run directory with an exported model.")],
    output: Annotated[str, typer.Option(help=".parquet, .csv, FILE.db[#TABLE] or a database URL[#TABLE].")],
    data: Data = None,
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
    key: Annotated[str, typer.Option(help="Column written beside the answers; the key of a table.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the table if there is one.")] = False,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows in memory at once.")] = 50_000,
) -> None:
    """Answer new rows with the exported model, however many there are."""
    from app.answer_files import check_output
    from app.config import DataConfig
    from app.data_source import source_of
    from app.experiment import load
    from app.prediction import BatchSettings

    check_output(output)
    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    settings = BatchSettings(key=key, chunk_rows=chunk_rows, replace=replace)
    with load(run) as experiment:
        source = source_of(given.applied(DataConfig()), url=url)
        num_rows = experiment.predict_file(source, output=output, settings=settings)
    console_view().say(f"{num_rows:,} answers written to {output}")


@app.command()
@mendable_errors
def deploy(
    run: Annotated[Path, typer.Argument(help="Run directory with an exported model.")],
    to: Annotated[Path, typer.Option(help="Folder to write; a later run adds its version there as the canary.")],
    p95: Annotated[str, typer.Option(help="95th percentile that requests should keep, such as 20ms.")] = "50ms",
    cpus: Annotated[int, typer.Option(min=1, help="Cores of one server.")] = 2,
    image: Annotated[str, typer.Option(help="Name of the image with the model [default: the model's].")] = "",
) -> None:
    """Write the files that run TensorFlow Serving: Docker, Compose, Prometheus, Grafana, Kubernetes, KServe."""
    from app.experiment import load
    from app.quantities import parse_milliseconds
    from tf_serving.deploy.bundle import DeploySettings, write_bundle

    settings = DeploySettings(p95_ms=parse_milliseconds(p95), cpus=cpus, image=image)
    with load(run) as experiment:
        deployed = write_bundle(experiment.saved_model, directory=to, settings=settings)
    label = "canary" if deployed.version == deployed.served.canary else "stable"
    what = f"Version {deployed.version} of {deployed.served.model}"
    console_view().say(f"{what} is in {to}, as the {label}; see {to}/README.md")


@app.command(name="bench-serve")
@mendable_errors
def bench_serve(
    target: Annotated[str, typer.Argument(help="host:port, or with http://, https://, grpc:// or grpcs://.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    rate: Annotated[list[float] | None, typer.Option(help="Requests/s, each for one run [default: search].")] = None,
    p95: Annotated[str, typer.Option(help="95th percentile to keep, such as 20ms.")] = "50ms",
    seconds: Annotated[float, typer.Option(help="Length of a run.")] = 5.0,
    rows: Annotated[int, typer.Option(help="Rows of a request.")] = 1,
    connections: Annotated[int, typer.Option(help="Requests in flight at most.")] = 64,
    request: Annotated[Path | None, typer.Option(help="JSON body to send [default: made up].")] = None,
    picture: Annotated[Path | None, typer.Option(help="SVG to write: latency over rate.")] = None,
    api_key: Annotated[str, typer.Option(envvar="TAMIZ_API_KEY", help="Key to be let in with.")] = "",
) -> None:
    """Put load on a model server; find the highest rate that keeps a 95th percentile."""
    from app.quantities import parse_milliseconds
    from tf_serving.client import ClientOptions
    from tf_serving.load_test.bench import BenchSettings, run_bench
    from tf_serving.load_test.chart import check_chart, write_chart

    if picture is not None:
        check_chart(picture)
    settings = BenchSettings(
        model=model, rates=tuple(rate or ()), p95_ms=parse_milliseconds(p95), seconds=seconds, rows=rows,
        connections=connections, request=request, options=ClientOptions(api_key=api_key),
    )  # fmt: skip
    report = run_bench(target, settings)
    console_view().show(report)
    if picture is not None:
        write_chart(report, picture)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["-h"]},
    options_metavar="[FLAGS OF THE SERVER]",
)
@mendable_errors
def serve(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="Run directory, or a folder of versions of any SavedModel.")],
) -> None:
    """Serve a model over TensorFlow Serving's REST (:8501) and gRPC (:8500) interface; --help lists its flags."""
    from app.serve import serving_flags
    from tf_serving.server.main import main as serve_model

    if "--help" in context.args or str(target) == "--help":
        raise typer.Exit(serve_model(["--help"]))
    raise typer.Exit(serve_model(serving_flags(target, given=context.args)))


@app.command()
@mendable_errors
def watch(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now and leave.")] = False,
) -> None:
    """Watch a search from another terminal: trials, brackets, best so far, importance, workers."""
    from rich.console import Console

    from app.run_directory import RunDirectory
    from app.watch import watch as watch_run

    watch_run(RunDirectory.open(run), console=Console(), once=once)


@app.command()
@mendable_errors
def board(
    run: Annotated[Path, typer.Argument(help="Run directory, or a folder of several.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 6006,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Start TensorBoard on a run and print its address."""
    from app.board import serve_board

    serve_board(run, host=host, port=port, view=console_view())


@app.command(name="leaderboard")
@mendable_errors
def show_leaderboard(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    rows: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
) -> None:
    """Show the trials of a run, best first, while it runs or afterwards."""
    from app.evaluation.leaderboard import FittedLeaderboard
    from app.overview import importance_text, overview_of
    from app.report_stage import board_of, read_begun
    from app.run_directory import RunDirectory

    directory = RunDirectory.open(run)
    overview = overview_of(read_begun(directory))
    console_view().show(FittedLeaderboard(board=board_of(directory), metric=overview.metric, max_rows=rows))
    if overview.importance:
        console_view().say(f"importance: {importance_text(overview.importance)}")


@app.command()
def version() -> None:
    """Print the version."""
    import importlib.metadata

    try:
        print(importlib.metadata.version("tamiz"))
    except importlib.metadata.PackageNotFoundError:
        print("not installed: this is a copy of the sources")


app.command(name="profile")(profile)
app.command(name="validate")(validate)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
app.add_typer(features_app, name="features")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
