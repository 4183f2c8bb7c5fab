"""Where whole rows of CSV end, and whether numbers may be codes, told by bits without parsing.

Bytes of interest become a bit each, sixty-four of them a word, so that a question about neighbours is a shift. A line
break ends a row outside quotes, which is known as long as quotes stand where RFC 4180 has them: around whole fields,
doubled within.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

_PART_BYTES = 1 << 18
"""Bytes that are looked at together, a multiple of 64: what is found out of them stays in the cache of a core."""

_Bits = NDArray[np.uint64]
_ONE, _TOP = np.uint64(1), np.uint64(63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What bytes show without being parsed.

    Attributes:
        end: Where the last whole row ends; 0 where none does, None where quotes do not tell.
        may_hold_codes: False where no field begins with a zero before another digit or an x.
    """

    end: int | None
    may_hold_codes: bool


def scan_rows(block: bytes, *, delimiter: str, is_last: bool) -> Scan:
    """Return where the last whole row of a block ends, and whether numbers in it may be codes.

    Args:
        block: Rows from the beginning of one; the last may be cut.
        delimiter: One character.
        is_last: Whether nothing follows.
    """
    look = _Look(block, delimiter)
    data = np.frombuffer(block, np.uint8)
    for start in range(0, len(data), _PART_BYTES):
        look.at(data[start : start + _PART_BYTES], start=start)
        if not look.stand_around_fields:
            return Scan(end=None, may_hold_codes=True)
    if is_last:
        return Scan(end=None if look.is_quoted else len(block), may_hold_codes=look.may_hold_codes)
    end = look.last_newline if look.has_quotes else block.rfind(look.newline.encode())
    return Scan(end=end + 1, may_hold_codes=look.may_hold_codes)


def end_of_first_row(block: bytes) -> int:
    """Return where the first row ends; the length of the block where it does not.

    Args:
        block: Rows from the beginning of one.
    """
    newline = b"\n" if b"\n" in block else b"\r"
    end = block.find(newline)
    while end >= 0 and block.count(b'"', 0, end) % 2:
        end = block.find(newline, end + 1)
    return end + 1 if end >= 0 else len(block)


@final
class _Look:
    """What has been seen of a block, part by part.

    Attributes:
        newline: What ends a line.
        has_quotes: Whether there are quotes.
        is_quoted: Whether the last byte so far stands in quotes.
        last_newline: Where the last line break outside quotes stands so far; -1 without one.
        may_hold_codes: Whether a field so far begins with a zero before a digit or an x, perhaps behind a sign.
        stand_around_fields: Whether every quote so far opens or closes a field, or is doubled within one.
    """

    def __init__(self, block: bytes, delimiter: str) -> None:
        self.newline = "\n" if b"\n" in block else "\r"
        self.has_quotes = b'"' in block
        self.is_quoted, self.last_newline = False, -1
        self.may_hold_codes, self.stand_around_fields = False, True
        self._delimiter = ord(delimiter)
        self._has_returns = b"\r" in block and self.newline == "\n"
        self._has_x = b"x" in block or b"X" in block
        # Whether the byte before a part is one; what stands before the first byte counts as a border.
        self._found = np.empty(_PART_BYTES, bool)
        self._moved = np.empty(_PART_BYTES, np.uint8)
        self._last = {"border": True, "border or sign": True, "begun": True}

    def at(self, part: NDArray[np.uint8], *, start: int) -> None:
        """Look at the next bytes.

        Args:
            part: The bytes, a multiple of 64 but for the last ones.
            start: Where they stand in the block.
        """
        found = self._found[: len(part)]
        newlines = _packed(np.equal(part, ord(self.newline), out=found))
        borders = newlines | _packed(np.equal(part, self._delimiter, out=found))
        if self._has_returns:
            borders |= _packed(np.equal(part, ord("\r"), out=found))
        if not self.has_quotes:
            self._find_codes(part, borders, self._behind("border", borders))
            return
        quotes = _packed(np.equal(part, ord('"'), out=found))
        borders |= quotes
        before = self._behind("border", borders)
        self._find_codes(part, borders, before)
        inside = _odd_so_far(quotes)
        if self.is_quoted:
            np.bitwise_not(inside, out=inside)
        if len(part) % 64:  # the end of the block is a border, too
            borders[-1] |= _ONE << np.uint64(len(part) % 64)
        opening = quotes & inside
        closed = self._behind("closing quote", quotes ^ opening)
        self.stand_around_fields = not ((opening & ~before) | (closed & ~borders)).any()
        self.is_quoted = bool(inside[-1] >> _TOP)
        np.bitwise_not(inside, out=inside)
        inside &= newlines
        words = np.flatnonzero(inside)
        if words.size:
            self.last_newline = start + 64 * int(words[-1]) + int(inside[words[-1]]).bit_length() - 1

    def _find_codes(self, part: NDArray[np.uint8], borders: _Bits, before: _Bits) -> None:
        """Look for fields that begin with a zero; `before` is where the byte before is a border."""
        if self.may_hold_codes:
            return
        found, moved = self._found[: len(part)], self._moved[: len(part)]
        # Of what stands up to "-", only "!" to "*" are no sign, no blank and no border.
        signs = _packed(np.less_equal(part, ord("-"), out=found))
        np.subtract(part, ord("!"), out=moved)
        signs &= _packed(np.greater(moved, ord("*") - ord("!"), out=found))
        # Before a sign or a blank, a date as 2024-01-31 has a digit, and a number nothing.
        begun = signs & self._behind("border or sign", borders | signs)
        begun = self._behind("begun", begun) | before
        begun &= _packed(np.equal(part, ord("0"), out=found))
        np.subtract(part, ord("0"), out=moved)
        digits = _packed(np.less(moved, 10, out=found))
        if self._has_x:
            np.bitwise_or(part, 32, out=moved)
            digits |= _packed(np.equal(moved, ord("x"), out=found))
        self.may_hold_codes = bool((self._behind("zero", begun) & digits).any())

    def _behind(self, name: str, bits: _Bits) -> _Bits:
        """Return a bit for each byte, set where that of the byte before it is set, in the part before for the first."""
        moved = bits << _ONE
        moved[1:] |= bits[:-1] >> _TOP
        moved[0] |= np.uint64(self._last.get(name, False))
        self._last[name] = bool(bits[-1] >> _TOP)
        return moved


def _packed(found: NDArray[np.bool_]) -> _Bits:
    """Return a bit for each, and zeros up to the end of the last word."""
    packed = np.packbits(found, bitorder="little")
    if packed.size % 8:
        packed = np.concatenate([packed, np.zeros(-packed.size % 8, np.uint8)])
    return packed.view(np.uint64)


def _odd_so_far(bits: _Bits) -> _Bits:
    """Return a bit for each, set where the number of set bits up to and with it is odd."""
    odd = bits.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        odd ^= odd << np.uint64(shift)
    # The last bit of a word says whether the word turns all that follow.
    turned = np.bitwise_xor.accumulate(odd >> _TOP)
    odd[1:] ^= np.uint64(0) - turned[:-1]
    return odd
