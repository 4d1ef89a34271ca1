"""scripts/compat: the clients of others against a broker, each as a check of its own."""

import argparse
import shutil
import sys
from pathlib import Path

import agents
import bad_input
import checks
import compaction
import connect
import consumer_groups
import mirror
import special
import streams
import suites
import upstream
import wire
from broker import KafkaBroker, RinglogBroker
from clients import Java, everyone
from lines import generate, prepare
from paths import CACHE
from process import Failure, LeftOut, end_like_interrupted, free_ports
from report import Report

# Only run when named, or with all: each takes a minute or more.
OPT_IN = ("streams/word-count/at_least_once", "kgo-suite", "kafka-python-suite")


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/compat", description=__doc__)
    top.add_argument("--broker", choices=("ringlog", "kafka"), default="ringlog", help="what to test (default ringlog)")
    top.add_argument("--only", nargs="+", metavar="NAME", help="only the checks with these names or below them")
    top.add_argument("--all", action="store_true", help="also the long checks that otherwise run only when named")
    top.add_argument("--logs", type=Path, help="folder of log files to write (default: generated lines)")
    top.add_argument("--shards", type=int, default=2, help="ringlog's shards (default 2)")
    top.add_argument("--records", type=int, default=200_000, help="records for mirror (default 200,000)")
    top.add_argument("--minutes", type=float, default=0.2, help="how long agents send (default 0.2)")
    top.add_argument("--keep", action="store_true", help="leave the broker running at the end, and keep its data")
    top.add_argument("--list", action="store_true", help="print the checks' names and end")
    return top


def all_checks(context):
    """Every check: its name, its body, and the APIs that it needs beyond those that every check needs."""
    for family in (
        checks.lines_checks, checks.idempotent_checks, checks.transaction_checks, checks.group_checks,
        checks.time_checks, checks.admin_checks,
        special.rsyslog_checks, special.java_checks, special.segment_checks,
        bad_input.bad_input_checks, consumer_groups.consumer_group_checks, suites.group_heavy_checks,
        suites.exactly_once_checks, suites.shard_checks, streams.streams_checks, connect.connect_checks, mirror.mirror_checks,
        compaction.compaction_checks, agents.agent_checks, upstream.upstream_checks,
    ):
        for name, body, *needs in family(context):
            yield name, body, needs[0] if needs else ()


def wanted(name, only, every):
    """Whether a check is to run: named, below a name, or no names given."""
    if not only:
        return every or not name.startswith(OPT_IN)
    return any(name == asked or name.startswith(asked.rstrip("/") + "/") for asked in only)


def installed(clients, report):
    """The clients that are there or could be installed; the others are left out by name."""
    found = []
    for client in clients:
        try:
            client.command()
            found.append(client)
        except LeftOut as reason:
            report.leave_out(client.name, str(reason))
    return found


def run_checks(report, context, only, every):
    """Runs the checks that are wanted, one by one, as long as the broker lives."""
    offered = wire.api_versions(context.broker.port)
    ran = 0
    for name, body, needs in all_checks(context):
        if not wanted(name, only, every):
            continue
        ran += 1
        missing = [str(api) for api in needs if api not in offered]
        if missing:
            report.leave_out(name, f"{context.broker.name} does not offer API {', '.join(missing)}")
            continue
        report.check(name, body)
        if not context.broker.alive():
            report.failed.append(("broker", f"{context.broker.what} ended during {name} (log: {context.broker.log})"))
            return
    if not ran:
        raise Failure(f"no check is called {' or '.join(only)}; --list prints the names")
    if not only and not every:
        for name in OPT_IN:
            report.leave_out(name, f"runs when named: --only {name}, or with --all")


def self_check(report, work, files):
    """Proves the peers and the reading back on Apache Kafka itself."""
    broker = KafkaBroker(work / "broker", shards=1)
    client = Java()

    def round_trip(log):
        broker.start()
        topic, path = next(iter(files.plain.items()))
        client.produce(broker.bootstrap, log, {topic: path}, "lz4")
        out = work / "read"
        client.consume(broker.bootstrap, log, {topic: files.count[topic]}, out)
        files.compare({topic: path}, out, log)

    try:
        report.check("peers/kafka", round_trip)
    finally:
        broker.stop()


def test_broker(args, report, work, files):
    """Starts the broker, runs the checks, stops it."""
    broker = (RinglogBroker if args.broker == "ringlog" else KafkaBroker)(work / "broker", args.shards)
    clients = installed(everyone(), report)
    broker.start()
    try:
        print(f"broker: {broker.what} at {broker.bootstrap}; {sum(files.count.values())} lines in {len(files.count)} files")
        run_checks(report, checks.Context(broker, files, work, clients, args.records, args.minutes), args.only, args.all)
    finally:
        if args.keep:
            print(f"broker left running at {broker.bootstrap} (log: {broker.log})")
        else:
            broker.stop()


def main():
    """Runs the command line. Exit code 0 when nothing failed."""
    args = parser().parse_args()
    if args.list:
        context = checks.Context(None, None, None, everyone())
        print("\n".join(name for name, _, _ in all_checks(context)))
        return 0
    work = CACHE / "run" / str(free_ports())
    logs = work / "log"
    logs.mkdir(parents=True)
    report = Report(logs)
    files = prepare(args.logs or generate(work / "generated"), work / "lines")
    if args.broker == "ringlog" and not RinglogBroker.in_tree():
        print("compat: this tree has no ringlog-server yet; only the peers are checked")
        self_check(report, work, files)
    else:
        test_broker(args, report, work, files)
    if not report.failed and not args.keep:
        for path in work.iterdir():
            # The logs stay when something had to be tried twice: they say why.
            if path != logs or not report.repeated:
                shutil.rmtree(path)
        if not report.repeated:
            work.rmdir()
    return report.finish()


if __name__ == "__main__":
    end_like_interrupted()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("compat: interrupted")
    except (Failure, LeftOut) as reason:
        sys.exit(f"compat: {reason}")
