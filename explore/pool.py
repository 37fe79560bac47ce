# SPDX-License-Identifier: Apache-2.0
"""Who measures: processes of this machine, or the workers of a Dask cluster."""

__all__ = ["Dask", "Local", "Stopped", "executor", "processes"]

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from explore.point import Point
from explore.worker import work

Row = dict[str, Any]
#: Memory that a synthesis, a simulation's build or PyTorch takes, with room.
BYTES = 2 << 30
#: Command of a worker.
WORKER = [sys.executable, "-m", "explore.worker"]
#: Tries of a point whose worker is lost with its machine.
TRIES = 3
#: Seconds that a scheduler has to answer.
PATIENCE = 10


class Stopped(OSError):
    """The exploration can't go on; what was measured is kept."""


class Executor(Protocol):
    """Measures points, in any order."""

    def run(self, points: Sequence[Point]) -> Iterator[tuple[Point, Row]]:
        """Yield a row for every point, as it comes."""


def processes() -> int:
    """Return how many processes this machine can take: one a core, as far as memory goes."""
    cores = len(os.sched_getaffinity(0))
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return cores
    return max(1, min(cores, pages // BYTES))


def _failed(point: Point, reason: str) -> Row:
    """Row of a point that left nothing behind."""
    return {"status": "failed", "reason": reason, "point": point.id, "space": point.space,
            "study": point.study, "design": point.design, "network": point.network,
            **point.options, **{f"config.{k}": v for k, v in point.values.items() if k != "name"},
            "task": json.dumps(point.to_dict()), "lasting": False}


def _checked(point: Point, answer: Row) -> Row:
    if "fatal" in answer:
        raise Stopped(f"{answer['fatal']}; what was measured is kept: run the same command again")
    return _failed(point, answer["crash"]) if "crash" in answer else answer


class _Process:
    """One worker process, started when it is first needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False
        self._lock = threading.Lock()

    def ask(self, task: Row) -> Row:
        """Have a task done; a worker that dies is a crash of the task, and is replaced."""
        with self._lock:
            if self.stopped:
                return {"crash": "stopped"}
            if self.process is None:
                # A session of its own, so that its tools can be ended with it.
                self.process = subprocess.Popen(
                    WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    start_new_session=True,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            if line := self.process.stdout.readline():
                return dict(json.loads(line))
        except (OSError, ValueError):
            pass
        code = self._ended(self.process)
        self.process = None
        why = f"killed by signal {-code} (out of memory?)" if code < 0 else f"left with {code}"
        return {"crash": f"the process was {why}"}

    def stop(self) -> None:
        """End the process and its tools; whoever waits for an answer gets none."""
        with self._lock:
            self.stopped = True
            if self.process and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop, and leave nothing open."""
        self.stop()
        if self.process:
            self._ended(self.process)

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> int:
        """Wait for the end of a process, close its pipes, and return its exit code."""
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):   # what it was never sent
                    pipe.close()
        return code


class Local:
    """Processes of this machine.

    Parameters
    ----------
    jobs
        How many.
    folder
        The store.
    retry
        Whether kept failures are tried again.
    """

    def __init__(self, jobs: int, folder: Path, *, retry: bool = False) -> None:
        self.jobs, self.folder, self.retry = jobs, folder, retry

    def run(self, points: Sequence[Point]) -> Iterator[tuple[Point, Row]]:
        """Yield a row for every point, as it comes."""
        waiting: queue.SimpleQueue[Point] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[Point, Row]] = queue.SimpleQueue()
        for point in points:
            waiting.put(point)
        workers = [_Process() for _ in range(min(self.jobs, len(points)))]

        def serve(worker: _Process) -> None:
            while not worker.stopped:
                try:
                    point = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put((point, worker.ask({"point": point.to_dict(), "retry": self.retry,
                                             "folder": str(self.folder)})))
            worker.close()

        threads = [threading.Thread(target=serve, args=(worker,), daemon=True)
                   for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for _ in points:
                point, answer = done.get()
                yield point, _checked(point, answer)
        finally:
            for worker in workers:
                worker.stop()
            for thread in threads:
                thread.join()


def _remote(task: Row) -> Row:
    """Measure on a worker of the cluster, with a store where the worker runs."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return work(task)


class Dask:
    """Workers of a Dask cluster, which must have ViTForge with the same extras installed.

    A point whose worker is lost is measured by another one. The store's folder need not be shared:
    the rows come back, and each worker keeps its own store below the folder of that name.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the scheduler.
    """

    def __init__(self, address: str, folder: Path, *, retry: bool = False) -> None:
        self.address, self.folder, self.retry = address, folder, retry

    def run(self, points: Sequence[Point]) -> Iterator[tuple[Point, Row]]:
        """Yield a row for every point, as it comes."""
        from distributed import Client, as_completed
        try:
            client = Client(f"tcp://{self.address}", timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Stopped(f"no Dask scheduler at {self.address}: {error}") from None
        with client:
            tasks = {point.id: point for point in points}
            futures = {client.submit(_remote, {"point": point.to_dict(), "retry": self.retry,
                                               "folder": str(self.folder)},
                                     pure=False, retries=TRIES): point for point in tasks.values()}
            for future in as_completed(list(futures), loop=client.loop):
                point = futures[future]
                lost = future.exception()
                answer = {"crash": f"{type(lost).__name__}: {' '.join(str(lost).split())}"} \
                    if lost else future.result()
                yield point, _checked(point, answer)


def executor(where: str, jobs: int, folder: Path, *, retry: bool = False) -> Executor:
    """Return the executor that ``--executor`` names: ``local`` or ``dask://HOST:PORT``.

    Raises
    ------
    ValueError
        If it names none.
    """
    if where == "local":
        return Local(jobs, folder, retry=retry)
    host, _, port = where.removeprefix("dask://").rpartition(":")
    if not where.startswith("dask://") or not host or not port.isdecimal():
        raise ValueError(f"--executor must be local or dask://HOST:PORT, not {where!r}")
    return Dask(f"{host}:{port}", folder, retry=retry)
