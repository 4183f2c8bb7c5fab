from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tamiz
from app.api import search


def test_all_names_exist_and_are_sorted() -> None:
    assert [name for name in tamiz.__all__ if not hasattr(tamiz, name)] == []
    assert tamiz.__all__ == sorted(tamiz.__all__)


def test_the_main_words_are_public() -> None:
    assert {"search", "load", "resume", "Experiment", "Space", "TamizError", "DataError"} <= set(tamiz.__all__)


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(tamiz.TamizError, match="holds no experiment: expected a folder made by `tamiz search`"):
        tamiz.load(tmp_path)


def test_search_refuses_a_table_without_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"income": range(30), "age": range(30)})
    with pytest.raises(tamiz.DataError, match="incom"):
        search(frame, target="incom", trials=1, verbose=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limits": "latncy<=5"}, "no measure 'latncy'; did you mean 'latency'"),
        ({"start_from": Path("earlier")}, "/earlier holds no experiment"),
        ({"start_from": "earlier"}, "/earlier holds no experiment"),
    ],
)
def test_one_text_is_one_limit_or_run_and_not_its_letters(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"income": range(30), "age": range(30)})
    with pytest.raises(tamiz.TamizError, match=message):
        search(frame, target="income", run=tmp_path / "run", verbose=False, **given)


def test_search_refuses_a_misspelt_kind(tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": range(30), "age": range(30)})
    with pytest.raises(tamiz.TamizError, match=r"'age' is set to 'numerik' \(did you mean 'numeric'\?\): expected one"):
        search(frame, target="income", features={"age": "numerik"}, run=tmp_path / "run", verbose=False)
