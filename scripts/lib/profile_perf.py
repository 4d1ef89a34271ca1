"""perf: what it can do on this host, recordings of processes, and their text. Failure and LeftOut are one line each, with
the remedy."""

import os
import shutil
import subprocess
from pathlib import Path

import bench_host as host
from process import Failure, LeftOut

PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# Counting and tracing do not add up beyond this many bytes of a filter; then everything is recorded and sorted out later.
FILTER_CHARS_MAX = 3000
STACKS = "comm,pid,tid,time,event,ip,sym,dso"


def perf():
    """Path of perf; Failure when it is not there."""
    path = shutil.which("perf")
    if not path:
        raise Failure("perf is not there; install it (Debian: apt install linux-perf, Fedora: dnf install perf)")
    return path


def run(command, timeout_s=300, stdout=subprocess.PIPE):
    """Runs perf to its end. Returns what it did."""
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=timeout_s, check=False)


def paranoid():
    """The kernel's setting, or None where it has none."""
    try:
        return int(PARANOID.read_text())
    except (OSError, ValueError):
        return None


def refused(what, output):
    """One line on why perf did not do something, with the remedy if it is one of permission."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = lines[-1] if lines else "no reason given"
    denied = any(word in output.lower() for word in ("permission", "paranoid", "not permitted", "no permission", "access to"))
    if denied:
        return (f"{what} is forbidden: kernel.perf_event_paranoid is {paranoid()}; allow it with "
                "`sudo sysctl kernel.perf_event_paranoid=-1`, or run this as root")
    return f"{what} failed: {said}"


class Perf:
    """perf, with the event that samples the processor's time here."""

    def __init__(self, folder, cores, hz):
        self.path, self.folder, self.cores, self.hz = perf(), Path(folder), cores, hz
        self.notes = []
        self.event = self._event()

    def _event(self):
        """`cycles` where the hardware counts them, else the kernel's timer; without the kernel's part where that is forbidden."""
        event = "cycles"
        done = run([self.path, "stat", "-x", ",", "-e", "cycles:u", "--", "true"])
        if done.returncode or "<not supported>" in done.stderr or "<not counted>" in done.stderr:
            event = "cpu-clock"
            self.notes.append("There are no hardware counters here: samples come from the kernel's timer (cpu-clock), which "
                              "books time with interrupts off to the place where they come back on.")
        trial = self.folder / "trial.data"
        for candidate in (event, f"{event}:u"):
            done = run([self.path, "record", "-q", "-o", trial, "-e", candidate, "-F", self.hz, "-g", "--", "true"])
            trial.unlink(missing_ok=True)
            if done.returncode == 0:
                if candidate != event or (os.geteuid() and (paranoid() or 0) > 1):
                    self.notes.append(f"The kernel's stacks are missing: kernel.perf_event_paranoid is {paranoid()}; allow them "
                                      "with `sudo sysctl kernel.perf_event_paranoid=1`, or run this as root.")
                return candidate
        raise Failure(refused("perf record", done.stderr))

    def record(self, pids, seconds):
        """Samples the processes' threads for some seconds. Returns the recording."""
        data = self.folder / "on-cpu.data"
        command = [self.path, "record", "-q", "-o", data, "-e", self.event, "-F", self.hz, "--call-graph", "fp",
                   "-p", ",".join(map(str, pids)), "--", "sleep", f"{seconds:g}"]
        with host.pinned(self.cores):
            done = run(command, timeout_s=seconds + 120)
        if done.returncode:
            raise Failure(refused("perf record", done.stderr))
        return data

    def record_waits(self, pids, seconds):
        """Records when the processes' threads leave and get the processor. LeftOut where that is not allowed."""
        data = self.folder / "off-cpu.data"
        tids = [entry.name for pid in pids for entry in Path(f"/proc/{pid}/task").iterdir()]
        chosen = " || ".join(f"prev_pid=={tid} || next_pid=={tid}" for tid in tids)
        narrow = ["--filter", chosen] if len(chosen) <= FILTER_CHARS_MAX else []
        command = [self.path, "record", "-q", "-o", data, "-a", "-m", "1024", "-e", "sched:sched_switch", *narrow,
                   "--call-graph", "fp", "--", "sleep", f"{seconds:g}"]
        with host.pinned(self.cores):
            done = run(command, timeout_s=seconds + 120)
        if done.returncode:
            raise LeftOut("off-CPU graphs: " + refused("tracing sched:sched_switch on all processors", done.stderr))
        return data

    def script(self, data, fields=STACKS, inline=False):
        """A recording as text, in a file beside it."""
        text = data.with_suffix(".txt")
        with open(text, "w") as sink:
            done = run([self.path, "script", "-i", data, "--inline" if inline else "--no-inline", "-F", fields],
                       timeout_s=540, stdout=sink)
        if done.returncode:
            raise Failure(refused("perf script", done.stderr))
        return text

    def count(self, pid, seconds, events):
        """What the kernel counts of a process in some seconds: {event: number}; events it does not have are missing."""
        command = [self.path, "stat", "-x", ",", *(word for event in events for word in ("-e", event)), "-p", pid, "--",
                   "sleep", f"{seconds:g}"]
        with host.pinned(self.cores):
            done = run(command, timeout_s=seconds + 60)
        return parse_counts(done.stderr, events)


def parse_counts(text, events):
    """{event: number} from `perf stat -x ,`."""
    found = {}
    for line in text.splitlines():
        fields = line.split(",")
        for event in events:
            if event in fields and fields[0].isdigit():
                found[event] = int(fields[0])
    return found
