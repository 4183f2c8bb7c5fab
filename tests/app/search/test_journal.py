from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.search.journal import Journal, JournalError, read

HEADER = {"event": "journal", "version": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_records_come_back_in_order_across_openings(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append({"event": "a", "text": "ñ\nnew line"}, durable=True)
    with Journal.open(path) as journal:
        journal.append({"event": "b", "list": [1, 2.5, None, True]})
    expected = [HEADER, {"event": "a", "text": "ñ\nnew line"}, {"event": "b", "list": [1, 2.5, None, True]}]
    assert read(path) == expected


def test_numbers_that_are_not_finite_are_written_as_null(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append({"loss": math.nan, "curve": [1.0, math.inf], "deep": {"x": -math.inf}})
    assert b"NaN" not in path.read_bytes()
    assert read(path)[1] == {"loss": None, "curve": [1.0, None], "deep": {"x": None}}


def test_any_torn_tail_is_ignored_and_cut_off(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append({"event": "kept"})
    whole = path.read_bytes()
    last = b'{"event":"torn","loss":0.125}\n'
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        assert read(path) == [HEADER, {"event": "kept"}]
        with Journal.open(path) as journal:
            journal.append({"event": "next"})
        assert read(path) == [HEADER, {"event": "kept"}, {"event": "next"}]


@pytest.mark.parametrize("tail", [b"\x00\x00\x00\n", b"{broken}\n", b"\xff\xfe", b"[1]\n"])
def test_last_line_of_rubbish_counts_as_torn(path: Path, tail: bytes) -> None:
    with Journal.open(path):
        pass
    path.write_bytes(path.read_bytes() + tail)
    assert read(path) == [HEADER]
    with Journal.open(path):
        pass
    assert path.read_bytes() == json.dumps(HEADER, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("content", [b"", b'{"event":"jour'])
def test_file_killed_before_its_first_record_starts_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read(path) == []
    with Journal.open(path):
        pass
    assert read(path) == [HEADER]


def test_broken_line_in_the_middle_is_an_error_with_its_number(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append({"event": "a"})
    path.write_bytes(path.read_bytes() + b'{"event":\n{"event":"b"}\n')
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"Line 3 of .*journal\.jsonl is broken: expected a JSON object"):
        read(path)
    with pytest.raises(JournalError, match="Line 3"):
        Journal.open(path)
    assert path.read_bytes() == before


def test_newer_version_is_refused(path: Path) -> None:
    path.write_text('{"event":"journal","version":2}\n')
    with pytest.raises(JournalError, match="has version 2; this tamiz reads versions up to 1"):
        Journal.open(path)


def test_foreign_file_is_refused(path: Path) -> None:
    path.write_text('{"hello":"world"}\n{"more":1}\n')
    with pytest.raises(JournalError, match="is not a journal of tamiz"):
        read(path)


def test_full_disk_leaves_a_readable_journal(path: Path) -> None:
    # A file size limit is the nearest thing to a full disk that a test can have: the write stops half-way.
    with Journal.open(path) as journal:
        journal.append({"event": "a"})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            with pytest.raises(OSError) as caught:
                journal.append({"event": "long", "text": "x" * 100}, durable=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.errno == errno.EFBIG
        journal.append({"event": "b"})
    assert read(path) == [HEADER, {"event": "a"}, {"event": "b"}]


def test_record_survives_the_kill_of_its_process(path: Path) -> None:
    program = (
        "import os, signal\n"
        "from app.search.journal import Journal\n"
        f"journal = Journal.open({str(path)!r})\n"
        "journal.append({'event': 'last'})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert read(path) == [HEADER, {"event": "last"}]
