from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from tf_serving.server.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        one, other = bytearray(4 << 20), bytearray(3 << 20)
        del one, other
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
faults()
print(kept, faults())
"""


def _faults(environment: dict[str, str]) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives buffers back at once")
def test_large_buffers_are_taken_again_without_a_page_fault() -> None:
    kept, faults = _faults({})
    assert kept == "True"
    assert faults < 1_000  # 7 MB are 1,800 pages, twenty times


def test_what_the_environment_says_of_memory_goes_first() -> None:
    assert _faults({"MALLOC_ARENA_MAX": "2"})[0] == "False"
