"""A server and a load under perf: what scripts/flamegraph and scripts/perf-report share."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import bench_host as host
from bench_items import LARGE, SMALL, SMALL_JOURNAL
from bench_sides import Load, Ringlog
from broker import cargo
from paths import CACHE, ROOT
from process import Failure, LeftOut, run
from profile_perf import Perf

READ = ("--connections", 4, "--until", "repeat", "--max-bytes", 16 << 20, "--partition-max-bytes", 4 << 20)
# Name: (what it is, server options, what is stored before in MiB, cold, verb and options of the load).
WORKLOADS = {
    "small": ("64 connections, one 256 B record in flight each, 16 partitions", SMALL_JOURNAL, 0, False,
              ("produce", "--partitions", 16, *SMALL)),
    "large": ("1 KiB records in 250 KiB batches, 16 partitions", (), 0, False, ("produce", "--partitions", 16, *LARGE)),
    "cold": ("four consumers read 2 GiB that are not in the page cache, over and over", (), 2048, True, ("consume", *READ)),
    "tail": ("four consumers read what was just written", (), 256, False, ("consume", *READ)),
    "e2e": ("end to end at 1,000 records a second", (), 0, False,
            ("e2e", "--partitions", 1, "--record-size", 256, "--rate", 1000, "--in-flight", 5, "--spin-us", 100)),
}
TOPIC = "profiled"
# How fast what is read later is stored: records of 1 KiB a second.
FILL_RATE = 100_000
COUNTED = ("raw_syscalls:sys_enter", "context-switches", "cpu-migrations", "page-faults")


def arguments(name, what):
    """The options that both commands have."""
    listed = "\n".join(f"  {key:<7} {value[0]}" for key, value in WORKLOADS.items())
    epilog = f"""workloads:
{listed}
  or any arguments of ringlog-load, after `--`, without --bootstrap, --warmup and --duration

examples:
  scripts/{name} large
  scripts/{name} --seconds 10 --server-option=--shards --server-option=2 small
  scripts/{name} -- produce --partitions 100 --connections 8 --batch-bytes 16384 --compression zstd

Nothing but Rust and perf is needed. Server and load are built with frame pointers (profile `profiling`), the server starts in
an empty directory on the first half of the cores, the load runs on the others, and both are stopped at the end. Where the
hardware's counters are missing, as in most virtual machines, the kernel's timer samples; the output says so."""
    top = argparse.ArgumentParser(prog=f"scripts/{name}", description=what, epilog=epilog,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--seconds", type=float, default=5.0, help="how long to sample (default 5)")
    top.add_argument("--warmup", type=float, default=3.0, help="load before that (default 3)")
    top.add_argument("--hz", type=int, default=999, help="samples a second and thread (default 999)")
    top.add_argument("--server-option", action="append", default=[], metavar="WORD", help="an argument of ringlog-server, repeatable")
    top.add_argument("--server-cores", metavar="LIST", help="cores of the server, e.g. 0 or 0-3 (default: the first half)")
    top.add_argument("--load-cores", metavar="LIST", help="cores of the load (default: the other half)")
    top.add_argument("--dir", type=Path, default=ROOT / "target", help="where the server's directory is made (default: target)")
    top.add_argument("--inline", action="store_true", help="name inlined functions too (needs addr2line; takes minutes)")
    top.add_argument("workload", metavar="WORKLOAD", help="one of the workloads below, or a subcommand of ringlog-load")
    top.add_argument("load", nargs=argparse.REMAINDER, metavar="...", help="its options")
    return top


def workload(args):
    """(title, server options, MiB stored before, cold, load) of what the command line names."""
    if args.workload in WORKLOADS and not args.load:
        title, options, stored, cold, load = WORKLOADS[args.workload]
        return f"{args.workload}: {title}", options, stored, cold, load
    if args.workload not in ("produce", "consume", "e2e", "mixed"):
        raise Failure(f"{args.workload} is no workload; there are {', '.join(WORKLOADS)}, and produce, consume, e2e and mixed with "
                      "options of ringlog-load")
    words = (args.workload, *args.load)
    return " ".join(words), (), 1024 if args.workload == "consume" else 0, False, words


def build():
    """Builds server, load and the tool that draws, with frame pointers. Returns their paths by name."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} -C force-frame-pointers=yes".strip()
    command = [cargo(), "build", "--profile", "profiling", "--locked", "-p", "ringlog-server", "-p", "ringlog-load", "-p",
               "ringlog-benches", "--bins", "--message-format", "json"]
    env = {"RUSTFLAGS": flags, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -fno-omit-frame-pointer".strip()}
    output = run(command, CACHE / "log" / "build.log", timeout_s=3000, env=env, cwd=ROOT)
    messages = (json.loads(line) for line in output.splitlines())
    return {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}


class Profiled:
    """What a run under perf left: recordings as text, counts, what the load said."""

    def __init__(self, title):
        self.title, self.notes, self.counts = title, [], {}
        self.on_cpu = self.off_cpu = self.result = None
        self.pids = {}

    def process_options(self):
        """The processes as arguments of ringlog-flame."""
        return [word for name, pid in self.pids.items() for word in ("--process", f"{name}={pid}")]


class Session:
    """One server, one load, one recording after the other within the load's window."""

    def __init__(self, args, folder, waits, counts):
        self.args, self.folder, self.waits, self.counts = args, Path(folder), waits, counts
        first, second = host.split_cores()
        try:
            self.server_cores = host.core_list(args.server_cores) if args.server_cores else first
            self.load_cores = host.core_list(args.load_cores) if args.load_cores else second
        except ValueError:
            raise Failure("cores are given as a list such as 0,2-3") from None
        if args.seconds <= 0 or args.warmup < 0 or args.hz <= 0:
            raise Failure("--seconds and --hz must be above 0")
        # Before anything is built: without perf nothing is worth building.
        self.perf = Perf(folder, self.load_cores, args.hz)

    def run(self):
        """Everything. Returns a Profiled."""
        title, options, stored, cold, words = workload(self.args)
        self.binaries = build()
        done = Profiled(title)
        done.notes = list(self.perf.notes)
        side = Ringlog("ringlog", self.binaries["ringlog-server"], self.folder, self.server_cores)
        load = Load(self.binaries["ringlog-load"], self.load_cores, self.folder / "load.log")
        try:
            side.start(*options, *self.args.server_option)
            if stored:
                self._store(load, side, stored)
            if cold and side.process:
                side.stop()
                side.start(*side.options)
            host.settle()
            with self._kept_cold(side) if cold else contextlib.nullcontext():
                self._measure(done, load, side, words)
        finally:
            side.stop()
            shutil.rmtree(side.data, ignore_errors=True)
        done.on_cpu = self.perf.script(done.on_cpu, inline=self.args.inline)
        if done.off_cpu:
            done.off_cpu = self.perf.script(done.off_cpu, "comm,pid,tid,time,event,trace,ip,sym,dso")
        done.notes.append(f"ringlog-server {' '.join(map(str, side.options)) or 'with its defaults'} on cores {self.server_cores}, "
                          f"load on cores {self.load_cores}: {' '.join(map(str, words))}")
        return done

    @staticmethod
    def _store(load, side, mib):
        load.run(side, "produce", *LARGE, "--topic", TOPIC, "--partitions", 16, "--rate", FILL_RATE, "--warmup", 0,
                 "--duration", f"{max(1.0, mib * 1024 / FILL_RATE):.2f}")

    @contextlib.contextmanager
    def _kept_cold(self, side):
        """The page cache is emptied again and again meanwhile."""
        over = threading.Event()

        def drop():
            while not over.wait(0.5):
                host.drop_caches(side.data, write_back=False)

        thread = threading.Thread(target=drop)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _measure(self, done, load, side, words):
        seconds, slack = self.args.seconds, 1.0
        parts = 1 + self.waits + self.counts
        window = parts * (seconds + slack) + 2
        topic = [] if "--topic" in words or "-t" in words else ["--topic", TOPIC]
        process = load.begin(side, *words, *topic, "--warmup", f"{self.args.warmup:g}", "--duration", f"{window:g}")
        pids = (side.pid, process.pid)
        done.pids = {"server": side.pid, "load": process.pid}
        try:
            time.sleep(self.args.warmup + 0.5)
            if process.poll() is not None:
                raise Failure(f"the load ended at once: {(self.folder / 'load.log').read_text()[-300:].strip()}")
            done.on_cpu = self.perf.record(pids, seconds)
            if self.waits:
                try:
                    done.off_cpu = self.perf.record_waits(pids, min(seconds, 2.0))
                except LeftOut as reason:
                    done.notes.append(f"Left out: {reason}")
            if self.counts:
                done.counts = {name: self.perf.count(pid, seconds, COUNTED) for name, pid in done.pids.items()}
            done.result = load.end(process, 120 + window)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def flame(self, *words):
        """Runs ringlog-flame. Returns what it printed."""
        done = subprocess.run([self.binaries["ringlog-flame"], *map(str, words)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(done.stderr.strip().removeprefix("ringlog-flame: "))
        return done.stdout


@contextlib.contextmanager
def session(args, waits, counts):
    """A Session in a folder of its own that is removed at the end."""
    args.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="profile-", dir=args.dir) as folder:
        yield Session(args, folder, waits, counts)
