"""Records in transactions beside the same batches without any, and how long a commit takes."""

import bench_host as host

# Records of a transaction, and of a batch up to the most that one holds here.
SIZES = (1, 10, 100, 1000)
BATCH_RECORDS_MAX = 100
SHAPE = ("--partitions", 16, "--connections", 8, "--in-flight", 5, "--record-size", 256)


def transactions(bench):
    """Transactions of 1, 10, 100 and 1,000 records beside the same batches without any, and the latency of a commit"""
    with bench.brokers() as sides:
        for side in sides:
            warm_up(bench, side)
        for size in SIZES:
            for repeat in range(bench.repeat):
                for side in bench.in_turn(sides, repeat):
                    pair(bench, side, repeat, size)


def options(size, transactional):
    """The load with so many records a transaction, or with the batches of that and no transaction."""
    how = ("--transactional", "--transaction-records", size) if transactional else ("--idempotent",)
    return (*SHAPE, "--batch-records", min(size, BATCH_RECORDS_MAX), *how)


def warm_up(bench, side):
    """Transactions are code of their own, which a JVM compiles when it has run for a while."""
    seconds = bench.args.jvm_warmup / 2 if not side.driver else min(1, bench.args.jvm_warmup)
    bench.load.run(side, "produce", *options(10, True), "--topic", "warm-up", "--warmup", 0, "--duration", seconds,
                   "--delete-topics")


def pair(bench, side, repeat, size):
    """One run without transactions and one with: what is measured in between meets both alike."""
    records = "record" if size == 1 else "records"
    plain = None
    for transactional, case in ((False, f"{size:,} {records}: plain"), (True, f"{size:,} {records}: transactions")):
        host.settle()
        shape = options(size, transactional)
        settings = f"ringlog-load produce {' '.join(map(str, shape))} --acks all"
        result = bench.load.run(side, "produce", *shape, "--topic", f"t{len(bench.runs)}", "--warmup", bench.warmup,
                                "--duration", bench.seconds, "--delete-topics")
        records_per_s = result["produce"]["records_per_s"]
        more = {"of_plain": records_per_s / plain} if plain else None
        bench.record(case, side, repeat, result, settings=settings, more=more)
        plain = records_per_s
