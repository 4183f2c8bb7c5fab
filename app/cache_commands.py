"""`tamiz cache list` and `tamiz cache clear`: the prepared tables that are kept for the next search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.command_options import console_view, mendable_errors

cache_app = typer.Typer(
    help="Look at, or clear, the tables kept for the next search.", no_args_is_help=True, rich_markup_mode=None
)

Folder = Annotated[Path | None, typer.Option("--cache", help="The cache [default: runs/.cache].")]


@cache_app.command(name="list")
@mendable_errors
def list_(cache: Folder = None) -> None:
    """Show the prepared tables, what was used last first."""
    from datetime import datetime

    from rich.filesize import decimal

    from app.table_cache import TableCache, default_folder

    kept = TableCache(cache or default_folder(Path("runs")))
    view, entries = console_view(), kept.entries()
    for entry in entries:
        when = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        view.say(f"{entry.key[:12]}  {decimal(entry.num_bytes):>9}  used {when}  {entry.description}")
    total = decimal(sum(entry.num_bytes for entry in entries))
    view.say(f"{kept.folder} holds {len(entries):,} prepared tables, {total}.")


@cache_app.command()
@mendable_errors
def clear(cache: Folder = None) -> None:
    """Remove the prepared tables that no search uses at this moment."""
    from rich.filesize import decimal

    from app.table_cache import TableCache, default_folder

    kept = TableCache(cache or default_folder(Path("runs")))
    console_view().say(f"{decimal(kept.clear())} removed from {kept.folder}; files that runs use as well stay there.")
