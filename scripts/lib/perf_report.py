"""scripts/perf-report: where server and load spend their time, as a table."""

import json
import sys

import profile_run
from process import Failure, LeftOut, end_like_interrupted

NAMES = {"raw_syscalls:sys_enter": "system_calls", "context-switches": "context_switches", "cpu-migrations": "migrations",
         "page-faults": "page_faults"}


def parser():
    """The command line."""
    top = profile_run.arguments("perf-report", "The functions that take the time of ringlog-server and its load under a workload, by thread, with "
                                               "the shares of user and kernel mode; and system calls and context switches a second and an ack.")
    top.add_argument("--top", type=int, default=10, help="functions of each thread (default 10)")
    top.add_argument("--json", action="store_true", help="one JSON object: schema, workload, notes, load, counts, threads")
    return top


def per_request(counts, seconds, requests_per_s):
    """{name: {a_second, a_request}} of what the kernel counted in some seconds."""
    found = {}
    for event, name in NAMES.items():
        if event in counts:
            rate = counts[event] / seconds
            found[name] = {"per_s": rate, "per_request": rate / requests_per_s if requests_per_s else None}
    return found


def document(done, threads, args):
    """Everything as one object."""
    role = done.result.get("produce") or done.result["consume"]
    rate = role["requests_per_s"]
    load = {name: role[name] for name in ("records_per_s", "requests_per_s", "mb_per_s", "latency_us")}
    counts = {name: per_request(found, args.seconds, rate) for name, found in done.counts.items()}
    missing = [event for event in profile_run.COUNTED if event not in done.counts.get("server", {})]
    notes = done.notes + ([f"Not counted here: {', '.join(missing)} (tracepoints need tracefs and the right to use it)."] if missing else [])
    return {"schema": 1, "workload": done.title, "notes": notes, "seconds": args.seconds, "hz": args.hz, "load": load, "counts": counts,
            "threads": threads}


def show(found, table):
    """The object for people."""
    load = found["load"]
    lines = [found["workload"], *found["notes"], "",
             f"{load['requests_per_s']:,.0f} acks or fetches/s, {load['records_per_s']:,.0f} records/s, {load['mb_per_s']:,.1f} MB/s, "
             f"p50 {load['latency_us']['p50']:,.0f} µs, p99 {load['latency_us']['p99']:,.0f} µs (perf's own cost included)", ""]
    for process, counts in found["counts"].items():
        for name, value in counts.items():
            share = "" if value["per_request"] is None else f", {value['per_request']:.3f} an ack or fetch"
            lines.append(f"{process:<7}{name.replace('_', ' '):<17}{value['per_s']:>12,.0f} a second{share}")
    return "\n".join([*lines, "", table])


def main():
    """Records and prints; exit code 0 when there is a table."""
    args = parser().parse_args()
    with profile_run.session(args, waits=False, counts=True) as session:
        done = session.run()
        words = ("table", "--on-cpu", done.on_cpu, *done.process_options(), "--hz", args.hz, "--seconds", args.seconds, "--top", args.top)
        found = document(done, json.loads(session.flame(*words, "--json")), args)
        table = session.flame(*words)
    print(json.dumps(found, indent=1) if args.json else show(found, table))
    return 0


if __name__ == "__main__":
    end_like_interrupted()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("perf-report: interrupted")
    except (Failure, LeftOut) as reason:
        print(f"perf-report: {reason}", file=sys.stderr)
        sys.exit(2)
