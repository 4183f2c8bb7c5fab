"""What can go wrong between a trained model and a served one."""

from __future__ import annotations


class ExportError(RuntimeError):
    """The model could not be written or published; the message says why and what to do."""


class VerificationError(ExportError):
    """What was written is not what was meant: a changed file or a different answer."""
