"""Joining the processes of a run: those of torchrun, of `launcher=ddp`, or the tasks of a SLURM job."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from distill_app.config.schema import RuntimeConf
from distill_app.errors import LaunchError
from distill_app.machine.lookout import Lookout, NoLookout
from distill_app.runs.files import write_text
from distill_app.world import ALONE, World

JOINING = 300  # seconds in which all ranks have to come


class _Place(NamedTuple):
    """What the surroundings say of this process."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    meeting: Path | None = None  # where the first rank says how it is reached; None: MASTER_ADDR does


_joined: tuple[World, Lookout] | None = None


def processes_here() -> int:
    """How many processes this one was started together with; 1 where nothing says so."""
    place = _place()
    return 1 if place is None else place.size


def join(runtime: RuntimeConf) -> World:
    """The world that this process was started in, joined once; alone where it was started by itself.

    Raises:
        LaunchError: The others do not come.
    """
    global _joined
    if _joined is not None:
        return _joined[0]
    place = _place()
    if place is None or place.size == 1:
        return ALONE
    world = World(place.rank, place.size, place.local_rank, place.local_size)
    # For the records of the run, and for libraries that ask.
    for name, value in (("RANK", place.rank), ("WORLD_SIZE", place.size), ("LOCAL_RANK", place.local_rank)):
        os.environ.setdefault(name, str(value))
    wanted = runtime.device.partition(":")[0]
    on_gpu = torch.cuda.is_available() and wanted in ("auto", "cuda")
    if on_gpu:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    try:
        store, address = _store(place)
        store = dist.PrefixStore(_attempt(), store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=runtime.rank_timeout_s),
        )
    except (RuntimeError, OSError) as error:  # torch's own are RuntimeErrors
        raise LaunchError(
            f"rank {place.rank} of {place.size}: the processes of this run did not come together: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}"
        ) from error
    if place.meeting is not None and world.main:
        place.meeting.unlink(missing_ok=True)  # all have come; a job that is queued again meets elsewhere
    lookout = Lookout(world, *address, attempt=_attempt())
    lookout.start()
    _joined = world, lookout
    return world


def leave() -> None:
    """Ends what `join` began."""
    global _joined
    if _joined is not None:
        _joined[1].close()
        _joined = None
        with suppress(RuntimeError, ValueError):
            dist.destroy_process_group()


def lookout() -> Lookout | NoLookout:
    """Who watches over the ranks; where this process is alone, nobody."""
    return NoLookout() if _joined is None else _joined[1]


@contextmanager
def causes_told(*, last_words: Callable[[str], None]) -> Iterator[None]:
    """Inside, a rank that fails tells the others why, and one that fails for that reason says so.

    Args:
        last_words: Is told the cause of the end where this process does not come to its own end.

    Raises:
        RankFailed: Another rank has failed, or does not answer.
    """
    watch = lookout()
    watch.last_words = last_words
    try:
        yield
    except Exception as error:
        if (cause := watch.cause_of(error)) is None:
            raise
        raise cause from error


def _place() -> _Place | None:
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank, local_size = environment.get("LOCAL_RANK", rank), environment.get("LOCAL_WORLD_SIZE", size)
        return _Place(rank, size, int(local_rank), int(local_size))
    if "SUBMITIT_EXECUTOR" in environment and "SUBMITIT_FOLDER" in environment:
        import submitit

        job = submitit.JobEnvironment()
        again = environment.get("SLURM_RESTART_COUNT", "0")  # a job that is queued again may have other nodes
        meeting = Path(environment["SUBMITIT_FOLDER"]) / f"{job.job_id}_{again}_meeting"
        local_size = max(1, job.num_tasks // job.num_nodes)
        return _Place(job.global_rank, job.num_tasks, job.local_rank, local_size, meeting)
    return None


def _attempt() -> str:
    """Which start of the same processes this is: torchrun's store outlives those that failed, and why they did."""
    return f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def _store(place: _Place) -> tuple[Any, tuple[str, int]]:
    """The store of torch's rendezvous, and how a second connection to it is made."""
    patience = timedelta(seconds=JOINING)
    if place.meeting is None:
        host, port = os.environ.get("MASTER_ADDR", "localhost"), int(os.environ.get("MASTER_PORT", "29500"))
        ours = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return dist.TCPStore(host, port, place.size, ours, patience, wait_for_workers=False), (host, port)
    if place.rank == 0:
        host = socket.gethostname()
        store = dist.TCPStore(host, 0, place.size, True, patience, wait_for_workers=False)
        write_text(place.meeting, f"{host}:{store.port}")
        return store, (host, store.port)
    host, port = _met(place.meeting)
    return dist.TCPStore(host, port, place.size, False, patience, wait_for_workers=False), (host, port)


def _met(meeting: Path) -> tuple[str, int]:
    until = time.monotonic() + JOINING
    while time.monotonic() < until:
        with suppress(OSError, ValueError):
            host, _, port = meeting.read_text().partition(":")
            return host, int(port)
        time.sleep(0.2)
    raise LaunchError(f"the first rank did not say within {JOINING} s in {meeting} how it is reached")
