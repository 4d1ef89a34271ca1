"""scripts/compat: the clients of others against a broker, each as a check of its own."""

import argparse
import shutil
import sys
from pathlib import Path

import kafka
from broker import KafkaBroker, RinglogBroker
from clients import JavaConsole
from lines import generate, prepare
from paths import CACHE
from process import Failure, LeftOut, free_ports
from report import Report


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/compat", description=__doc__)
    top.add_argument("--broker", choices=("ringlog", "kafka"), default="ringlog", help="what to test (default ringlog)")
    top.add_argument("--only", nargs="+", metavar="NAME", help="only the checks with these names or below them")
    top.add_argument("--logs", type=Path, help="folder of log files to write (default: generated lines)")
    top.add_argument("--shards", type=int, default=2, help="ringlog's shards (default 2)")
    top.add_argument("--keep", action="store_true", help="leave the broker running at the end and keep its data")
    top.add_argument("--list", action="store_true", help="print the checks' names and end")
    return top


def self_check(report, work, files):
    """Proves the peers and the reading back on Apache Kafka itself."""
    broker = KafkaBroker(work, shards=1)
    client = JavaConsole()

    def round_trip(log):
        broker.start()
        topic, path = next(iter(files.plain.items()))
        client.produce(broker.bootstrap, log, {topic: path}, "lz4")
        out = work / "read"
        client.consume(broker.bootstrap, log, [topic], files.count[topic], out)
        files.compare({topic: path}, out, log)

    try:
        report.check("peers/kafka", round_trip)
    finally:
        broker.stop()


def main():
    """Runs the command line. Exit code 0 when nothing failed."""
    args = parser().parse_args()
    work = CACHE / "run" / str(free_ports())
    logs = work / "log"
    logs.mkdir(parents=True)
    report = Report(logs)
    files = prepare(args.logs or generate(work / "generated"), work / "lines")
    if args.broker == "ringlog" and not RinglogBroker.in_tree():
        print("compat: this tree has no ringlog-server yet; only the peers are checked")
        self_check(report, work, files)
    if not report.failed and not args.keep:
        shutil.rmtree(work)
    return report.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, LeftOut) as reason:
        sys.exit(f"compat: {reason}")
