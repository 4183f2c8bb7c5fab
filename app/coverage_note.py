"""What is said of intervals beside the sealed test: what share they should hold, what they held, how they were made."""

from __future__ import annotations

import numpy as np

from app.data_files import FOLD_COLUMN, read_arrow
from app.ensemble_file import read_ensemble
from app.evaluation.conformal import smallest_rows, stated_coverage
from app.evaluation.number_text import number_text
from app.evaluation.sealed_test import SealedTestReport
from app.fold_choice import fold_parts
from app.run_directory import RunDirectory, read_json
from pipelines.splits import ALWAYS_TRAINS


def coverage_note(tested: SealedTestReport, levels: tuple[float, ...], directory: RunDirectory) -> str:
    """Returns what share the intervals should hold and what they held, and by which rows they were widened.

    Args:
        tested: The sealed test.
        levels: What the quantiles are, rising.
        directory: The experiment, whose final model is chosen.
    """
    stated, measured = stated_coverage(levels), tested.estimate("coverage")
    margin, rows, judged = _margin(directory)
    verb = "widened" if margin >= 0 else "narrowed"
    told = f"Intervals should hold {stated:.0%} of the rows"
    if measured is not None:
        held = "" if measured.low is None else f" (95 % interval {measured.low:.1%} to {measured.high:.1%})"
        told += f" and held {measured.value:.1%}{held} of the sealed ones"
    few = smallest_rows(levels)
    doubt = f"; at least {few:,} would be needed to be sure" if rows < few else ""
    return f"{told}; they were {verb} by {number_text(abs(margin))} on either side, by {rows:,} {judged}{doubt}."


def _margin(directory: RunDirectory) -> tuple[float, int, str]:
    """Returns what the exported intervals are widened by, by how many rows, and what these are."""
    networks, manifest = read_ensemble(directory).networks, read_json(directory.manifest_file)["data"]
    if networks and fold_parts(manifest) > 1:
        folds = read_arrow(directory.development_file).column(FOLD_COLUMN).to_numpy()
        rows, judged = int(np.sum(folds != ALWAYS_TRAINS)), "rows that folds held out"
    else:
        rows, judged = manifest["rows"]["validation"], "validation rows"
    answers = networks[0].answers if networks else read_json(directory.best / "answers.json")
    return float(answers["interval_margin"]), rows, judged
