"""What is compared: ringlog with either driver, Apache Kafka with and without an fsync before every ack."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import bench_host as host
import kafka
from process import Failure, last_line, start, stop

# Share of requests that may fail in a run that counts.
ERROR_SHARE_MAX = 0.001
COUNTERS = "ringlog counters: "


class Ringlog:
    """`ringlog-server` of this checkout."""

    def __init__(self, name, binary, folder, cores, driver="ring"):
        self.name, self.binary, self.cores, self.driver = name, binary, cores, driver
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.ready_line = folder / f"{name}.ready"
        self.process = None
        self.durability = "fsync"
        self.options = []

    def describe(self):
        """The settings that belong beside its numbers."""
        options = " ".join(map(str, self.options)) or "defaults"
        return f"ringlog, {self.driver} driver, {len(self.cores)} shards, fsync before every ack, {options}"

    def start(self, *options):
        """Starts it; an empty data folder is made when there is none. Returns seconds from start to ready."""
        self.options = list(options)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            self.binary, "--data", self.data, "--port", "0", "--shards", len(self.cores), "--driver", self.driver,
            *options,
        ]
        begun = time.monotonic()
        with host.pinned(self.cores), open(self.ready_line, "wb") as ready:
            self.process = start(command, self.log, stdout=ready)
        try:
            self._wait_until_ready(begun)
        except BaseException:
            self.kill()
            raise
        return self.ready_s

    def _wait_until_ready(self, begun):
        while True:
            text = self.ready_line.read_text()
            if text.startswith("ringlog ready") and text.endswith("\n"):
                self.ready_s = time.monotonic() - begun
                self.ready_text = text.strip()
                self.bootstrap = text.split()[2]
                return
            if self.process.poll() is not None:
                raise Failure(f"ringlog-server ended with {self.process.returncode}: {last_line(self.log)}")
            if time.monotonic() - begun > 120:
                raise Failure(f"ringlog-server was not ready within 120 s (log: {self.log})")
            time.sleep(0.002)

    @property
    def pid(self):
        """Its process."""
        return self.process.pid

    def counters(self):
        """Its counters now, by shard, as `Core` and driver count them."""
        before = self._lines()
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = self._lines()
            if len(lines) > len(before):
                return json.loads(lines[-1])
            time.sleep(0.005)
        raise Failure(f"ringlog-server gave no counters (log: {self.log})")

    def _lines(self):
        text = self.log.read_text(errors="replace")
        return [line.split(COUNTERS, 1)[1] for line in text.splitlines() if COUNTERS in line]

    def kill(self):
        """kill -9."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self):
        """Starts it again as it was, after a kill."""
        return self.start(*self.options)

    def stop(self):
        """Stops it in order."""
        if self.process is None:
            return
        alive, code = self.process.poll() is None, stop(self.process, grace_s=60)
        self.process = None
        if alive and code != 0:
            raise Failure(f"ringlog-server ended with {code} when asked to stop: {last_line(self.log)}")


class Kafka:
    """Apache Kafka, one KRaft node."""

    driver = None
    # Deleted topics make room at once instead of after a minute.
    EXTRA = {"log.segment.delete.delay.ms": "1000", "num.io.threads": "8", "num.network.threads": "3"}

    def __init__(self, name, folder, cores, fsync, heap="1g", extra=None):
        self.name, self.folder, self.cores, self.fsync, self.heap = name, folder, cores, fsync, heap
        self.extra = {**self.EXTRA, **(extra or {})}
        self.peer = kafka.Peer(f"bench-{name}")
        self.data = folder / name
        self.durability = "fsync" if fsync else "page cache"

    def describe(self):
        """The settings that belong beside its numbers."""
        flush = "fsync before every ack (log.flush.interval.messages=1)" if self.fsync else "no fsync before an ack"
        more = "".join(f", {name}={value}" for name, value in self.extra.items() if name not in self.EXTRA)
        return f"Apache Kafka {kafka.version()}, {flush}, heap {self.heap}{more}"

    def start(self):
        """Starts it in its folder."""
        self.peer.stop()
        begun = time.monotonic()
        self.data.mkdir(parents=True, exist_ok=True)
        with host.pinned(self.cores):
            state = self.peer.start(data=self.data, fsync=self.fsync, heap=self.heap, extra=self.extra)
        self.pid, self.bootstrap = state["pid"], f"127.0.0.1:{state['port']}"
        return time.monotonic() - begun

    def kill(self):
        """kill -9."""
        self.peer.kill()

    def restart(self):
        """Starts it again as it was, after a kill."""
        return self.start()

    def counters(self):
        """It has none of ours."""
        return None

    def stop(self):
        """Stops it."""
        self.peer.stop(grace_s=60)


class Load:
    """Runs `ringlog-load` on its cores and reads its JSON."""

    def __init__(self, binary, cores, log):
        self.binary, self.cores, self.log = binary, cores, log

    def command(self, side, verb, *options):
        """The command line of one run. Single errors are no failure (a new topic of Kafka's has no leader at first), many
        are: `end` looks at them."""
        words = (
            self.binary, verb, "--bootstrap", side.bootstrap, "--json", "--server-pid", side.pid, "--tolerate-errors",
        )
        return [str(word) for word in (*words, *options)]

    def begin(self, side, verb, *options):
        """Starts a run in the background."""
        with open(self.log, "ab") as sink, host.pinned(self.cores):
            command = self.command(side, verb, *options)
            sink.write((f"$ {' '.join(command)}\n").encode())
            sink.flush()
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, stdin=subprocess.DEVNULL)

    def end(self, process, timeout_s):
        """Waits for a run and returns what it said. A run with errors is no result."""
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure(f"the load generator took longer than {timeout_s} s (log: {self.log})") from None
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode == 2:
            raise Failure(f"the load generator could not run: {last_line(self.log)}")
        result = json.loads(output)
        errors, requests = errors_of(result)
        if process.returncode != 0 or sum(errors.values()) > max(200, ERROR_SHARE_MAX * requests):
            raise Failure(f"the run had errors: {errors or 'none'}, check: {result.get('verify')}")
        if requests == 0:
            raise Failure(f"nothing was done in the window (errors: {errors or 'none'})")
        return result

    def run(self, side, verb, *options, timeout_s=900):
        """One run from begin to end."""
        return self.end(self.begin(side, verb, *options), timeout_s)


def errors_of(result):
    """(errors by name, requests) of a run; no requests if a side of it did nothing."""
    if result["command"] == "commits":
        # What a broker that was killed on purpose left unanswered is no error.
        return {} if result["broken"] else result["commits"]["errors"], result["commits"]["total"]
    roles = [result[role] for role in ("produce", "consume") if result.get(role)]
    errors = {name: count for role in roles for name, count in role["errors"].items()}
    return errors, 0 if any(role["records"] == 0 for role in roles) else sum(role["requests"] for role in roles)


class Disk:
    """`ringlog-disk`: the raw device under the same folder."""

    def __init__(self, binary, folder, cores, log):
        self.binary, self.folder, self.cores, self.log = binary, folder, cores, log

    def run(self, pattern, *options):
        """One repeat of one setting. Returns its row."""
        command = [self.binary, pattern, "--dir", self.folder, "--repeat", "1", "--json", *options]
        with open(self.log, "ab") as sink, host.pinned(self.cores):
            output = subprocess.run(
                [str(word) for word in command], stdout=subprocess.PIPE, stderr=sink, timeout=900, check=False
            )
        if output.returncode != 0:
            raise Failure(f"ringlog-disk ended with {output.returncode}: {last_line(self.log)}")
        rows = json.loads(output.stdout)["rows"]
        return {name: value["median"] if isinstance(value, dict) and "median" in value else value
                for name, value in rows[0].items()}


def folder_bytes(folder):
    """Bytes that a folder's files take on the disk."""
    total = 0
    for path in Path(folder).rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total
