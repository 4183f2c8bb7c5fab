from __future__ import annotations

from pipelines.errors import list_names, suggest_name


def test_nearest_name_ignores_case() -> None:
    assert suggest_name("STATUS", ["Status", "Stat"]) == " Did you mean 'Status'?"
    assert suggest_name("qqq", ["Status"]) == ""


def test_long_lists_of_names_are_cut() -> None:
    assert list_names("abc", limit=2) == "'a', 'b' and 1 more"
