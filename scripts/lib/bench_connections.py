"""Many connections: what silent ones cost, and what they do to those at work."""

import resource

import bench_host as host
from process import Failure

# ringlog serves 10,000 connections a shard unless told otherwise.
MAX_CONNECTIONS = ("--set", "max.connections=13000")
RECORD = ("--in-flight", 1, "--record-size", 256, "--batch-records", 1, "--partitions", 16)
# A rate that every side can take durably: what is late then is not for want of throughput.
RATE = 2000
# Files of a broker besides its connections.
OTHER_FILES = 2000


def connections(bench):
    """2,000 connections at work, alone and beside 10,000 silent ones: memory of each, throughput, latency"""
    idle, active = (500, 100) if bench.quick else (10_000, 2_000)
    needs(idle + active + OTHER_FILES)
    loads = {
        "one 256 B record in flight each": ("--connections", active),
        f"{RATE:,} records a second": ("--connections", active, "--rate", RATE),
    }
    with bench.brokers(MAX_CONNECTIONS) as sides:
        for name, load in loads.items():
            for repeat in range(bench.repeat):
                for side in bench.in_turn(sides, repeat):
                    for silent in (0, idle):
                        host.settle()
                        beside = f"beside {silent:,} silent ones" if silent else "alone"
                        options = ("--topic", f"t{len(bench.runs)}", *load, *RECORD, "--idle-connections", silent)
                        window = ("--warmup", bench.warmup, "--duration", bench.seconds, "--delete-topics")
                        result = bench.load.run(side, "produce", *options, *window)
                        case = f"{active:,} connections {beside}, {name}"
                        settings = "ringlog-load produce " + " ".join(map(str, options[2:]))
                        more, note = figures_of(result)
                        bench.record(case, side, repeat, result, settings=settings, note=note, more=more)


def figures_of(result):
    """(figures, note) of the silent connections of a run."""
    idle = result.get("idle")
    if not idle:
        return {}, ""
    if idle["closed_by_broker"]:
        raise Failure(f"{idle['closed_by_broker']} of {idle['connections']} silent connections were closed by the broker")
    figures = {"bytes_per_connection": idle["server_bytes_per_connection"]}
    if idle["with"]:
        figures["descriptors"] = idle["with"]["descriptors"]
        figures["resident_mib"] = idle["with"]["resident_bytes"] / host.MIB
    return figures, f"silent ones made in {idle['open_s']:.1f} s"


def needs(descriptors):
    """Failure where a process may not have so many files open, which neither brokers nor load can raise."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit not in (resource.RLIM_INFINITY, -1) and limit < descriptors:
        raise Failure(
            f"{descriptors} open files are needed, {limit} are allowed: raise the hard limit with 'ulimit -Hn {descriptors}'"
        )
