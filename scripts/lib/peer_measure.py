"""scripts/peers measure: brokers on the same host at the same record size, durable and not, each driven by its own load tool,
in turns."""

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import bench_host as host
from paths import ROOT
from peer_activemq import ActiveMq
from peer_rabbitmq import RabbitMq
from peer_rocketmq import RocketMq
from peer_systems import DURABLE, VOLATILE, KafkaSystem, RinglogSystem
from peer_tool import STEADY_SHARE, STEP_S, warm
from process import Failure, LeftOut

# Rises when a field changes its meaning or goes; benches/METHOD.md describes the file.
SCHEMA = 1
SYSTEMS = {"ringlog": RinglogSystem, "kafka": KafkaSystem, "rocketmq": RocketMq, "rabbitmq": RabbitMq, "activemq": ActiveMq}
# What makes two runs repetitions of one entry.
KEY = ("group", "system", "version", "tool", "shape", "settings", "durable", "record_bytes", "warmup_s", "seconds")
# What belongs to a single run; the last two only to those that end with a kill.
REPEATED = ("messages_per_s", "idle_peers_share", "steal_share", "acked", "lost_per_million")
CONFIRM_BYTES = 1024


class Run:
    """What every system is told: folder, cores, warm-up."""

    def __init__(self, args, folder):
        self.folder, self.warmup, self.seconds = Path(folder), args.warmup, args.seconds
        self.server_cores, self.load_cores = args.server_cores, args.load_cores
        described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        self.version = described.stdout.strip() or "unknown"


class Measure:
    """One call of the command."""

    def __init__(self, args, folder, keep):
        self.args, self.run, self.keep = args, Run(args, folder), keep
        self.left_out, self.results, self.warm_ups = [], [], []

    def leave_out(self, system, reason):
        """Notes, once, what is not measured, why, and how to get it."""
        entry = {"system": system.name, "reason": str(reason), "install": system.how_to_install}
        if entry not in self.left_out:
            self.left_out.append(entry)
            say(f"left out: {system.name}: {reason}\n  to get it: {system.how_to_install}")
            self.keep(self)

    def measure(self):
        """Installs, starts, warms up, measures in turns, stops."""
        with contextlib.ExitStack() as cleaning:
            systems = []
            for name in self.args.only:
                system = SYSTEMS[name](self.run)
                try:
                    system.install()
                    # Also after a start that broke off half way.
                    cleaning.callback(system.stop)
                    system.start()
                    systems.append((system, self._cases(system)))
                    say(f"{system.name} {system.version} is up")
                except (LeftOut, Failure) as reason:
                    self.leave_out(system, reason)
            turns = [(system, case, size) for size in self._sizes() for system, cases in systems for case in cases]
            if not self.args.no_warm_up:
                self._warm_up(systems)
            for repetition in range(self.args.repeat):
                # Each repetition begins elsewhere: what drifts meets all alike.
                start = repetition * len(turns) // max(1, self.args.repeat)
                for system, case, size in turns[start:] + turns[:start]:
                    self._once(systems, system, case, size)

    def _sizes(self):
        return [CONFIRM_BYTES] if self.args.confirms or self.args.acks else self.args.sizes

    def _cases(self, system):
        if self.args.acks:
            return system.by_acks()
        return system.ways() if self.args.confirms else system.cases()

    def _group(self, case):
        if self.args.acks:
            return "kill" if "kill" in case.shape else "acks"
        return "confirms" if self.args.confirms else "throughput"

    def _warm_up(self, systems):
        """A JVM compiles what it runs often: every broker gets load, until it takes as much as just before, ahead of what counts."""
        size, limit_s = self._sizes()[0], self.args.broker_warmup
        for system, cases in systems:
            for case in system.warm_up(cases):
                try:
                    seen = warm(lambda case=case: figure_of(case.body(size, STEP_S)), limit_s)
                except Failure as reason:
                    say(f"{system.name}, {case.shape}: the warm-up broke off: {reason}")
                    continue
                durability = "durable" if case.durable else "not durable"
                self.warm_ups.append({"system": system.name, "shape": case.shape, "durable": case.durable, "record_bytes": size,
                                      "rates": seen.rates, "steady": seen.steady})
                steady = "steady" if seen.steady else f"still changing after {limit_s:g} s"
                say(f"  {system.name}, {durability}, {case.shape}: {', '.join(f'{rate:,.0f}' for rate in seen.rates)} messages/s: {steady}")

    def _once(self, systems, system, case, size):
        others = [pid for other, _ in systems if other is not system for pid in other.pids()]
        host.settle()
        before, begun, stolen = cpu(others), time.monotonic(), steal()
        try:
            rate = case.body(size, self.run.seconds)
        except Failure as reason:
            self.leave_out(system, f"{case.shape}, {size} B: {reason}")
            return
        found = rate if isinstance(rate, dict) else {"messages_per_s": rate}
        rate = figure_of(found)
        elapsed = (time.monotonic() - begun) * len(set(self.run.server_cores + self.run.load_cores))
        self.results.append({
            **found, "group": self._group(case), "system": system.name, "version": system.version,
            "tool": case.tool, "shape": case.shape, "settings": case.settings, "durable": case.durable, "record_bytes": size,
            "warmup_s": self.run.warmup, "seconds": self.run.seconds, "idle_peers_share": max(0.0, cpu(others) - before) / elapsed, "steal_share": (steal() - stolen) / elapsed,
        })
        self.keep(self)
        durability = "durable" if case.durable else "not durable"
        say(f"  {system.name}, {size} B, {durability}, {case.shape}, {case.tool.split()[0]}: {rate:,.0f} messages/s")


def figure_of(found):
    """Messages a second of what a case's body returned."""
    return found["messages_per_s"] if isinstance(found, dict) else found


def cpu(pids):
    """CPU seconds of processes that are still there."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += host.cpu_seconds(pid)
    return total


def steal():
    """Seconds that the hypervisor took from all processors."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / 100


def say(text):
    """Progress, at once."""
    print(text, flush=True)


def spread(values):
    """Median with the smallest and the largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def entries(results, known=()):
    """Single runs as entries, behind the repetitions of those that are known."""
    found = {tuple(entry[name] for name in KEY): dict(entry) for entry in known}
    for result in results:
        key = tuple(result[name] for name in KEY)
        entry = found.setdefault(key, {**{name: result[name] for name in KEY}, "repetitions": []})
        entry["repetitions"] = [*entry["repetitions"], {
            name: result[name] for name in REPEATED if name in result
        }]
    for entry in found.values():
        rates = [repetition["messages_per_s"] for repetition in entry["repetitions"]]
        entry["durability"] = DURABLE if entry["durable"] else VOLATILE
        entry["messages_per_s"] = spread(rates)
        entry["mb_per_s"] = spread([rate * entry["record_bytes"] / 1e6 for rate in rates])
        entry["spread"] = (max(rates) - min(rates)) / statistics.median(rates)
    return list(found.values())


def document(measure, before):
    """peers.json."""
    args, run = measure.args, measure.run
    settings = {"server_cores": run.server_cores, "load_cores": run.load_cores}
    known, left_out, warm_ups = [], list(measure.left_out), measure.warm_ups
    if before:
        if before["settings"] != settings or before["host"] != host.facts(args.dir):
            raise Failure(f"{args.out} was measured on other cores or on another host: name another --out, or leave --add away")
        known, warm_ups = before["entries"], [*before.get("warm_ups", []), *warm_ups]
        left_out = [entry for entry in before["left_out"] if entry not in left_out] + left_out
    return {"schema": SCHEMA, "host": host.facts(args.dir), "settings": settings, "left_out": left_out,
            "warm_ups": warm_ups, "entries": entries(measure.results, known)}


def load(path):
    """A peers.json that is there; Failure when it is none."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Failure(f"{path}: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise Failure(f"{path} is no peers.json of schema {SCHEMA}")
    return found


def figure(value):
    """Median [smallest–largest]."""
    return f"{value['median']:,.0f} [{value['min']:,.0f}–{value['max']:,.0f}]"


def markdown(found):
    """The results for people."""
    what = found["settings"]
    lines = [
        "# Other brokers on this host", "",
        f"Host: {host.describe(found['host'])}. Brokers on cores {what['server_cores']}, load on cores {what['load_cores']}; all brokers "
        "run, one is driven at a time, in turns. Medians [smallest–largest] over the repetitions.",
    ]
    groups = (("throughput", "Messages a second"), ("confirms", "How a publisher learns that a message is there"),
              ("acks", "Messages a second by acks and flush policy"), ("kill", "Load under which a broker was killed"))
    for group, title in groups:
        for size in sorted({entry["record_bytes"] for entry in found["entries"] if entry["group"] == group}):
            lines += ["", f"## {title}, {size} B", "", "| system | driven | durability | messages/s | MB/s | runs | tool and settings |", "|---" * 7 + "|"]
            lines += [row(entry) for entry in found["entries"] if (entry["group"], entry["record_bytes"]) == (group, size)]
    unsteady = sorted({f"{warm_up['system']}, {warm_up['shape']}" for warm_up in found.get("warm_ups", []) if not warm_up["steady"]})
    if unsteady:
        lines += ["", f"Still changing by more than {STEADY_SHARE:.0%} from one run of {STEP_S} s to the next when their warm-up ended: "
                  f"{'; '.join(unsteady)}."]
    if found["left_out"]:
        lines += ["", *(f"- left out: {entry['system']}: {entry['reason']} (to get it: {entry['install']})" for entry in found["left_out"])]
    return "\n".join(lines) + "\n"


def row(entry):
    """An entry as a row of the table."""
    lost = [run["lost_per_million"] for run in entry["repetitions"] if "lost_per_million" in run]
    shape = f"{entry['shape']}: {max(lost):,.0f} lost of a million acknowledged" if lost else entry["shape"]
    return (f"| {entry['system']} {entry['version']} | {shape} | {entry['durability']} | {figure(entry['messages_per_s'])} | "
            f"{entry['mb_per_s']['median']:,.1f} | {entry['messages_per_s']['n']} | `{entry['tool']}`; {entry['settings']} |")


def write(work, before):
    """Writes peers.json and its table, with all that was measured so far."""
    found = document(work, before)
    work.args.out.parent.mkdir(parents=True, exist_ok=True)
    work.args.out.write_text(json.dumps(found, indent=1) + "\n")
    work.args.out.with_suffix(".md").write_text(markdown(found))
    return found


def measure(args):
    """The whole command. Exit code 0 when something was measured and nothing broke off."""
    before = load(args.out) if args.add and args.out.exists() else None
    args.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peers-", dir=args.dir) as folder:
        # Written after every run: what was measured is kept, whatever comes.
        work = Measure(args, folder, lambda work: write(work, before))
        host.touch_memory(folder, min(2 << 30, host.free_bytes(folder) // 4))
        work.measure()
    if not work.results:
        raise Failure("nothing could be measured")
    say(markdown(write(work, before)))
    say(f"written to {args.out} and {args.out.with_suffix('.md')}")
    return 0
