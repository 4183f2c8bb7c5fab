from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import csv_scan
from pipelines.sources.csv_scan import scan_rows

_CODE = re.compile(r"[+\- \t]*0[0-9xX]")


def written(rows: list[list[str]], *, quoting: int) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue().encode()


@pytest.fixture(autouse=True, params=[64, 128, 1 << 18])
def part_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes over from one part of a block to the next is told wherever it is cut."""
    monkeypatch.setattr(csv_scan, "_PART_BYTES", request.param)


FIELDS = st.lists(st.text(st.sampled_from('ab01x9-+ ,"\n.'), max_size=12), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(FIELDS, min_size=1, max_size=30), cut=st.integers(0, 400), quotes_all=st.booleans())
def test_the_last_whole_row_is_found_wherever_a_block_is_cut(
    rows: list[list[str]], cut: int, quotes_all: bool
) -> None:
    quoting = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    ends = [len(written(rows[:number], quoting=quoting)) for number in range(len(rows) + 1)]
    content = written(rows, quoting=quoting)
    cut = min(cut, len(content))
    assert scan_rows(content[:cut], delimiter=",", is_last=False).end == max(end for end in ends if end <= cut)
    whole = scan_rows(content, delimiter=",", is_last=True)
    assert whole.end == len(content)
    # Told too often costs time, too seldom costs zeros; within quotes a comma may look like the end of a field.
    if any(_CODE.match(field) for row in rows for field in row):
        assert whole.may_hold_codes


@pytest.mark.parametrize("content", [b'a,5" pipe\n', b'a,"b"c\n', b'a,"b\n'])
def test_quotes_elsewhere_than_around_fields_do_not_tell(content: bytes) -> None:
    assert scan_rows(content, delimiter=",", is_last=True).end is None


@pytest.mark.parametrize(
    ("content", "may"),
    [
        (b"0,0.5,10,2024-01-05,0\n", False),
        (b"a0x1,b-07\n", False),
        (b"1,007\n", True),
        (b'1,"-07"\n', True),
        (b"1, 0x1F\n", True),
        (b"01\n", True),
    ],
)
def test_codes_are_zeros_before_another_digit_at_the_beginning_of_a_field(content: bytes, may: bool) -> None:
    assert scan_rows(content, delimiter=",", is_last=True).may_hold_codes is may
