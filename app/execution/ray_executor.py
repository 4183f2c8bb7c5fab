"""Workers on a Ray cluster: one actor each, in a placement group that holds their cores and GPUs.

The run directory must be on a file system that all machines of the cluster share: workers read the rows there and
keep the states of trials there, or behind a URL (`app.state_store`). The journal is written by the coordinator alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from app.errors import ConfigError, WorkerError
from app.execution.lease import Lease
from app.execution.local_executor import ROOT
from app.execution.machine import num_cores
from app.execution.messages import Reply, Request
from app.execution.worker_handle import WorkerHandle
from app.execution.worker_pool import WorkerPool
from app.training.devices import Seat

LISTEN_SECONDS = 10.0
ANSWER_SECONDS = 10.0
PLACEMENT_SECONDS = 60.0


@final
class RayExecutor(WorkerPool):
    """Runs trials in Ray actors.

    Args:
        num_workers: Number of actors, at least 1.
        address: Of a running cluster, such as ``auto`` or ``ray://head:10001``; empty starts Ray on this machine.
        worker_memory: Bytes past which a worker is replaced; None for no limit.
        lease: When a silent worker counts as hung.

    Raises:
        ConfigError: Ray is not installed.
        WorkerError: There is no cluster at `address`, or not enough of it for so many workers.
    """

    def __init__(
        self,
        *,
        num_workers: int = 1,
        address: str = "",
        worker_memory: int | None = None,
        lease: Lease | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: expected at least 1")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("Ray is not installed: expected `pip install 'tamiz[ray]'` for --executor ray") from error
        self._ray: Any = ray
        self._group: Any = None
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, address, num_workers=num_workers)
        try:
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._share = share_of(machines, num_workers=num_workers)
            self._group = _reserve(ray, self._share, num_workers=num_workers)
            super().__init__(num_workers=num_workers, worker_memory=worker_memory, usual_memory=None, lease=lease)
        except BaseException:
            self._disconnect()
            raise

    def close(self) -> None:
        """Ends all workers, and Ray if it was started here; harmless when called twice."""
        if self._ray.is_initialized():
            super().close()
            self._disconnect()

    def _disconnect(self) -> None:
        if self._group is not None:
            with contextlib.suppress(Exception):
                self._ray.util.remove_placement_group(self._group)
            self._group = None
        if self._started:
            self._ray.shutdown()

    def _launch(self, number: int) -> WorkerHandle:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = PlacementGroupSchedulingStrategy(placement_group=self._group, placement_group_bundle_index=number)
        options = {
            "num_cpus": self._share.cores,
            "num_gpus": self._share.gpus,
            "scheduling_strategy": place,
            # One thread listens for the coordinator, one takes its messages.
            "max_concurrency": 2,
            "max_restarts": 0,
        }
        actor = self._ray.remote(_actor_class()).options(**options).remote(str(ROOT), str(Path.cwd()))
        return _Actor(self._ray, actor, number=number)

    def _wait(self, handles: Collection[WorkerHandle], timeout: float) -> None:
        listening = [handle.listening for handle in handles if isinstance(handle, _Actor) and not handle.is_heard]
        if len(listening) == len(handles):
            self._ray.wait(listening, num_returns=1, timeout=timeout)

    def _seat(self, number: int) -> Seat:
        # Ray shows every actor its own devices only.
        del number
        return Seat(threads=self._share.cores)


def _actor_class() -> type:
    """Returns the class of the actors; a local one, since Ray sends those whole.

    Others it sends by name, which asks for `app` on the path of Ray's processes before they can be told of it.
    """

    class TamizWorker:
        """A worker of tamiz, as Ray's own tools list it."""

        def __init__(self, root: str, folder: str) -> None:
            import os
            import sys

            if os.path.isdir(os.path.join(root, "app")):
                sys.path.insert(0, root)
            from app.execution.ray_worker import RayWorker

            self._worker = RayWorker(folder)

        def place(self) -> tuple[int, str]:
            return self._worker.place()

        def tell(self, request: Any) -> None:
            self._worker.tell(request)

        def listen(self, seconds: float) -> list[Any]:
            return self._worker.listen(seconds)

    return TamizWorker


@final
class _Actor(WorkerHandle):
    """One actor, and the call of it that is always open to hear what it says."""

    def __init__(self, ray: Any, actor: Any, *, number: int) -> None:
        self._ray = ray
        self._actor = actor
        self._number = number
        self._place_asked = actor.place.remote()
        self._place: tuple[int, str] | None = None
        self._heard: list[Reply] = []
        self._cause = ""
        self.listening = actor.listen.remote(LISTEN_SECONDS)

    @property
    def name(self) -> str:
        """What people call it."""
        place = self._find_place()
        where = f" (process {place[0]} on {place[1]})" if place else ""
        return f"ray worker {self._number}{where}"

    @property
    def is_alive(self) -> bool:
        """Whether the actor runs; asked of the actor itself, since Ray tells of a death only some time after it."""
        self._listen()
        if not self._cause:
            answer = self._actor.place.remote()
            try:
                self._ray.get(answer, timeout=ANSWER_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                pass  # it hangs: leases are for that
            except self._ray.exceptions.RayError as error:
                self._cause = _cause(error)
        return not self._cause

    @property
    def is_heard(self) -> bool:
        """Whether there is something to receive already."""
        return bool(self._heard or self._cause)

    def send(self, request: Request) -> None:
        """Sends a request; a dead actor is noticed when its answer is awaited."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._actor.tell.remote(request)

    def receive(self) -> list[Reply]:
        """Returns what has arrived, without waiting.

        Raises:
            EOFError: The actor has ended, and everything it said was returned before.
        """
        self._listen()
        heard, self._heard = self._heard, []
        if not heard and self._cause:
            raise EOFError
        return heard

    def cause_of_death(self) -> str:
        """Returns one line on why the actor ended."""
        return f"the worker was lost: {self._cause or 'Ray tells no reason'}"

    def ask_where(self) -> None:
        """Does nothing: the process is on another machine, and Ray's own tools (`ray stack`) ask it."""

    def kill(self) -> None:
        """Ends the actor, even when it hangs; harmless when called twice."""
        # Ray ends a process that does not answer with SIGKILL after some seconds; its successor waits for the cores.
        self._ray.kill(self._actor, no_restart=True)

    def _listen(self) -> None:
        while not self._cause and self._ray.wait([self.listening], num_returns=1, timeout=0)[0]:
            try:
                self._heard += self._ray.get(self.listening)
            except self._ray.exceptions.RayError as error:
                self._cause = _cause(error)
                return
            self.listening = self._actor.listen.remote(LISTEN_SECONDS)

    def _find_place(self) -> tuple[int, str] | None:
        if self._place is None and self._ray.wait([self._place_asked], num_returns=1, timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._place = self._ray.get(self._place_asked)
        return self._place


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker has of a cluster.

    Attributes:
        cores: Whole cores.
        gpus: GPUs; a fraction where workers must share.
    """

    cores: int
    gpus: float


def share_of(machines: Sequence[Mapping[str, float]], *, num_workers: int) -> Share:
    """Returns the most that each of `num_workers` can have of a cluster.

    Args:
        machines: The resources of each machine, as Ray names them: ``CPU`` and ``GPU``.
        num_workers: At least 1.

    Raises:
        WorkerError: There are fewer cores than workers.
    """
    # Beside machines with GPUs, those without would only slow the search down.
    machines = [machine for machine in machines if machine.get("GPU")] or machines
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    each = _largest_share(cores, num_workers)
    if not each:
        raise WorkerError(
            f"the Ray cluster has {sum(cores)} cores: expected at most so many workers, not {num_workers}"
        )
    if 0 < sum(gpus) < num_workers:
        return Share(cores=each, gpus=1 / math.ceil(num_workers / sum(gpus)))
    return Share(cores=each, gpus=_largest_share(gpus, num_workers))


def _largest_share(amounts: Sequence[int], num_workers: int) -> int:
    """Returns the largest share that fits `num_workers` times into `amounts`; 0 if not even 1 does."""
    for share in range(max(amounts, default=0), 0, -1):
        if sum(amount // share for amount in amounts) >= num_workers:
            return share
    return 0


def _connect(ray: Any, address: str, *, num_workers: int) -> None:
    """Joins the cluster at `address`, or starts one on this machine."""
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if not address:
        # More workers than cores are slow but may be asked for; Ray would never start the last ones.
        # Its workers are what this command is for: by default Ray lets every other program of the machine go first.
        config = {"worker_niceness": 0}
        ray.init(num_cpus=max(num_workers, num_cores()), include_dashboard=False, _system_config=config, **quiet)
        return
    try:
        with warnings.catch_warnings():
            # Of a head that does not answer Ray warns with a line of its source, and then raises.
            warnings.simplefilter("ignore")
            ray.init(address=address, **quiet)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, and gRPC's own
        reason = " ".join(str(error).split())[:200]
        raise WorkerError(
            f"there is no Ray cluster at {address!r} ({type(error).__name__}: {reason}): expected an address such as "
            "auto or ray://head:10001, or none to start Ray on this machine"
        ) from error


def _reserve(ray: Any, share: Share, *, num_workers: int) -> Any:
    """Returns a placement group with the share of every worker.

    Raises:
        WorkerError: Others hold too much of the cluster.
    """
    bundle: dict[str, float] = {"CPU": share.cores}
    if share.gpus:
        bundle["GPU"] = share.gpus
    group = ray.util.placement_group([bundle] * num_workers, strategy="SPREAD")
    if not group.wait(timeout_seconds=PLACEMENT_SECONDS):
        ray.util.remove_placement_group(group)
        raise WorkerError(
            f"the Ray cluster had no room for {num_workers} workers of {share.cores} cores and {share.gpus:g} GPUs "
            f"within {PLACEMENT_SECONDS:.0f} s: expected fewer workers, or wait until others end theirs"
        )
    return group


def _cause(error: Exception) -> str:
    """Returns what Ray says of an actor's end in one line."""
    text = " ".join(str(error).split())
    for before in ("exit detail: ", "The actor is dead because "):
        text = text.partition(before)[2] or text
    return text if len(text) <= 200 else text[:199] + "…"
