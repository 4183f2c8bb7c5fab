"""Listening sockets, and who has taken a port. No TensorFlow here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tf_serving.server.status import ConfigurationError

_LISTENING = "0A"


def bind(host: str, port: int, *, shared: bool, purpose: str) -> socket.socket:
    """Return a bound socket that does not listen yet: connections are refused until the models are there.

    Args:
        host: Address to bind.
        port: 1 to 65535.
        shared: Whether other processes of this server bind it too.
        purpose: "REST" or "gRPC", for the message.

    Raises:
        ConfigurationError: It is taken, by whom where that can be seen, or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"Cannot listen for {purpose} on {host}:{port}: {error.strerror}") from error
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        owner = port_owner(port)
        by = f" (taken by {owner})" if owner else ""
        raise ConfigurationError(f"Cannot listen for {purpose} on {host}:{port}: {error.strerror}{by}") from error
    return bound


def port_owner(port: int) -> str | None:
    """Return the name and id of the process that listens on a port, where the system shows it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        if inodes.intersection(_links(process / "fd")):
            try:
                name = (process / "comm").read_text(encoding="utf-8").strip()
            except OSError:
                return f"process {process.name}"
            return f"{name}, process {process.name}"
    return None


def _links(folder: Path) -> Iterator[str]:
    """Return where the descriptors of a process lead, but for those that are closed meanwhile."""
    try:
        links = list(folder.iterdir())
    except OSError:
        return  # gone, or another user's
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue
