"""The child of ``preflight``: loads versions and says how it went (imports TensorFlow).

Jobs come as JSON lines, on standard input where the child is a process of its own; answers leave as JSON lines.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import IO


def main() -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed does not mix with the answers
    if "--at-once" not in sys.argv:
        os.nice(5)  # requests go first
    from tf_serving.server.quiet import import_tensorflow

    import_tensorflow()
    answer_jobs(sys.stdin, answers)


def answer_jobs(jobs: IO[str], answers: IO[str]) -> None:
    """Answer jobs until there are no more.

    Args:
        jobs: A JSON object a line: ``directory``, ``name`` and ``options`` of ``LoadOptions``.
        answers: Takes a JSON object a line: ``bytes`` of memory, or ``code`` and ``message``.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tf_serving.server.loading import LoadOptions, load_model
    from tf_serving.server.metrics import Metrics
    from tf_serving.server.status import Code, ServingError

    for line in jobs:
        job = json.loads(line)
        before = _resident_bytes()
        answer: dict[str, object]
        try:
            options = LoadOptions(**{**job["options"], "tags": tuple(job["options"]["tags"])})
            model = load_model(
                Path(job["directory"]), name=job["name"], number=1, options=options, metrics=Metrics(), is_trial=True
            )
            answer = {"bytes": max(0, _resident_bytes() - before)}
            model.close()
        except ServingError as error:
            answer = {"code": int(error.code), "message": error.message}
        except Exception as error:
            answer = {"code": int(Code.INTERNAL), "message": f"{type(error).__name__}: {error}"[:2000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        os.nice(max(0, 5 - os.nice(0)))  # from now on, too


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
