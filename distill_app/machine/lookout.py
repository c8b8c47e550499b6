"""Who watches over the ranks of a run, from a thread of each: one that fails, dies or hangs is the end of all.

The ranks tell each other by the store of torch's rendezvous: a beat every second, how far they are, and the first
cause of an end. So the cause is what the run's status says, and not that a connection was closed.
"""

import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from distill_app.errors import DistillError, RankFailed
from distill_app.world import World

BEAT = 1.0  # seconds
SILENT = 15.0  # seconds without a beat after which a rank is dead
STUCK = 15.0  # seconds in which no rank takes a step, though all have their data; or ten times the longest step
GRACE = 6.0  # seconds in which a rank may end by itself once the cause of the end is known
WAITING, STEPPING, ELSEWHERE = "waits for data", "takes a step", "does something else"
# What the innermost frame of a rank is in while it waits for others.
_COLLECTIVE = re.compile(r"/torch/(distributed|autograd|nn/parallel)/|/torch/_tensor\.py|/distill_app/world\.py")
# What torch raises where another rank is gone and it is no DistError.
_OF_PEERS = re.compile(r"\bgloo\b|\bnccl\b|connection (closed|reset) by peer", re.I)


class Lookout:
    """The watch of one rank.

    Args:
        world: Its place.
        host: Where the store is.
        port: Where the store is.
        attempt: What keys of the store begin with.

    Attributes:
        last_words: Called with the cause before the process is ended because it does not end by itself.
    """

    def __init__(self, world: World, host: str, port: int, *, attempt: str = "attempt_0"):
        self.world = world
        self.last_words: Callable[[str], None] = lambda cause: None
        self._address, self._attempt = (host, port), attempt
        self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)
        self._closed = threading.Event()
        self._main = threading.main_thread().ident
        self._now = (0, ELSEWHERE)
        self._store = self._own = self._connected()
        about = {"host": socket.gethostname(), "pid": os.getpid()}
        self._store.set(f"about/{world.rank}", json.dumps(about))
        # Of the ranks that this one looks at: what each said last, and when that was new.
        self._heard: dict[int, tuple[str, float]] = {}
        self._progress: tuple[Any, float] = (None, time.monotonic())
        self._longest = 0.0

    def _connected(self) -> Any:
        store = dist.TCPStore(*self._address, None, False, timedelta(seconds=30), wait_for_workers=False)
        return dist.PrefixStore(f"distill/{self._attempt}", store)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def close(self) -> None:
        """Ends the watch; the others are told that this rank has left in peace."""
        with suppress(Exception):
            self._store.set(f"left/{self.world.rank}", "1")
        self._closed.set()
        self._thread.join(timeout=5)

    def at(self, what: str) -> None:
        """Notes that the rank has come further, and what it does now."""
        self._now = (self._now[0] + 1, what)

    def cause_of(self, error: Exception) -> RankFailed | None:
        """Why a rank really failed; None where its own error is the cause, of which the others are told then."""
        text = " ".join(str(error).split())
        of_torch = isinstance(error, RuntimeError) and not isinstance(error, DistillError)
        if not (of_torch and (isinstance(error, dist.DistError) or _OF_PEERS.search(text))):
            self._tell(f"rank {self.world.rank}: {type(error).__name__}: {text[:800]}")
            return None
        if "timed out" in text.lower() or "timeout" in text.lower():
            with suppress(Exception):
                self._store.set(f"waited/{self.world.rank}", "1")
                time.sleep(2 * BEAT)
                if not self._store.check(["cause"]):
                    self._tell(self._hung())
        cause = self._told(patience=4 * BEAT) or self._dead(patience=4 * BEAT)
        if cause is None:
            cause = f"a rank could not reach the others: {text[:300]}"
            self._tell(cause)
        return RankFailed(cause)

    def _tell(self, cause: str) -> None:
        """Tells the others the cause of the end; the first one counts."""
        with suppress(Exception):
            self._store.compare_set("cause", "", cause)

    def _told(self, *, patience: float = 0.0, by: Any = None) -> str | None:
        until, store = time.monotonic() + patience, by or self._store
        while True:
            try:
                if store.check(["cause"]):
                    return str(store.get("cause").decode())
            except Exception:
                return None if self.world.main else "rank 0 is gone; its own messages say why"
            if time.monotonic() >= until:
                return None
            time.sleep(0.2)

    def _dead(self, *, patience: float) -> str | None:
        """The ranks that have stopped to beat, in words."""
        with suppress(Exception):
            before = self._beats()
            time.sleep(patience)
            after = self._beats()
            others = [rank for rank in range(self.world.size) if rank != self.world.rank]
            silent = [rank for rank in others if after.get(rank) == before.get(rank)]
            if silent:
                cause = f"{self._named(silent)} died without a word; killed, which usually means out of memory"
                self._tell(cause)
                return self._told() or cause
        return None

    def _beats(self) -> dict[int, str]:
        keys = {rank: f"beat/{rank}" for rank in range(self.world.size)}
        return {rank: self._store.get(key).decode() for rank, key in keys.items() if self._store.check([key])}

    def _named(self, ranks: list[int]) -> str:
        names = []
        for rank in ranks:
            about: dict[str, Any] = {}
            with suppress(Exception):
                about = json.loads(self._store.get(f"about/{rank}"))
            names.append(f"rank {rank} (process {about.get('pid')} on {about.get('host')})")
        return ", ".join(names)

    def _hung(self) -> str:
        """Which ranks do not come to where the others wait, and where they are instead."""
        self._store.set("stacks", "1")
        self._store.set(f"stack/{self.world.rank}", self._stack())  # this thread may be the one that would do it
        time.sleep(3 * BEAT)
        places = {}
        for rank in range(self.world.size):
            if self._store.check([f"stack/{rank}"]):
                places[rank] = self._store.get(f"stack/{rank}").decode()
        waited = {rank for rank in range(self.world.size) if self._store.check([f"waited/{rank}"])}
        late = [rank for rank in range(self.world.size) if rank not in waited]
        late = [rank for rank in late if not _COLLECTIVE.search(places.get(rank, ""))] or late or [0]
        where = "; ".join(f"rank {rank} is in {places[rank]}" for rank in late if rank in places)
        return f"{self._named(late)} hangs: the others wait for it{f' ({where})' if where else ''}"

    def _watch(self) -> None:
        beat, told_at, shown = 0, 0.0, False
        self._own = self._connected_again()  # a store takes one call after the other
        while not self._closed.is_set():
            beat += 1
            try:
                self._own.set(f"beat/{self.world.rank}", f"{beat} {self._now[0]} {self._now[1]}")
                if not shown and self._own.check(["stacks"]):
                    self._own.set(f"stack/{self.world.rank}", self._stack())
                    shown = True
                cause = self._told(by=self._own)
                if cause is None and self.world.main:
                    self._look_at_others()
                elif cause is None and self.world.rank == 1:
                    self._look_at_first()
            except Exception as error:
                cause = f"the ranks have lost each other: {error}"
            if cause is None:
                self._closed.wait(BEAT)
                continue
            told_at = told_at or time.monotonic()
            self._closed.wait(BEAT / 4)
            # The first rank writes down the cause, and takes the store along.
            if time.monotonic() - told_at > (GRACE if self.world.main else 1.5 * GRACE):
                with suppress(Exception):
                    self.last_words(cause)
                os.write(2, f"error: {cause}\n".encode())
                os._exit(1)

    def _connected_again(self) -> Any:
        with suppress(Exception):
            return self._connected()
        return self._store

    def _look_at_others(self) -> None:
        """The first rank looks for those that are dead, and whether all stand still."""
        now, beats = time.monotonic(), self._beats()
        if silent := self._silent(beats, now):
            self._tell(f"{self._named(silent)} died without a word, or its machine is gone")
            return
        progress = {rank: said.split(" ", 2)[1:] for rank, said in beats.items()}
        if progress != self._progress[0]:
            if self._progress[0] and all(said[1] == STEPPING for said in self._progress[0].values()):
                self._longest = max(self._longest, now - self._progress[1])
            self._progress = progress, now
            return
        stands = all(said[1] == STEPPING for said in progress.values())
        if stands and now - self._progress[1] > max(STUCK, 10 * self._longest):
            self._tell(self._hung())

    def _look_at_first(self) -> None:
        """The second rank looks whether the first one lives: a process that was stopped does not say so itself."""
        beats = {rank: said for rank, said in self._beats().items() if rank == 0}
        if silent := self._silent(beats, time.monotonic()):
            self._tell(f"{self._named(silent)} does not answer; stopped, or its machine is gone")

    def _silent(self, beats: Mapping[int, str], now: float) -> list[int]:
        """The ranks without a beat for too long."""
        for rank, said in beats.items():
            if self._heard.get(rank, ("", 0.0))[0] != said:
                self._heard[rank] = said, now
        gone = {rank for rank in beats if self._own.check([f"left/{rank}"])}
        return [rank for rank, (_, at) in self._heard.items() if now - at > SILENT and rank not in gone]

    def _stack(self) -> str:
        """Where the main thread is: its innermost frames outside of libraries and the innermost of all."""
        frame = sys._current_frames().get(self._main or 0)
        if frame is None:
            return "nowhere"
        stack = traceback.extract_stack(frame)
        last = stack[-1]
        if _COLLECTIVE.search(last.filename):
            return f"{last.filename}:{last.lineno} {last.name}"
        own = next((each for each in reversed(stack) if "site-packages" not in each.filename), last)
        inner = "" if own is last else f", in {last.name} of {last.filename}:{last.lineno}"
        return f"{own.name} of {own.filename}:{own.lineno}{inner}"


class NoLookout:
    """In the place of a lookout where a process is alone: nobody watches, and every error is its own."""

    last_words: Callable[[str], None]

    def at(self, what: str) -> None:
        """Nothing."""

    def cause_of(self, error: Exception) -> None:
        """None: the error itself is the cause."""
