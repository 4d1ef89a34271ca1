"""Compaction of a large log, measured alone and beside a steady producer."""

import shutil
import time

import bench_host as host
from bench_sides import folder_bytes
from process import Failure

PARTITIONS = 16
RECORD_BYTES = 1024
# Each key is written so often: a tenth of the records is alive.
WRITES_OF_A_KEY = 10
# No pass reads anything for so long: compaction is over. Between passes it rests for `log.cleaner.backoff.ms`.
QUIET_S = 6
NO_CLEANER = ("--set", "log.cleaner.enable=false")
CLEANER = ("--set", "log.cleaner.backoff.ms=1000")


def compaction(bench):
    """Compaction of 10 GB with a tenth of the records alive: its speed, its memory, and produce p99 beside it"""
    size = (64 << 20) if bench.quick else 10_000_000_000
    side = bench.ringlog()
    steady = ("--topic", "steady", "--partitions", 16, "--connections", 16, "--in-flight", 4, "--record-size", 256,
              "--batch-records", 1, "--rate", 2000, "--warmup", min(2, bench.warmup), "--duration", bench.seconds)
    shutil.rmtree(side.data, ignore_errors=True)
    try:
        for repeat in range(bench.repeat):
            fill(bench, side, size)
            log = side.data / "topics"
            before, resident = folder_bytes(log), host.resident_bytes(side.pid)
            bench.record("produce alone, 2,000/s", side, repeat, bench.load.run(side, "produce", *steady))
            side.stop()

            side.start(*CLEANER)
            begun = wait_for_pass(side)
            result = bench.load.run(side, "produce", *steady)
            beside = totals(side)
            note = f"compaction reads {mb_per_s(begun, beside):.0f} MB/s beside it"
            bench.record("produce beside compaction", side, repeat, result, note=note)
            ended, most = until_quiet(side, beside)
            if ended["read"] == begun["read"]:
                raise Failure("nothing was compacted in the measured time")
            figures = {
                "compaction_mb_per_s": mb_per_s(beside, ended), "kept_percent": 100 * folder_bytes(log) / before,
                "resident_mib": most / host.MIB, "resident_growth_mib": (most - resident) / host.MIB,
            }
            note = f"{ended['passes']} passes read {ended['read'] / 1e9:.1f} GB and wrote {ended['written'] / 1e9:.1f} GB"
            bench.record_figures("compaction alone, after that", side, repeat, figures, note=note)
            side.stop()
            shutil.rmtree(side.data, ignore_errors=True)
            host.settle()
    finally:
        side.stop()
        shutil.rmtree(side.data, ignore_errors=True)


def fill(bench, side, size):
    """Starts the server without compaction and writes the keyed log."""
    side.start(*NO_CLEANER)
    records, rate = size // RECORD_BYTES, 200_000
    segment = (4 << 20) if bench.quick else (64 << 20)
    seconds = max(1.0, records / rate)
    bench.load.run(
        side, "produce", "--topic", "keyed", "--partitions", PARTITIONS, "--connections", 4, "--in-flight", 5,
        "--record-size", RECORD_BYTES, "--batch-bytes", 256000, "--keys", max(1, records // PARTITIONS // WRITES_OF_A_KEY),
        "--topic-config", "cleanup.policy=compact", "--topic-config", f"segment.bytes={segment}",
        "--rate", rate, "--warmup", 0, "--duration", f"{seconds:.2f}", timeout_s=seconds + 600,
    )
    # What is in segments is compacted; what a stop leaves in the journal, it stores.
    side.stop()
    side.start(*NO_CLEANER)


def totals(side):
    """What all shards' passes have done so far."""
    shards = side.counters()["shards"]
    total = {name: sum(shard[name] for shard in shards) for name in ("compaction_read_bytes", "compaction_written_bytes", "compactions")}
    return {
        "at": time.monotonic(), "read": total["compaction_read_bytes"], "written": total["compaction_written_bytes"],
        "passes": total["compactions"],
    }


def mb_per_s(begun, ended):
    """Megabytes read each second between these."""
    return (ended["read"] - begun["read"]) / 1e6 / (ended["at"] - begun["at"])


def wait_for_pass(side):
    """The totals when the first pass reads."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = totals(side)
        if now["read"]:
            return now
        time.sleep(0.1)
    raise Failure("no compaction began within 60 s")


def until_quiet(side, now):
    """The totals when no pass reads any more, and the most memory that was resident meanwhile, bytes."""
    last, most = now, host.resident_bytes(side.pid)
    while True:
        time.sleep(0.5)
        most = max(most, host.resident_bytes(side.pid))
        now = totals(side)
        if now["read"] != last["read"]:
            last = now
        elif now["at"] - last["at"] > QUIET_S:
            return last, most
