"""Traffic between versions by weight, and the same version again for the same user. No TensorFlow here."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

from tf_serving.server.status import ConfigurationError

STICKY_HEADER = "x-session-id"

_ROUTE = re.compile(r"(?:([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})=)?([0-9]+:[0-9.]+(?:,[0-9]+:[0-9.]+)*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of the versions of a model.

    Attributes:
        model: Name of the model; "" for any.
        shares: Version -> weight; they need not add up to anything.
    """

    model: str
    shares: Mapping[int, float]


def parse_weights(text: str) -> Weights:
    """Return what ``1:90,2:10`` or ``MODEL=1:90,2:10`` says.

    Args:
        text: Version and weight, several with commas.

    Raises:
        ConfigurationError: The text is not of this form, a version is named twice, or no weight is above zero.
    """
    match = _ROUTE.fullmatch(text.replace(" ", ""))
    try:
        pairs = [pair.split(":") for pair in match[2].split(",")] if match else []
        shares = {int(version): float(weight) for version, weight in pairs}
    except ValueError:
        pairs = []
    if match is None or not pairs:
        raise ConfigurationError(f"--route is {text!r}: expected VERSION:WEIGHT,... such as 1:90,2:10")
    if len(shares) != len(pairs):
        raise ConfigurationError(f"--route is {text!r}: a version is named twice")
    if not sum(shares.values()) > 0 or math.isinf(sum(shares.values())):
        raise ConfigurationError(f"--route is {text!r}: expected a weight above zero")
    return Weights(match[1] or "", shares)


@final
class WeightedRouter:
    """Chooses a version by weight; with the sticky header always the same one while it is available.

    Weighted rendezvous hashing: when a version comes or goes, only the users move who have to.

    Args:
        weights: One entry a model, or one for any.
        sticky_header: Header that names the user or session.
    """

    def __init__(self, weights: Sequence[Weights], *, sticky_header: str = STICKY_HEADER) -> None:
        self._weights = {entry.model: entry.shares for entry in weights}
        if len(self._weights) != len(weights):
            raise ConfigurationError("--route is given twice for one model")
        self._header = sticky_header.lower()

    def choose(self, model: str, available: Sequence[int], headers: Mapping[str, str]) -> int | None:
        """Return a version among those available that have a weight; None where none has."""
        shares = self._weights.get(model) or self._weights.get("")
        if shares is None:
            return None
        candidates = [(version, shares[version]) for version in available if shares.get(version, 0.0) > 0]
        if not candidates:
            return None
        who = headers.get(self._header)
        if who is None:
            return random.choices([version for version, _ in candidates], [weight for _, weight in candidates])[0]
        return max(candidates, key=lambda candidate: _score(f"{model}\0{candidate[0]}\0{who}", candidate[1]))[0]


def _score(text: str, weight: float) -> float:
    digest = blake2b(text.encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    return -weight / math.log(uniform)
