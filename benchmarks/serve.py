"""What serving costs and how it holds: throughput beside the library's own, latency, refusals, memory, and the time until ready.

One checkpoint, one run. The library answers a list of materials by itself, and `darwin serve` in a process of its own the
same ones, one a request, to 32 clients at once; that in turn, some times over, since the speed of a machine that others
share can change from minute to minute. Then one client asks alone; then, for ten minutes, 64 clients that ask for more
than can be answered and do not wait as long as they are told to. Value, interval and status of every answer are compared
with the library's. Writes results/bench/serve.json.

    python benchmarks/serve.py [--model NAME]       # a quarter of an hour on 2 cores, with the model of `make demo`
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from writing import write

from matdarwin import Darwin
from matdarwin.prediction import candidates

OUT = Path("results/bench/serve.json")
CLIENTS = 32
TURNS = 5
CROWD = 64
ROWS = 8
"""Materials of a request of the crowd."""
QUEUE = 128
"""Rows that wait at a time while the crowd asks: a few seconds of work, so that what is accepted is answered in time."""
PAUSE = 0.1
"""Seconds after which a refused client of the crowd asks again."""
ELEMENTS = [
    "Li",
    "Mg",
    "Zn",
    "Cd",
    "Cu",
    "Ag",
    "Al",
    "Ga",
    "In",
    "Si",
    "Ge",
    "Sn",
    "N",
    "P",
    "As",
    "O",
    "S",
    "Se",
    "Te",
    "Cl",
]

Plain = dict[str, Any]


def formulas(count: int) -> list[str]:
    """So many neutral compositions of up to three elements, drawn at random with a fixed seed."""
    table = candidates.of_elements(ELEMENTS, max_elements=3, max_atoms=8, charge_neutral=True)
    found = [material for chunk in table.chunks("composition", 1024) for material in chunk.materials]
    return random.Random(0).sample(found, count)


def answer_of(plain: Plain) -> Plain:
    """What does not depend on who else is in a batch; probabilities do in their seventh digit."""
    return {name: plain[name] for name in ("input", "value", "lower", "upper", "status")}


class Server:
    """`darwin serve` in a process of its own.

    Attributes:
        seconds_to_ready: From its start to the first yes of /readyz.
    """

    def __init__(self, model: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        command = [
            sys.executable, "-m", "matdarwin", "serve", "--model", model, "--port", str(self.port), "--rate", "0", *options
        ]  # fmt: skip
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self._ready():
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}: {' '.join(command)}")
            time.sleep(0.05)
        self.seconds_to_ready = time.perf_counter() - began

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def rss_mib(self) -> float:
        """Resident memory of the process, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)

    def stop(self) -> int:
        """Tell it to finish, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class Client:
    """One client with a connection that it keeps. The plainest there is: what it costs is taken from the server's cores."""

    def __init__(self, server: Server, task: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._task = task

    def ask(self, materials: list[str]) -> tuple[int, list[Plain], float]:
        """Status (0: the connection broke), predictions and seconds of one request."""
        body = json.dumps({"materials": materials, "tasks": self._task})
        began = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, [], time.perf_counter() - began
        took = time.perf_counter() - began
        return answer.status, json.loads(text)["predictions"] if answer.status == 200 else [], took


def throughput(server: Server, materials: list[str], task: str, known: dict[str, Plain]) -> float:
    """Rows a second of clients that each ask for one material after the other, and check what they get."""
    waiting = iter(materials)
    lock = threading.Lock()

    def work(client: Client) -> None:
        while True:
            with lock:
                material = next(waiting, None)
            if material is None:
                return
            status, found, _ = client.ask([material])
            if status != 200 or answer_of(found[0]) != known[material]:
                raise RuntimeError(f"{material}: status {status}, or not what the library answers")

    clients = [Client(server, task) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda client: client.ask([materials[0]]), clients))
        began = time.perf_counter()
        list(pool.map(work, clients))
        return len(materials) / (time.perf_counter() - began)


def overload(
    server: Server, materials: list[str], task: str, known: dict[str, Plain], seconds: float
) -> tuple[Counter[str], list[float]]:
    """What became of the requests of a crowd, and how long each refusal took."""
    end = time.perf_counter() + seconds

    def work(number: int) -> tuple[Counter[str], list[float]]:
        rng = random.Random(number)
        client = Client(server, task)
        became: Counter[str] = Counter()
        refusals: list[float] = []
        while time.perf_counter() < end:
            asked = rng.sample(materials, ROWS)
            status, found, took = client.ask(asked)
            if status == 200:
                became["accepted" if [answer_of(one) for one in found] == [known[m] for m in asked] else "wrong"] += 1
            elif status == 503:
                became["refused"] += 1
                refusals.append(took)
                time.sleep(PAUSE)
            else:
                became[f"status {status}" if status else "broken off"] += 1
        return became, refusals

    with ThreadPoolExecutor(CROWD) as pool:
        done = list(pool.map(work, range(CROWD)))
    return sum((became for became, _ in done), Counter()), [took for _, times in done for took in times]


def main() -> None:
    """Measure, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="checkpoint; without, the newest product")
    parser.add_argument("--materials", type=int, default=640)
    parser.add_argument("--minutes", type=float, default=10.0, help="of overload")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    darwin = Darwin.load(given.model)
    task = next(iter(darwin.tasks))
    materials = formulas(given.materials)
    known = {answer.input: answer_of(answer.to_dict()) for answer in darwin.predict(materials, task)}
    server = Server(darwin.name)
    print(f"ready after {server.seconds_to_ready:.1f} s", flush=True)
    library, served = [], []
    for turn in range(TURNS):
        part = materials[turn * given.materials // TURNS : (turn + 1) * given.materials // TURNS]
        began = time.perf_counter()
        darwin.predict(part, task)
        library.append(len(part) / (time.perf_counter() - began))
        served.append(throughput(server, part, task, known))
        print(f"library {library[-1]:.1f} rows/s, served to {CLIENTS} clients {served[-1]:.1f} rows/s", flush=True)
    client = Client(server, task)
    times = [client.ask([material])[2] for material in materials[:300]]
    p50, p99 = (float(np.percentile(times, q)) for q in (50, 99))
    print(f"alone: p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms", flush=True)
    server.stop()

    # Its own server, whose queue holds little enough that nothing accepted runs out of time.
    crowded = Server(darwin.name, "--queue-rows", str(QUEUE), "--rows", str(QUEUE))
    overload(crowded, materials, task, known, 30)
    before = crowded.rss_mib()
    became, refusals = overload(crowded, materials, task, known, 60 * given.minutes)
    after = crowded.rss_mib()
    status = crowded.stop()
    print(f"{dict(became)}; {before:.0f} MiB before, {after:.0f} after; the server ended with {status}", flush=True)
    accepted = became.pop("accepted")
    refused = became.pop("refused")
    result = {
        "summary": {
            "throughput_share": round(statistics.harmonic_mean(served) / statistics.harmonic_mean(library), 3),
            "p99_over_p50": round(p99 / p50, 3),
            "reject_p99_ms": round(1000 * float(np.percentile(refusals, 99)), 1),
            "rss_growth": round(after / before - 1, 4),
            "accepted": accepted,
            "lost": became.total(),
        },
        "library_rows_per_s": library,
        "served_rows_per_s": served,
        "p50_ms": 1000 * p50,
        "p99_ms": 1000 * p99,
        "ready_s": [server.seconds_to_ready, crowded.seconds_to_ready],
        "overload": {
            "minutes": given.minutes,
            "clients": CROWD,
            "rows_a_request": ROWS,
            "queue_rows": QUEUE,
            "refused": refused,
            "other": dict(became),
            "rss_before_mib": before,
            "rss_after_mib": after,
            "exit_status": status,
        },
        "materials": len(materials),
        "model": {"name": darwin.name, "base": darwin.card.base["name"], "task": task},
    }
    write(given.out, result)


if __name__ == "__main__":
    main()
