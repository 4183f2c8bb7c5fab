"""JSON in and out as TensorFlow Serving has it. No TensorFlow here.

orjson does nearly all the work. Where it refuses a text (NaN and infinities, bytes after the document), the standard
library reads it; where it would write null for a NaN, so does the standard library.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import Any

import orjson

from tf_serving.server.status import invalid

DUMP_BYTES = 256
"""Longest piece of a request that is quoted in a message."""

_MISSING_NAME = "Missing a name for object member."
_INVALID = "Invalid value."
_MESSAGES = {
    "Expecting property name enclosed in double quotes": _MISSING_NAME,
    "Illegal trailing comma before end of object": _MISSING_NAME,
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid escape character in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_LITERALS = {"t": "true", "f": "false", "n": "null", "N": "NaN", "I": "Infinity", "-": "-Infinity"}
_NUMBER_BEFORE = re.compile(r"(?<![0-9.eE+-])-?[0-9]+(\.[0-9]+)?\Z")
_EXPONENT_SIGN = re.compile(r"[eE][+-]?")
_STRINGS_OR_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"?|-?[0-9][0-9.eE+-]*')
_STRINGS_OR_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]')
# Inf and -NaN, which TensorFlow Serving's parser takes too; strings are matched so that they are passed over.
_UNUSUAL_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"?|-NaN\b|\bInf\b')
_LONGEST_NUMBER = 400
_WHITESPACE = " \t\n\r"


class _TooBigError(ValueError):
    """A number that no double can hold."""


def parse(body: bytes, *, max_depth: int) -> Any:
    """Return the first JSON document of a body; what follows it is ignored, as TensorFlow Serving does.

    Args:
        body: UTF-8 text; NaN, Infinity and -Infinity are numbers.
        max_depth: Deepest nesting that is read.

    Raises:
        ServingError: INVALID_ARGUMENT, with the words and the byte offset of TensorFlow Serving's parser.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_slowly(body, max_depth)


def check_depth(value: Any, max_depth: int) -> None:
    """Refuse a document that is nested deeper than the limit; does not recurse.

    Args:
        value: A parsed document.
        max_depth: Deepest nesting that is accepted.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    level = [value]
    for _ in range(max_depth + 1):
        deeper: list[Any] = []
        for item in level:
            if type(item) is list:
                deeper.extend(item)
            elif type(item) is dict:
                deeper.extend(item.values())
        if not deeper:
            return
        level = deeper
    raise invalid(f"JSON is nested deeper than {max_depth} levels")


def dump(value: Any) -> str:
    """Return a value as it is quoted in messages: four spaces a level, at most 256 bytes."""
    text = ""
    # No more than is shown: a whole body takes seconds, and one that is nested a thousand times cannot be printed.
    for part in _PRINTER.iterencode(value):
        text += part
        if len(text) >= DUMP_BYTES:
            break
    return text.encode("utf-8", "replace")[:DUMP_BYTES].decode("utf-8", "ignore")


def error_body(message: str) -> bytes:
    """Return the body of an answer that is not OK."""
    return b'{\n    "error": ' + orjson.dumps(message.encode("utf-8", "replace").decode()) + b"\n}"


def _parse_slowly(body: bytes, max_depth: int) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _parse_error("Invalid encoding in string.", error.start) from None
    start = len(text) - len(text.lstrip(_WHITESPACE))
    if start == len(text):
        # With the offset only where there were bytes: an empty body is refused before its parser runs.
        raise invalid("JSON Parse error: The document is empty" + (f". at offset: {len(body)}" if body else ""))
    if "Inf" in text or "-NaN" in text:
        text = _UNUSUAL_NUMBERS.sub(_usual, text)
    # orjson stops at 1,024 levels; its words do not say so, and the standard library would recurse.
    _check_text_depth(text, max_depth)
    try:
        return _DECODER.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        words, position = _words(error.msg, text, error.pos)
        raise _parse_error(words, len(text[:position].encode())) from None
    except _TooBigError as error:
        number = str(error)
        found = (match.start() for match in _STRINGS_OR_NUMBERS.finditer(text) if match[0] == number)
        position = next(found, 0)
        raise _parse_error("Number too big to be stored in double.", len(text[:position].encode())) from None
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error} at offset: 0") from None


def _usual(match: re.Match[str]) -> str:
    return {"-NaN": "NaN", "Inf": "Infinity"}.get(match[0], match[0])


def _check_text_depth(text: str, max_depth: int) -> None:
    depth = 0
    for match in _STRINGS_OR_BRACKETS.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > max_depth:
                raise invalid(f"JSON is nested deeper than {max_depth} levels")
        elif token in "]}":
            depth -= 1


def _words(message: str, text: str, position: int) -> tuple[str, int]:
    """Return what TensorFlow Serving's parser (RapidJSON 1.1) would say of an error, and where it would see it."""
    if message.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma, not behind it
        position += 1 + len(text[position + 1 :]) - len(text[position + 1 :].lstrip(_WHITESPACE))
    if message.startswith("Unterminated string"):
        position = len(text)
    elif message.startswith("Invalid \\uXXXX"):
        position = text.rindex("\\", 0, position + 1)
    if message in _MESSAGES:
        return _MESSAGES[message], position
    if message == "Expecting ',' delimiter":
        return _after_value(text, position)
    if not text[:position].strip(_WHITESPACE) and text[position] in ",:]}\0":
        return "The document is empty.", position
    # A word that begins as it should is read as far as it does.
    wanted = _LITERALS.get(text[position : position + 1], "")
    same = takewhile(lambda pair: pair[0] == pair[1], zip(wanted, text[position:], strict=False))
    return _INVALID, position + len(list(same))


def _after_value(text: str, position: int) -> tuple[str, int]:
    """Return what is wrong where a value has ended for Python and neither a comma nor a bracket follows."""
    number = _NUMBER_BEFORE.search(text, max(0, position - _LONGEST_NUMBER), position)
    sign = _EXPONENT_SIGN.match(text, position)
    if number is not None and sign is not None:
        return "Miss exponent in number.", sign.end()
    if number is not None and number[1] is None and text[position : position + 1] == ".":
        return "Miss fraction part in number.", position + 1
    open_brackets: list[str] = []
    for match in _STRINGS_OR_BRACKETS.finditer(text, 0, position):
        if match[0] in "[{":
            open_brackets.append(match[0])
        elif match[0] in "]}" and open_brackets:
            open_brackets.pop()
    if open_brackets and open_brackets[-1] == "{":
        return "Missing a comma or } after an object member.", position
    return "Missing a comma or ] after an array element.", position


def _parse_error(words: str, offset: int) -> Exception:
    return invalid(f"JSON Parse error: {words} at offset: {offset}")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _TooBigError(text)
    return value


def _integer(text: str) -> int:
    if len(text) > 300:  # more digits than any double has
        raise _TooBigError(text)
    return int(text)


_PRINTER = json.JSONEncoder(indent=4, ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer)
