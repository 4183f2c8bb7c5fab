"""What several commands share: the options that say where data is, and how errors are told. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from app.arguments import DataArguments
    from app.view import View

_P = ParamSpec("_P")
_R = TypeVar("_R")

DATA_HELP = "Files, folders, patterns, URLs, tfds:NAME, python:module:function; see docs/sources.md."
URL_HELP = "Database, such as sqlite:///x.db; with a password better in the variable TAMIZ_SQL_URL."

TimeColumn = Annotated[str, typer.Option(help="Column that orders the splits.")]
Embargo = Annotated[str, typer.Option(help="Left out between splits in time: 7d, 12h, or a number of rows.")]
Horizon = Annotated[int, typer.Option(min=0, help="Steps to forecast, with --time-column.")]
Context = Annotated[int, typer.Option(min=0, help="Steps that a forecast looks back; 0: by the season.")]
Stride = Annotated[int, typer.Option(min=1, help="Steps between the beginnings of two windows.")]
Season = Annotated[int, typer.Option(min=0, help="Steps of a season; 0: found.")]
SeriesId = Annotated[str, typer.Option(help="Column that tells time series apart.")]
KnownFuture = Annotated[list[str] | None, typer.Option(help="Column that is known ahead, such as holidays.")]
Static = Annotated[list[str] | None, typer.Option(help="Column that never changes within a series.")]

Store = Annotated[str, typer.Option(help="Folder of the feature groups [default: feature_store].")]

Data = Annotated[list[str] | None, typer.Argument(help=DATA_HELP, show_default=False)]
Sql = Annotated[str, typer.Option(help="Query to the database at --url.")]
Url = Annotated[str, typer.Option(help=URL_HELP, envvar="TAMIZ_SQL_URL", show_envvar=False)]
Join = Annotated[list[str] | None, typer.Option(help="Table to look up: customers.csv:customer_id.")]
DataDir = Annotated[str, typer.Option(help="Folder of prepared tensorflow-datasets, for tfds:NAME.")]
MaxFileSize = Annotated[str, typer.Option(help="What a file may have, also unpacked: 10GB.")]


def data_arguments(
    data: Sequence[str] | None, *, sql: str, url: str, join: Sequence[str] | None, data_dir: str, max_file_size: str
) -> DataArguments:
    """Returns what the options above say."""
    from app.arguments import DataArguments

    return DataArguments(
        places=tuple(data or ()), sql=sql, url=url, joins=tuple(join or ()), data_dir=data_dir,
        max_file_size=max_file_size,
    )  # fmt: skip


def console_view() -> View:
    """Returns the view of a terminal."""
    from rich.console import Console

    from app.view import ConsoleView

    return ConsoleView(Console())


def mendable_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Prints what the user can mend as one line and exits with code 2, without a traceback."""

    @wraps(command)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from app.errors import is_users_to_mend, told_as_disk_error

        try:
            with told_as_disk_error(Path.cwd()):
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            print("left at once; go on with `tamiz resume`", file=sys.stderr)
            raise typer.Exit(130) from None
        except Exception as error:
            if not is_users_to_mend(error):
                raise
            print(f"tamiz: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(2) from None

    return guarded
