"""What is measured: each item is a function of the bench that records its figures. An item's docstring is its description."""

import shutil
import threading
import time

import bench_host as host
from bench_commits import commits
from bench_compaction import compaction
from bench_connections import connections
from bench_groups import groups
from bench_sides import folder_bytes
from bench_transactions import transactions
from process import Failure

SMALL = ("--connections", 64, "--in-flight", 1, "--record-size", 256, "--batch-records", 1)
MEDIUM = ("--connections", 16, "--in-flight", 4, "--record-size", 1024, "--batch-bytes", 16384)
LARGE = ("--connections", 4, "--in-flight", 5, "--record-size", 1024, "--batch-bytes", 256000)
# Small records fill a journal slowly: with this one a window still takes several journals in.
SMALL_JOURNAL = ("--journal-bytes", 64 << 20)
# Kafka keeps files of its own for each partition; beyond this it spends the first minutes on them.
KAFKA_PARTITIONS_MAX = 1000
# Kafka maps its indexes, sparse files of 10 MiB, and a page fault in one reads ahead as far as the device is told to
# (/sys/block/*/queue/read_ahead_kb; 8192 on some virtual machines): it then spends nearly all its time on zeros.
SMALL_INDEXES = {"log.index.size.max.bytes": "65536"}


def partitions(bench):
    """Durable acks/s and MB/s by number of partitions, 16 KiB batches and batches of one 256 B record"""
    counts = (1, 16, 100) if bench.quick else (1, 16, 100, 1000, 10000)
    for name, shape, options in (("16 KiB batches", MEDIUM, ()), ("256 B", SMALL, SMALL_JOURNAL)):
        with bench.brokers(ringlog_options=options, kafka_extra=SMALL_INDEXES) as sides:
            for count in counts:
                fit = [side for side in sides if side.driver or count <= KAFKA_PARTITIONS_MAX]
                bench.produce(f"{name}, {count} partitions", fit, count, shape)


def small(bench):
    """64 connections, one 256 B record in flight each, 16 partitions"""
    with bench.brokers(ringlog_options=SMALL_JOURNAL) as sides:
        bench.produce("64 connections, 1 x 256 B in flight", sides, 16, SMALL, disk=("commit", "--size", "16KiB", "--in-flight", 4))


def large(bench):
    """1 KiB records in 250 KiB batches, 16 partitions, beside the raw disk writing the same bytes twice"""
    with bench.brokers() as sides:
        bench.produce("250 KiB batches", sides, 16, LARGE, disk=twice(bench, "1MiB", 16))


def many(bench):
    """1,000 partitions, 16 KiB batches, beside the raw disk writing the same bytes twice"""
    count = 100 if bench.quick else 1000
    with bench.brokers(kafka_extra=SMALL_INDEXES) as sides:
        bench.produce(f"{count} partitions, 16 KiB batches", sides, count, MEDIUM, disk=twice(bench, "256KiB", count))


def drivers(bench):
    """The ring driver beside the glommio driver: small records, large batches, many partitions"""
    count = 100 if bench.quick else 1000
    for name, number, shape, options in (
        ("64 connections, 1 x 256 B in flight", 16, SMALL, SMALL_JOURNAL),
        ("250 KiB batches", 16, LARGE, ()),
        (f"{count} partitions, 16 KiB batches", count, MEDIUM, ()),
    ):
        with bench.brokers(ringlog_options=options, names=("ringlog", "ringlog-glommio")) as sides:
            if len(sides) < 2:
                return
            bench.produce(name, sides, number, shape, calls=True)


def twice(bench, frame, count):
    """The raw disk's run for a case: each byte written twice."""
    total = "256MiB" if bench.quick else "6GiB"
    return ("twice", "--frame", frame, "--in-flight", 4, "--partitions", count, "--total", total)


def cold(bench):
    """Cold, hot and tail read; produce p99 beside a cold reader and during destage rounds"""
    size = (128 << 20) if bench.quick else (4 << 30)
    tail = (32 << 20) if bench.quick else (256 << 20)
    with bench.brokers() as sides:
        for side in sides:
            fill(bench, side, "stored", size)
        for repeat in range(bench.repeat):
            for side in bench.in_turn(sides, repeat):
                reads(bench, side, repeat, size, tail)
                beside(bench, side, repeat)
        steady = ("commit", "--size", "4KiB", "--in-flight", 4, "--rate", 2000, "--seconds", bench.seconds)
        file = "256MiB" if bench.quick else "2GiB"
        for pattern, name in ((steady, "produce alone, 2,000/s"),
                              ((*steady, "--file", file, "--beside-reads", "256KiB"), "produce beside a cold reader"),
                              (twice(bench, "256KiB", 16), "produce during destage rounds")):
            for repeat in range(bench.repeat):
                bench.raw_disk(f"{name} (raw disk: latency of a commit)", repeat, pattern)
        if not bench.quick:
            bench.raw_read("cold read", size)


def fill(bench, side, topic, size):
    """Puts about `size` bytes into a topic of 16 partitions, at a rate that every side can take durably."""
    rate = 100_000
    seconds = max(1.0, size / (rate * 1024))
    bench.load.run(side, "produce", *LARGE, "--topic", topic, "--partitions", 16, "--rate", rate, "--warmup", 0,
                   "--duration", f"{seconds:.2f}", timeout_s=seconds + 600)


def read_all(bench, side, topic, *options):
    """One pass over a topic, with four connections."""
    return bench.load.run(side, "consume", "--topic", topic, "--connections", 4, "--until", "end", "--duration", 600,
                          "--max-bytes", 16 << 20, "--partition-max-bytes", 4 << 20, *options)


def reads(bench, side, repeat, size, tail):
    """The three reads of one side."""
    if side.driver:
        # Nothing of the topic stays in the server's memory.
        side.stop()
        side.start(*side.options)
    how = host.drop_caches(side.data)
    bench.record(f"cold read of {size >> 20} MiB", side, repeat, read_all(bench, side, "stored"), note=how)
    read_all(bench, side, "stored")
    bench.record(f"hot read of {size >> 20} MiB", side, repeat, read_all(bench, side, "stored"))
    topic = f"tail-{repeat}"
    fill(bench, side, topic, tail)
    result = bench.load.run(side, "consume", "--topic", topic, "--connections", 4, "--until", "repeat", "--warmup", 1,
                            "--duration", bench.seconds, "--max-bytes", 16 << 20, "--partition-max-bytes", 4 << 20)
    bench.record(f"tail read of {tail >> 20} MiB", side, repeat, result, note="over and over")


def beside(bench, side, repeat):
    """A steady producer alone, beside a reader that always reads cold, and beside bulk that keeps destage busy."""
    steady = ("--topic", f"steady-{repeat}", "--partitions", 16, "--connections", 16, "--in-flight", 4, "--record-size",
              256, "--batch-records", 1, "--rate", 2000, "--warmup", 2, "--duration", bench.seconds)
    bench.record("produce alone, 2,000/s", side, repeat, bench.load.run(side, "produce", *steady))

    over = threading.Event()
    dropper = threading.Thread(target=keep_cold, args=(side, over))
    reader = bench.load.begin(side, "consume", "--topic", "stored", "--connections", 2, "--until", "repeat", "--warmup", 0,
                              "--duration", bench.seconds + 4)
    dropper.start()
    try:
        result = bench.load.run(side, "produce", *steady)
    finally:
        over.set()
        dropper.join()
        read = bench.load.end(reader, 60 + bench.seconds)
    note = f"reader: {read['consume']['mb_per_s']:.0f} MB/s"
    bench.record("produce beside a cold reader", side, repeat, result, note=note)

    bulk = bench.load.begin(side, "produce", *LARGE, "--topic", f"bulk-{repeat}", "--partitions", 16, "--rate", 100_000,
                            "--warmup", 0, "--duration", bench.seconds + 3, "--delete-topics")
    try:
        result = bench.load.run(side, "produce", *steady)
    finally:
        beside_bulk = bench.load.end(bulk, 120 + bench.seconds)
    note = f"bulk beside it: {beside_bulk['produce']['mb_per_s']:.0f} MB/s"
    bench.record("produce during destage rounds", side, repeat, result, note=note)
    host.settle()


def keep_cold(side, over):
    """Empties the page cache again and again, without a flush that the producer would feel."""
    while not over.wait(0.5):
        host.drop_caches(side.data, write_back=False)


def e2e(bench):
    """End-to-end latency at 1,000 records a second, from intended send to receipt"""
    with bench.brokers() as sides:
        for repeat in range(bench.repeat):
            for side in bench.in_turn(sides, repeat):
                options = ("--topic", f"e2e-{repeat}", "--partitions", 1, "--record-size", 256, "--rate", 1000,
                           "--in-flight", 5, "--spin-us", 100, "--warmup", 2, "--duration", bench.seconds)
                result = bench.load.run(side, "e2e", *options, "--delete-topics")
                # The topic is another in each repetition.
                settings = "ringlog-load e2e " + " ".join(map(str, options[2:]))
                bench.record("1,000 records/s", side, repeat, result, settings=settings)


def restart(bench):
    """Start to ready empty; idle CPU and memory; start after kill -9 with much stored and many partitions"""
    side = bench.ringlog()
    try:
        for repeat in range(bench.repeat):
            start_empty(bench, side, repeat)
        start_full(bench, side)
    finally:
        side.stop()
        shutil.rmtree(side.data, ignore_errors=True)


def start_empty(bench, side, repeat):
    """Start with an empty directory, and what a server takes that does nothing."""
    shutil.rmtree(side.data, ignore_errors=True)
    ready_s = side.start()
    time.sleep(2)
    before, begun = host.cpu_seconds(side.pid), time.monotonic()
    time.sleep(2 if bench.quick else 10)
    share = (host.cpu_seconds(side.pid) - before) / (time.monotonic() - begun)
    figures = {"ready_s": ready_s, "idle_cpu_percent": 100 * share, "resident_mib": host.resident_bytes(side.pid) / host.MIB}
    side.stop()
    bench.record_figures("empty data directory", side, repeat, figures)


def start_full(bench, side):
    """Start after kill -9 with much stored."""
    count, size = (100, 256 << 20) if bench.quick else (10_000, 10_000_000_000)
    shutil.rmtree(side.data, ignore_errors=True)
    side.start()
    rate = 200_000
    options = ("--topic", "stored", "--partitions", count, *MEDIUM, "--rate", rate, "--warmup", 0)
    bench.load.run(side, "produce", *options, "--duration", f"{size / (rate * 1024):.1f}", timeout_s=900)
    for repeat in range(bench.repeat):
        # Closed loop, killed on the way: the journals are as full as they get.
        flood = bench.load.begin(side, "produce", "--topic", "stored", *MEDIUM, "--warmup", 0, "--duration", 600)
        try:
            time.sleep(2 if bench.quick else 6)
            side.kill()
        finally:
            flood.kill()
            flood.communicate()
        host.settle()
        host.drop_caches(side.data)
        ready_s = side.start()
        stored = folder_bytes(side.data / "topics")
        figures = {"ready_s": ready_s, "stored_gb": stored / 1e9, "resident_mib": host.resident_bytes(side.pid) / host.MIB}
        note = side.ready_text.partition("recovered ")[2].rstrip(")")
        bench.record_figures(f"after kill -9, {count} partitions", side, repeat, figures, note=f"recovered {note}")


ITEMS = {
    "partitions": partitions, "small": small, "large": large, "many": many, "cold": cold, "e2e": e2e,
    "restart": restart, "drivers": drivers, "compaction": compaction, "groups": groups, "commits": commits,
    "connections": connections, "transactions": transactions,
}


def describe():
    """The items for --help."""
    return "\n".join(f"  {name:<12} {item.__doc__}" for name, item in ITEMS.items())


def check_names(names):
    """The items by name; Failure for one that is none."""
    unknown = [name for name in names if name not in ITEMS]
    if unknown:
        raise Failure(f"{', '.join(unknown)}: no such item; there are {', '.join(ITEMS)}")
    return names
