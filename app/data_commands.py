"""The commands about data alone: `tamiz profile`, `tamiz validate`, `tamiz data lock`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.command_options import (
    Context,
    Data,
    DataDir,
    Embargo,
    Horizon,
    Join,
    MaxFileSize,
    Season,
    SeriesId,
    Sql,
    TimeColumn,
    Url,
    console_view,
    data_arguments,
    mendable_errors,
)

data_app = typer.Typer(help="Keep data from changing unseen.", no_args_is_help=True, rich_markup_mode=None)

Missing = Annotated[list[str] | None, typer.Option(help="A further text that means a missing value.")]


@mendable_errors
def profile(
    output: Annotated[Path, typer.Option(help="Folder for profile.json, schema.json and profile.html.")],
    data: Data = None,
    target: Annotated[str, typer.Option(help="Column to predict; its training rows are described then.")] = "",
    time_column: TimeColumn = "",
    embargo: Embargo = "",
    series_id: SeriesId = "",
    horizon: Horizon = 0,
    context: Context = 0,
    season: Season = 0,
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
    missing: Missing = None,
) -> None:
    """Describe data; write its profile, a page, and a contract that a person can edit."""
    from dataclasses import replace

    from app.config import DataConfig, ExperimentConfig, ForecastConfig
    from app.data_contract import profile_data, write_profile
    from app.data_source import source_of
    from app.errors import told_as_disk_error
    from app.profile_page import profile_found, profile_page

    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    settings = replace(
        given.applied(DataConfig()),
        target=target,
        time_column=time_column,
        embargo=embargo,
        missing_values=tuple(missing or ()),
    )
    forecast = ForecastConfig(series_id=series_id, horizon=horizon, context=context, season=season)
    profiled = profile_data(source_of(settings, url=url), ExperimentConfig(data=settings, forecast=forecast))
    with told_as_disk_error(output):
        write_profile(profiled, output, page=profile_page(profiled))
    view = console_view()
    view.show(profile_found(profiled))
    view.say(f"profile.json, profile.html and schema.json are in {output}")


@mendable_errors
def validate(
    data: Data = None,
    schema: Annotated[Path | None, typer.Option(help="schema.json of `tamiz profile`, or a run directory.")] = None,
    against: Annotated[Path | None, typer.Option(help="Run or exported model, with the profile it ships.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Profile for drift [default: beside the schema].")] = None,
    expect: Annotated[Path | None, typer.Option(help="TOML file with further expectations.")] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
    missing: Missing = None,
) -> None:
    """Check new data against a contract and a profile; exit code 1 when it breaks one."""
    from dataclasses import replace

    from app.config import DataConfig, ExperimentConfig
    from app.data_contract import validate_data
    from app.data_source import source_of
    from app.errors import ConfigError
    from app.profile_page import validation_found
    from app.run_directory import write_json

    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    settings = replace(given.applied(DataConfig()), missing_values=tuple(missing or ()))
    config = ExperimentConfig(data=settings)
    compared = [place for place in (schema, against) if place is not None]
    if len(compared) != 1:
        raise ConfigError("name what the data is compared with: a contract (--schema), or a run or a model (--against)")
    found = validate_data(source_of(settings, url=url), config, schema=compared[0], profile=profile, expect=expect)
    if report is not None:
        write_json(report, found.to_json())
    console_view().show(validation_found(found))
    if not found.is_good:
        raise typer.Exit(1)


@data_app.callback()
def _data() -> None:
    """Keep data from changing unseen."""


@data_app.command()
@mendable_errors
def lock(
    data: Data = None,
    output: Annotated[Path, typer.Option(help="Lock file to write.")] = Path("tamiz.lock"),
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
) -> None:
    """Write down what the data is now; `tamiz search --lock FILE` then refuses other data."""
    from app.config import DataConfig, ExperimentConfig
    from app.data_lock import write_lock
    from app.data_source import source_of
    from app.read_rows import facts_of

    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    settings = given.applied(DataConfig())
    facts = facts_of(source_of(settings, url=url), ExperimentConfig(data=settings))
    write_lock(facts, output)
    console_view().say(f"{facts.description}: locked in {output}")
