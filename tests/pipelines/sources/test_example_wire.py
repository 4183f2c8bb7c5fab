from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import example_proto
from pipelines.sources.example_proto import FeatureValues, example_class, parse_examples
from pipelines.sources.example_wire import OtherFormError, list_contents, read_features

LISTS = {
    "bytes_list": st.lists(st.binary(max_size=5), max_size=1),
    "float_list": st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    "int64_list": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
}
FEATURES = st.one_of(
    st.none(), *(st.tuples(st.just(kind), values) for kind, values in LISTS.items()), st.just(("", []))
)
EXAMPLES = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "other", "größe"]), FEATURES, max_size=4), min_size=1, max_size=12
)


def encoded(features: dict[str, tuple[str, list[Any]] | None]) -> bytes:
    example = example_class()()
    for name, feature in features.items():
        if feature is not None:
            kind, values = feature
            entry = example.features.feature[name]
            if kind:
                getattr(entry, kind).SetInParent()
                getattr(entry, kind).value.extend(values)
    return bytes(example.SerializeToString())


def as_lists(features: dict[str, FeatureValues]) -> dict[str, tuple[list[int], list[Any] | None]]:
    return {
        name: (found.kinds.tolist(), None if found.column is None else found.column.to_pylist())
        for name, found in features.items()
    }


@settings(deadline=None, max_examples=60)
@given(EXAMPLES)
def test_messages_are_read_side_by_side_as_one_by_one(examples: list[dict[str, tuple[str, list[Any]] | None]]) -> None:
    records = [encoded(example) for example in examples]
    assert as_lists(example_proto._side_by_side(records)) == as_lists(example_proto._one_by_one(records))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.integers(0, 40), st.integers(0, 255))
def test_other_bytes_are_left_to_the_other_parser(records: list[bytes], place: int, byte: int) -> None:
    whole = bytearray(encoded({"a": ("int64_list", [1, 300]), "b": ("bytes_list", [b"word"])}))
    whole[place % len(whole)] = byte
    for some in (records, [bytes(whole)]):
        try:
            expected = as_lists(example_proto._one_by_one(some))
        except ValueError:
            with pytest.raises(ValueError, match=r"^\d+$"):
                parse_examples(some)
        else:
            assert as_lists(parse_examples(some)) == expected


@pytest.mark.parametrize(
    "record",
    [
        b"\x0a\x0a\x0a\x08\x0a\x01a\x12\x03\x1a\x01\x08",  # cut off within a list
        b"\x0a\x0c\x0a\x0a\x0a\x01a\x12\x05\x1a\x03\x08\x01\x08",  # numbers that are not packed
        encoded({"a": ("bytes_list", [b"one", b"two"])}),
    ],
)
def test_what_is_not_of_the_usual_form_is_told(record: bytes) -> None:
    with pytest.raises(OtherFormError):
        _contents_of_a(record)


def _contents_of_a(record: bytes) -> object:
    data, features = read_features([record])
    return list_contents(data, features["a"], "bytes_list")
