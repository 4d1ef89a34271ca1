"""Offset commits of many groups: what they cost, and when a broker that was killed serves the groups again."""

import json
import subprocess

import bench_host as host
from process import Failure, last_line

# The same on both sides: nobody waits for more members, since each group has one; 50 partitions are the default of both.
BROKER = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "50"}
CASES = {"without members": "none", "one member each": "classic"}
# So long a broker is written to before it is killed (a JVM longer: at first it answers late), and so long it may take to serve
# all groups again.
BEFORE_KILL_S, BEFORE_KILL_JVM_S, PATIENCE_S = 5, 12, 120


def commits(bench):
    """5,000 groups that each commit an offset every second: share of a core, reply; then kill -9, until all are served again"""
    count = 500 if bench.quick else 5000
    options = [word for name, value in BROKER.items() for word in ("--set", f"{name}={value}")]
    with bench.brokers(options, kafka_extra=BROKER, warm_up=False) as sides:
        for side in sides:
            seconds = 1 if side.driver else bench.args.jvm_warmup / 2
            bench.load.run(side, "commits", "--groups", count, "--group-prefix", "warm-up", "--warmup", 0, "--duration", seconds)
        for name, membership in CASES.items():
            for repeat in range(bench.repeat):
                for side in bench.in_turn(sides, repeat):
                    host.settle()
                    steady(bench, side, repeat, count, name, membership)
        for repeat in range(bench.repeat):
            for side in bench.in_turn(sides, repeat):
                host.settle()
                restored(bench, side, repeat, count)


def steady(bench, side, repeat, count, name, membership):
    """One window of commits."""
    options = ("--groups", count, "--group-prefix", f"{membership}-{repeat}", "--membership", membership)
    window = ("--warmup", bench.warmup, "--duration", bench.seconds)
    result = bench.load.run(side, "commits", *options, *window)
    figures, note = figures_of(result)
    bench.record_figures(
        f"{count:,} groups, a commit each second, {name}", side, repeat, figures, note=note,
        settings="ringlog-load commits " + " ".join(map(str, options)), raw={"load": result},
    )


def figures_of(result):
    """(figures, note) of what `ringlog-load commits` found."""
    told, server = result["commits"], result["server"] or {}
    figures = {
        "commits_per_s": told["per_s"], "p50_us": told["latency_us"]["p50"], "p99_us": told["latency_us"]["p99"],
        "cores": server.get("cores"), "cpu_us_per_commit": server.get("cpu_us_per_commit"),
        "written_per_commit": server.get("write_bytes_per_commit"),
    }
    notes = []
    if result["heartbeats"]:
        notes.append(f"{result['heartbeats']['per_s']:.0f} heartbeats/s")
    if result["behind_s"] > 0.05:
        notes.append(f"the rate was not reached: {result['behind_s']:.1f} s behind")
    if result["errors_total"]:
        notes.append(f"{result['errors_total']} errors")
    return figures, "; ".join(notes)


def restored(bench, side, repeat, count):
    """kill -9 under load, start, and every group's offset is asked for until all are told."""
    book = bench.folder / f"{side.name}-book"
    load = bench.load.begin(
        side, "commits", "--groups", count, "--group-prefix", f"killed-{repeat}", "--book", book, "--until-broken", "--warmup", 0,
        "--duration", 600,
    )
    wait_for_commits(load, BEFORE_KILL_S if side.driver else BEFORE_KILL_JVM_S)
    side.kill()
    result = bench.load.end(load, 60)
    if not result["broken"]:
        raise Failure("the load did not notice that the broker was killed")
    ready_s = side.restart()
    found = check(bench, side, book)
    figures = {"ready_s": ready_s, "served_s": found["served_s"], "resident_mib": host.resident_bytes(side.pid) / host.MIB}
    note = f"{found['exact']} groups at the offset acknowledged last, {found['unacked_found']} at one that was under way"
    if not side.driver:
        note += "; the start includes a run of Kafka's storage tool"
    case = f"{count:,} groups after kill -9, asked for from ready on"
    if not found["passed"]:
        note = f"NOT RESTORED: {found['lost']} groups behind, {found['foreign']} ahead, {found['examples'][:1]}"
        bench.record_figures(case, side, repeat, {}, note=note, raw={"check": found})
        raise Failure(f"{side.name}, {case}: {note}")
    bench.record_figures(case, side, repeat, figures, note=note, raw={"check": found})


def wait_for_commits(load, seconds):
    """Lets a load run for a while; Failure if it ends by itself."""
    try:
        load.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise Failure(f"the load generator ended with {load.returncode} before the broker was killed")


def check(bench, side, book):
    """What `ringlog-load check-commits` finds."""
    command = [bench.load.binary, "check-commits", "--book", book, "--bootstrap", side.bootstrap, "--patience", PATIENCE_S, "--json"]
    with open(bench.log, "ab") as sink, host.pinned(bench.load_cores):
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=sink, timeout=PATIENCE_S + 60, check=False)
    if done.returncode not in (0, 1):
        raise Failure(f"the groups could not be read back: {last_line(bench.log)}")
    return json.loads(done.stdout)
