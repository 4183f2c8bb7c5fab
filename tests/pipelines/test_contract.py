from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contract import ColumnRule, Contract, Problem, contract_of
from pipelines.contract_check import ContractCheck, check_rows
from pipelines.data_report import DataProfile, profile_columns
from pipelines.errors import DataError

TABLE = pa.table(
    {
        "age": [20.0, 30.0, None, 60.0] * 50,
        "city": ["Rome", "Oslo", "Rome", None] * 50,
        "day": ["31.01.2024", "01.02.2024", "02.02.2024", "29.02.2024"] * 50,
        "is_new": [True, False, True, None] * 50,
        "sold": ["yes", "no"] * 100,
    }
)
KINDS = {"age": "numeric", "city": "categorical", "day": "datetime", "is_new": "boolean", "sold": "target"}


def contract(targets: tuple[str, ...] = ("sold",)) -> Contract:
    profile = DataProfile(
        num_rows=200, split_rows=(200, 0, 0), columns=profile_columns(TABLE, KINDS), findings=()
    )
    return contract_of(profile, datetime_formats={"day": "%d.%m.%Y"}, targets=targets)


def changed(name: str, values: list[Any]) -> pa.Table:
    column = (values * 200)[:200] if len(values) < 200 else values
    return TABLE.set_column(TABLE.column_names.index(name), name, pa.array(column))


def problems(table: pa.Table, rules: Contract) -> list[tuple[str, str]]:
    return [(problem.column, problem.rule) for problem in check_rows(table, rules)]


def test_the_rows_of_a_profile_keep_its_contract() -> None:
    assert check_rows(TABLE, contract()) == []
    assert check_rows(TABLE.drop_columns(["sold"]), contract()) == []
    assert check_rows(TABLE.drop_columns(["sold", "is_new"]), contract(("sold", "is_new"))) == []
    assert check_rows(TABLE.append_column("more", TABLE.column("age")), contract()) == []


@pytest.mark.parametrize(
    ("table", "found", "message"),
    [
        (TABLE.rename_columns(["Age", "city", "day", "is_new", "sold"]), ("age", "present"), "Did you mean 'Age'?"),
        (changed("age", [10.0]), ("age", "range"), "from 20 to 60, but 200 of 200 rows have others, the first 10.0"),
        (changed("age", ["x", "30"]), ("age", "type"), "expected numeric values, but 100 of 200 rows .* 'x' in row 1"),
        (changed("age", [None, 30.0]), ("age", "missing"), "at most 30.0% missing values, received 50.0%"),
        (changed("city", ["Roma", "Oslo"]), ("city", "values"), "only 'Rome', 'Oslo', but 100 of 200 .* 'Roma' in row"),
        (changed("day", ["2024-02-30", "01.02.2024"]), ("day", "type"), r"datetime values \(%d.%m.%Y\), but 100 of"),
        (changed("day", [1, 2]), ("day", "type"), "expected datetime values, received int64"),
        (changed("is_new", ["perhaps", "yes"]), ("is_new", "type"), "expected boolean values, but 100 of 200"),
        (changed("sold", ["maybe", "yes"] ), ("sold", "values"), "only 'no', 'yes', but 100"),
    ],
)
def test_what_breaks_the_contract_is_told_with_counts(
    table: pa.Table, found: tuple[str, str], message: str
) -> None:
    import re

    (problem,) = check_rows(table, contract())
    assert (problem.column, problem.rule) == found
    assert re.search(message, problem.message), problem.message


def test_few_rows_outside_of_what_a_profile_saw_are_tolerated() -> None:
    ages = [20.0, 30.0] * 99 + [20.0]
    assert problems(changed("age", [*ages, 99.0]), contract()) == []
    assert problems(changed("age", [*ages[:-3], 99.0, 99.0, 99.0, 98.0]), contract()) == [("age", "range")]


def test_a_contract_comes_back_from_json_and_may_be_edited() -> None:
    record = json.loads(json.dumps(contract().to_json()))
    assert Contract.from_json(record) == contract()
    record["columns"]["age"] |= {"max": 50, "tolerance": 0}
    assert problems(TABLE, Contract.from_json(record)) == [("age", "range")]


@pytest.mark.parametrize(
    ("expectations", "found"),
    [
        ({"age": {"not_null": True}}, [("age", "missing")]),
        ({"age": {"range": [0, 50]}}, [("age", "range")]),
        ({"city": {"in_set": ["Rome"]}}, [("city", "values")]),
        ({"city": {"unique": True}}, [("city", "unique")]),
        ({"city": {"matches": "[A-Z][a-z]+"}}, []),
        ({"city": {"matches": "[A-Z]"}}, [("city", "pattern")]),
        ({"other": {"not_null": True}}, [("other", "present")]),
        ({"age": {"not_null": False, "range": [0, 100]}}, []),
    ],
)
def test_what_a_person_expects_holds_for_all_rows(
    expectations: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    assert problems(TABLE, contract().with_expectations(expectations)) == found


def test_all_missing_columns_and_sources_without_types() -> None:
    nothing = changed("age", [None])
    assert problems(nothing, contract()) == [("age", "missing")]
    text = pa.table({name: TABLE.column(name).cast(pa.string()) for name in TABLE.column_names})
    assert check_rows(text, contract()) == []
    assert check_rows(changed("age", np.array([20, 60]).tolist()), contract()) == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "Expected a data contract as `tamiz profile` writes it"),
        ({"columns": {"a": {"mim": 3}}}, r"ColumnRule has no field 'mim'\. Did you mean 'min'\?"),
        ({"columns": {"a": {"kind": "number"}}}, "kind of column 'a' in the data contract to be one of numeric, "),
        ({"columns": {"a": {"tolerance": 3}}}, "tolerance of column 'a' in the data contract to be a share"),
        ({"columns": {"a": {"pattern": "("}}}, "a regular expression as the pattern of column 'a' .* received '\\('"),
    ],
)
def test_contracts_that_cannot_be_used(record: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Contract.from_json(record)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (True, "Expected a table of expectations for column 'age'"),
        ({"notnull": True}, r"unknown expectation 'notnull'\. Did you mean 'not_null'\?"),
        ({"range": [1]}, r"Expected range = \[LOWEST, HIGHEST\] for column 'age', received \[1\]"),
        ({"in_set": "a"}, r"Expected in_set = \[VALUES\] for column 'age', received 'a'"),
        ({"matches": "["}, "Expected a regular expression"),
    ],
)
def test_expectations_that_cannot_be_used(wanted: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        contract().with_expectations({"age": wanted})


def test_a_problem_names_column_and_rule() -> None:
    rule = ColumnRule(name="age", kind="numeric", max=30.0)
    (problem,) = check_rows(TABLE, Contract(columns=(rule,)))
    assert isinstance(problem, Problem)
    assert problem.message == (
        "expected numbers from -inf to 30, but 50 of 200 rows have others, the first 60.0 in row 4."
    )


@pytest.mark.parametrize("size", [1, 7, 199])
def test_rows_that_come_in_parts_break_the_same_rules(size: int) -> None:
    table = changed("city", ["Roma", "Oslo", "Rome", "Oslo"])
    table = table.set_column(0, "age", pa.array([20.0, 900.0, None, -1.0] * 50))
    rules = contract().with_expectations({"city": {"unique": True, "matches": "[A-Z].*"}, "day": {"unique": True}})
    check = ContractCheck(rules)
    for start in range(0, table.num_rows, size):
        check.add(table.slice(start, size))
    expected = check_rows(table, rules)
    assert {problem.rule for problem in expected} == {"range", "values", "unique"}
    assert check.problems() == expected


def test_a_column_that_all_rows_leave_out_is_missing_where_nothing_fixes_the_columns() -> None:
    rules = Contract(columns=(ColumnRule(name="a"), ColumnRule(name="b", max_missing_share=0.9)))
    for fixed, found in ((False, ["b"]), (True, ["a", "b"])):
        check = ContractCheck(rules, fixed_columns=fixed)
        check.add(pa.table({"c": [1, 2]}))
        assert [(problem.column, problem.rule) for problem in check.problems()] == [(name, "present") for name in found]


def test_text_for_the_same_date_is_not_the_same_text() -> None:
    table = pa.table({"stamp": ["2024-01-01", "2024-01-01 00:00:00", "2024-01-01"]})
    (problem,) = check_rows(table, Contract(columns=(ColumnRule(name="stamp", kind="text", unique=True),)))
    assert problem.message == "expected each value once, but 1 rows repeat the value of another."
