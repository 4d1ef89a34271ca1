"""scripts/bench: ringlog beside Apache Kafka and the raw disk, in one run, in turns."""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import bench_host as host
import bench_items as items
import bench_report
import install
from bench_sides import Disk, Kafka, Load, Ringlog
from broker import build
from paths import ROOT
from process import Failure, LeftOut, end_like_interrupted

HELP = f"""items (--only takes several, separated by commas):
{items.describe()}

Before each item a few GB are written and deleted through the page cache; before each run what is dirty is written back.
Brokers stay warm between the runs of a case (a JVM gets --jvm-warmup seconds of load first), runs take turns (A B C A B C),
and the raw disk (ringlog-disk) is measured in the same turns. Nothing else should run on the host.
"""
# The widest journal and tail memory of a shard unless a case says otherwise: --journal-bytes and what is cached behind it.
JOURNAL_BYTES = 512 << 20
CACHE_BYTES = 64 << 20
# Bulk fills journals in seconds, and disks soon after: its windows are no longer than this.
BULK_SECONDS_MAX = 12
BULK_MB_PER_S_MAX = 2000
SMALL_MB_PER_S_MAX = 150


class Bench:
    """One run of this script: the brokers, the settings, the results."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.quick, self.repeat = args.quick, args.repeat
        self.seconds, self.warmup = args.seconds, args.warmup
        self.server_cores, self.load_cores = args.server_cores, args.load_cores
        self.log = folder / "load.log"
        self.load = Load(build("ringlog-load"), self.load_cores, self.log)
        self.disk = Disk(build("ringlog-disk"), folder, self.server_cores, self.log)
        self.server = build("ringlog-server")
        self.runs, self.left_out, self.sides = [], [], {}
        self.item = None
        self.kafka_there = self._kafka_there()

    def _kafka_there(self):
        if self.args.no_kafka:
            self.leave_out("Apache Kafka: --no-kafka")
            return False
        try:
            install.java()
            install.kafka_jars()
        except (LeftOut, Failure) as reason:
            self.leave_out(f"Apache Kafka ({reason}); ringlog is measured alone")
            return False
        return True

    def leave_out(self, reason):
        """Notes, once, what is not measured and why."""
        if reason not in self.left_out:
            self.left_out.append(reason)
            say(f"left out: {reason}")

    def ringlog(self, name="ringlog"):
        """A ringlog that is not started yet."""
        driver = "glommio" if name.endswith("glommio") else "ring"
        side = Ringlog(name, self.server, self.folder, self.server_cores, driver)
        self.sides[name] = side.describe()
        return side

    @contextlib.contextmanager
    def brokers(self, ringlog_options=(), names=("ringlog", "kafka-fsync", "kafka"), kafka_extra=None, warm_up=True):
        """Starts the sides empty and warms them up; stops them and removes their data at the end. `kafka_extra` are settings of
        Kafka's broker."""
        with contextlib.ExitStack() as cleaning:
            sides = []
            for name in names:
                side = self._broker(name, ringlog_options, kafka_extra)
                if side:
                    sides.append(side)
                    cleaning.callback(shutil.rmtree, side.data, ignore_errors=True)
                    cleaning.callback(side.stop)
            for side in sides if warm_up else ():
                self._warm_up(side)
            yield sides

    def _broker(self, name, ringlog_options, kafka_extra):
        if name.startswith("kafka"):
            if not self.kafka_there:
                return None
            side = Kafka(name, self.folder, self.server_cores, fsync=name.endswith("fsync"), extra=kafka_extra)
            shutil.rmtree(side.data, ignore_errors=True)
            side.start()
        else:
            side = self.ringlog(name)
            shutil.rmtree(side.data, ignore_errors=True)
            try:
                side.start(*ringlog_options)
            except Failure as reason:
                if side.driver == "ring":
                    raise
                self.leave_out(f"{name}: {reason}")
                return None
        self.sides[name] = side.describe()
        return side

    def _warm_up(self, side):
        seconds = self.args.jvm_warmup if not side.driver else min(3, self.args.jvm_warmup)
        say(f"  warming up {side.name} for {seconds:g} s")
        self.load.run(side, "produce", *items.LARGE, "--topic", "warm-up", "--partitions", 16, "--rate", 50_000,
                      "--warmup", 0, "--duration", seconds / 2)
        self.load.run(side, "produce", *items.SMALL, "--topic", "warm-up", "--warmup", 0, "--duration", seconds / 2,
                      "--delete-topics")

    def in_turn(self, sides, repeat):
        """The sides of one repetition, each time beginning with another: what drifts meets them all alike."""
        turn = repeat % len(sides) if sides else 0
        return sides[turn:] + sides[:turn]

    def produce(self, case, sides, partitions, shape, disk=None, calls=False):
        """A closed loop on every side, in turns, each time into a new topic that is removed afterwards. With `calls` the
        kernel counts each server's system calls, so that drivers that count for themselves and others compare."""
        seconds = self.seconds if shape is items.SMALL else min(self.seconds, BULK_SECONDS_MAX)
        rate = SMALL_MB_PER_S_MAX if shape is items.SMALL else BULK_MB_PER_S_MAX
        shape = [str(word) for word in shape]
        settings = (
            f"ringlog-load produce --partitions {partitions} {' '.join(shape)} --acks all --warmup {self.warmup:g} "
            f"--duration {seconds:g}{servers_options(sides)}"
        )
        for repeat in range(self.repeat):
            for side in self.in_turn(sides, repeat):
                host.settle()
                host.wait_for_space(self.folder, rate * 1e6 * (self.warmup + seconds))
                options = ("--topic", f"t{len(self.runs)}", "--partitions", partitions, *shape, "--warmup", self.warmup,
                           "--duration", seconds, "--delete-topics")
                result, counted, calls_per_s = self._watched(side, options, seconds, calls)
                self.record(case, side, repeat, result, settings=settings, counted=counted, calls_per_s=calls_per_s)
            if disk:
                host.settle()
                self.raw_disk(case, repeat, disk, settings)

    def _watched(self, side, options, seconds, calls):
        """One run with the server's counters at both ends of its window, and its system calls a second in between."""
        process = self.load.begin(side, "produce", *options)
        counted, calls_per_s = [], [] if calls else None
        watcher = threading.Thread(target=self._watch, args=(side, seconds, counted, calls_per_s))
        watcher.start()
        try:
            result = self.load.end(process, 300 + self.warmup + seconds)
        finally:
            watcher.join()
        return result, counted if len(counted) == 2 else None, calls_per_s[0] if calls_per_s else None

    def _watch(self, side, seconds, counted, calls_per_s):
        """Looks at the counters when the window begins and when it ends."""
        if not side.driver:
            return
        with contextlib.suppress(Failure, OSError):
            before = records(side.counters())
            # A topic is created first: the warm-up begins with the load, not with the process.
            limit = time.monotonic() + 60
            while records(side.counters()) == before and time.monotonic() < limit:
                time.sleep(0.05)
            time.sleep(self.warmup)
            counted.append(side.counters())
            window = max(0.1, seconds - 0.3)
            if calls_per_s is None:
                time.sleep(window)
            else:
                self._count_calls(side, window, calls_per_s)
            counted.append(side.counters())

    def _count_calls(self, side, window, calls_per_s):
        """System calls of all of a server's threads, as the kernel's tracepoint counts them."""
        begun = time.monotonic()
        try:
            calls_per_s.append(host.system_calls_per_s(side.pid, window * 0.8))
        except LeftOut as reason:
            self.leave_out(f"system calls per ack: {reason}")
        time.sleep(max(0, window - (time.monotonic() - begun)))

    def raw_disk(self, case, repeat, pattern, settings=""):
        """One repetition of `ringlog-disk`."""
        row = self.disk.run(*(str(word) for word in pattern))
        self.sides["disk"] = "ringlog-disk: the same device without a server, O_DIRECT, acks are commits"
        figures = {name: row[name] for name in ("mb_per_s", "p50_us", "p99_us", "cpu_s_per_gb")}
        figures["acks_per_s"] = row["operations_per_s"]
        note = "ringlog-disk " + " ".join(map(str, pattern))
        if row.get("beside_mb_per_s"):
            note += f", reader: {row['beside_mb_per_s']:.0f} MB/s"
        self._keep(case, "disk", repeat, figures, settings, note, {"disk": row})

    def raw_read(self, case, size):
        """What the device gives to readers."""
        for mode in ("direct", "cold", "hot"):
            for repeat in range(self.repeat):
                self.raw_disk(f"{case} (raw disk, {mode})", repeat,
                              ("read", "--mode", mode, "--block", "1MiB", "--depth", 4, "--file", f"{size >> 20}MiB"))

    def record(self, case, side, repeat, result, settings="", note="", counted=None, calls_per_s=None, more=None):
        """Keeps a run of the load generator, and `more` figures."""
        role = result.get("produce") or result["consume"]
        server = role.get("server") or {}
        latency = (result.get("consume") or {}).get("end_to_end_us") or role["latency_us"]
        is_produce = result.get("produce") is not None
        figures = {
            "records_per_s": role["records_per_s"], "mb_per_s": role["mb_per_s"],
            "acks_per_s": role["requests_per_s"] if is_produce else None,
            "p50_us": latency["p50"], "p99_us": latency["p99"],
            "cpu_s_per_gb": server.get("cpu_s_per_gb"),
            "cpu_s_per_million": server.get("cpu_s_per_million_requests") if is_produce else None,
            "written_per_byte": server.get("write_bytes_per_byte") if is_produce else None,
        }
        figures.update(of_transactions(role.get("transactions")))
        if counted:
            figures.update(self._from_counters(side, *counted))
        if calls_per_s is not None:
            figures["syscalls_per_ack"] = calls_per_s / role["requests_per_s"]
        figures.update(more or {})
        if result["errors_total"]:
            note = f"{note}; " * bool(note) + f"{result['errors_total']} errors"
        self._keep(case, side.name, repeat, figures, settings, note, {"load": result, "counters": counted})

    def _from_counters(self, side, before, after):
        """What only the server knows: its backlog, how often it went round its journal, its system calls."""
        def since(name):
            return sum(a[name] - b[name] for a, b in zip(after["shards"], before["shards"], strict=True))

        options = list(side.options)
        journal = int(options[options.index("--journal-bytes") + 1]) if "--journal-bytes" in options else JOURNAL_BYTES
        ingested = since("ingested_bytes")
        figures = {
            "journals_ingested": ingested / (len(self.server_cores) * (2 * journal + CACHE_BYTES)),
            "backlog_growth_mb": since("backlog_bytes") / 1e6,
        }
        if ingested:
            figures["written_per_byte"] = (since("journal_bytes") + since("destaged_bytes")) / ingested
        if since("batches") and since("enters"):
            figures["syscalls_per_ack"] = (since("enters") + since("other_calls")) / since("batches")
        return figures

    def record_figures(self, case, side, repeat, figures, note="", settings="", raw=None):
        """Keeps figures that are not those of `ringlog-load produce` and its like."""
        self._keep(case, side.name, repeat, figures, settings, note, raw or {})

    def _keep(self, case, side, repeat, figures, settings, note, raw):
        self.runs.append({
            "item": self.item, "case": case, "side": side, "repeat": repeat, "figures": figures, "settings": settings,
            "note": note, "raw": raw,
        })
        shown = [
            f"{title} {form.format(figures[name])}"
            for name, title, form in bench_report.FIGURES
            if figures.get(name) is not None and name not in ("journals_ingested",)
        ]
        say(f"  {case}, {side}, {repeat + 1} of {self.repeat}: {', '.join(shown)}")

    def document(self):
        """Everything, for the files."""
        commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        return {
            "date": time.strftime("%Y-%m-%d"), "commit": commit.stdout.strip() or "unknown",
            "host": host.facts(self.folder), "sides": self.sides, "left_out": self.left_out,
            "settings": {
                "repeat": self.repeat, "seconds": self.seconds, "warmup": self.warmup, "quick": self.quick,
                "server_cores": self.server_cores, "load_cores": self.load_cores, "jvm_warmup": self.args.jvm_warmup,
            },
            "items": {name: items.ITEMS[name].__doc__ for name in self.args.only}, "runs": self.runs,
        }


def of_transactions(counts):
    """What the load generator says of transactions, if there were any."""
    if not counts:
        return {}
    figures = {"transactions_per_s": counts["committed_per_s"]}
    for name, latency in (("transaction", counts["latency_us"]), ("commit", counts["end_latency_us"])):
        if latency:
            figures.update({f"{name}_{quantile}_us": latency[quantile] for quantile in ("p50", "p99")})
    return figures


def servers_options(sides):
    """What ringlog was started with, if a case has options of its own, as a part of its settings."""
    options = next((side.options for side in sides if side.driver), None)
    return f"; ringlog-server {' '.join(map(str, options))}" if options else ""


def records(counters):
    """Records that all shards have taken in."""
    return sum(shard["records"] for shard in counters["shards"])


def say(text):
    """Progress, at once."""
    print(text, flush=True)


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/bench", description="ringlog beside Apache Kafka and the raw disk, in one run, in turns.", epilog=HELP,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--only", default=",".join(items.ITEMS), metavar="ITEM,...", help="items to run (default: all)")
    top.add_argument("--repeat", type=int, help="runs of each case and side (default 5; 1 with --quick)")
    top.add_argument("--seconds", type=float, help="length of a window (default 25; 1 with --quick)")
    top.add_argument("--warmup", type=float, help="load before each window (default 5; 0.5 with --quick)")
    top.add_argument("--jvm-warmup", type=float, help="load before a broker's first run (default 30; 4 with --quick)")
    top.add_argument("--server-cores", metavar="LIST", help="cores of the brokers, e.g. 0 or 0-3 (default: the first half)")
    top.add_argument("--load-cores", metavar="LIST", help="cores of the load generator (default: the other half)")
    top.add_argument("--no-kafka", action="store_true", help="ringlog and the raw disk alone")
    top.add_argument("--dir", type=Path, default=ROOT / "target", help="where data folders are made (default: target)")
    top.add_argument("--out", type=Path, help="folder of the results (default: benches/results; target with --quick)")
    top.add_argument("--name", help="name of the results' files (default: the items' names, or `all`)")
    top.add_argument("--quick", action="store_true", help="a smoke test of everything in minutes: the figures mean nothing")
    return top


def settle_arguments(args):
    """Fills in what depends on other arguments."""
    everything = list(items.ITEMS)
    args.only = items.check_names([name.strip() for name in args.only.split(",") if name.strip()])
    quick = {"repeat": 1, "seconds": 1.0, "warmup": 0.5, "jvm_warmup": 4.0}
    usual = {"repeat": 5, "seconds": 25.0, "warmup": 5.0, "jvm_warmup": 30.0}
    for name, value in (quick if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
        if getattr(args, name) <= 0:
            raise Failure(f"--{name.replace('_', '-')} must be above 0")
    first, second = host.split_cores()
    try:
        args.server_cores = host.core_list(args.server_cores) if args.server_cores else first
        args.load_cores = host.core_list(args.load_cores) if args.load_cores else second
    except ValueError:
        raise Failure("cores are given as a list such as 0,2-3") from None
    args.out = args.out or (ROOT / "target" if args.quick else ROOT / "benches" / "results")
    label = "all" if args.only == everything else "-".join(args.only)
    args.name = args.name or ("quick-" if args.quick else "") + label
    return args


def main():
    """Runs the items. Exit code 0 when all of them were measured."""
    args = settle_arguments(parser().parse_args())
    args.dir.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.dir) as folder:
        bench = Bench(args, Path(folder))
        for name in args.only:
            bench.item = name
            say(f"== {name}: {items.ITEMS[name].__doc__}")
            size = (128 << 20) if args.quick else (4 << 30)
            host.touch_memory(folder, min(size, host.free_bytes(folder) // 4))
            try:
                items.ITEMS[name](bench)
            except Failure as reason:
                failed.append(name)
                bench.leave_out(f"{name}, or the rest of it: {reason}")
            # What was measured is kept, whatever comes.
            paths = bench_report.write(bench.document(), args.out, args.name)
    say(paths[1].read_text())
    say(f"written to {paths[0]} and {paths[1]}")
    return 1 if failed else 0


if __name__ == "__main__":
    end_like_interrupted()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    except (Failure, LeftOut) as reason:
        sys.exit(f"bench: {reason}")
