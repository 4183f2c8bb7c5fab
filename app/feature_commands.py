"""The commands about feature groups: `tamiz features register`, `list` and `publish`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.command_options import (
    Data,
    DataDir,
    Join,
    MaxFileSize,
    Sql,
    Store,
    Url,
    console_view,
    data_arguments,
    mendable_errors,
)

features_app = typer.Typer(
    help="Keep features by key, in versions, for searches and for models that are served.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Name of the group.")]


@features_app.callback()
def _features() -> None:
    """Keep features by key, in versions, for searches and for models that are served."""


@features_app.command()
@mendable_errors
def register(
    name: Name,
    key: Annotated[str, typer.Option(help="Column that rows look the features up by.")],
    data: Data = None,
    timestamp: Annotated[str, typer.Option(help="Column that says when a row's values were known.")] = "",
    store: Store = "",
    sql: Sql = "",
    url: Url = "",
    join: Join = None,
    data_dir: DataDir = "",
    max_file_size: MaxFileSize = "",
) -> None:
    """Store a table as the next version of a feature group."""
    from app.config import DataConfig, ExperimentConfig
    from app.data_source import source_of
    from app.errors import told_as_disk_error
    from app.read_rows import read_rows
    from pipelines.feature_groups import DEFAULT_STORE
    from pipelines.feature_groups import register as register_group

    given = data_arguments(data, sql=sql, url=url, join=join, data_dir=data_dir, max_file_size=max_file_size)
    settings = given.applied(DataConfig())
    config = ExperimentConfig(data=settings)
    read = read_rows(source_of(settings, url=url), config, folder=Path(tempfile.gettempdir())).source
    place = Path(store or DEFAULT_STORE)
    with told_as_disk_error(place):
        group = register_group(
            place, read.table, name=name, key=key, timestamp=timestamp, source=read.description
        )
    console_view().say(f"{group.title}: {group.num_rows:,} rows, {len(group.columns):,} features by {key}, in {place}")


@features_app.command(name="list")
@mendable_errors
def list_groups(store: Store = "") -> None:
    """Show every version of every feature group of a store."""
    from rich.table import Table

    from pipelines.feature_groups import DEFAULT_STORE, groups_of

    place = Path(store or DEFAULT_STORE)
    groups = groups_of(place)
    view = console_view()
    if not groups:
        view.say(f"There is no feature group in {place}.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in ("group", "key", "timestamp", "rows", "features"):
        table.add_column(title, overflow="fold")
    for group in groups:
        table.add_row(group.title, group.key, group.timestamp, f"{group.num_rows:,}", ", ".join(group.columns))
    view.show(table)


@features_app.command()
@mendable_errors
def publish(
    name: Annotated[str, typer.Argument(help="Group, NAME for its latest version or NAME@VERSION.")],
    to: Annotated[str, typer.Option(help="Database to look them up in: sqlite:///x.db, postgresql://...")],
    store: Store = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the table if there is one.")] = False,
) -> None:
    """Write the latest values of every key into a table of a database, named after the group."""
    from app.answer_files import answer_writer, check_output
    from pipelines.feature_groups import DEFAULT_STORE, find_group, latest_rows, read_group

    place = Path(store or DEFAULT_STORE)
    group = find_group(place, name)
    output = f"{to}#{group.name}"
    check_output(output)
    rows = latest_rows(read_group(place, group), group).to_pandas()
    with answer_writer(output, key=group.key, replace=replace) as writer:
        writer.write(rows)
    console_view().say(f"{group.title}: {len(rows):,} keys in the table {group.name!r}")
