"""Addresses of data and what messages and files may show of them: no password, no token. Imports nothing heavy."""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"(://)[^/\s]*@")
_QUERY = re.compile(r"\?.*$", re.DOTALL)
# A password may hold an @ itself: the last one ends it.
_PASSWORD = re.compile(r"(://[^:/@]*):(.*)@(?=[^@]*$)", re.DOTALL)
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*)=([^&#]*)", re.IGNORECASE)
NAMED_KINDS = ("tfds", "python")
"""First words of places that are neither paths nor URLs."""


def is_url(place: str) -> bool:
    """Return whether a place is a URL.

    Args:
        place: What the user gave.
    """
    return bool(_URL.match(place))


def is_path(place: str) -> bool:
    """Return whether a place is a path on this machine.

    Args:
        place: What the user gave.
    """
    return not is_url(place) and place.partition(":")[0] not in NAMED_KINDS


def shown_place(place: str) -> str:
    """Return a place as messages and files may show it: a URL without user, password and query, which may be a token.

    Args:
        place: A path or URL.
    """
    return _QUERY.sub("", _USER.sub(r"\1", place)) if is_url(place) else place


def shown_database(url: str) -> str:
    """Return the URL of a database as messages and files may show it: ``***`` for the password.

    Args:
        url: SQLAlchemy's URL of a database.
    """
    return _SECRET_OPTION.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", url))


def without_secrets(text: str, url: str) -> str:
    """Return what a driver says without the secrets of the URL that it was given.

    Args:
        text: A message.
        url: SQLAlchemy's URL of a database.
    """
    text = text.replace(url, shown_database(url))
    found = _PASSWORD.search(url)
    written = [found[2]] if found else []
    written += [option[2] for option in _SECRET_OPTION.finditer(url)]
    for secret in filter(None, [*written, *map(unquote, written)]):
        text = text.replace(secret, "***")
    return text
