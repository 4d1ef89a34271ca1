"""scripts/peers: other brokers to compare with, installed from their registries and started on this host."""

import argparse
import os
import sys
from pathlib import Path

import bench_host as host
import kafka
import peer_measure
from paths import ROOT
from process import Failure, LeftOut, end_like_interrupted

MEASURE = """examples:
  scripts/peers measure                                     # all of them, both sizes, about 40 minutes
  scripts/peers measure --only ringlog,rabbitmq --sizes 100 --repeat 1
  scripts/peers measure --repeat 1 --add                    # one more repetition into the same file, about 17 minutes
  scripts/peers measure --confirms --add                    # RabbitMQ: confirms against transactions
  scripts/peers measure --acks --add                        # ringlog and Kafka: acks 0, 1, all by flush policy, and kill -9
  ringlog-load claims --peers peers.json                    # puts the file beside this server's figures

What is not there is installed (Debian packages, Maven Central) or left out by name with the way to get it. Brokers start empty,
on the first half of the cores, and are stopped and removed at the end; the load runs on the other half. Nothing else should
run on the host.
"""


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/peers", description="Other brokers on this host: start and stop Kafka, measure them all.")
    peers = top.add_subparsers(dest="peer", required=True)
    actions = peers.add_parser("kafka", help="Apache Kafka, one KRaft node").add_subparsers(dest="action", required=True)
    start = actions.add_parser("start", help="install if needed, start, wait until it listens")
    start.add_argument("--port", type=int, help="port on loopback (default: a free one)")
    start.add_argument("--data", help="data folder, kept; without it an empty one under the cache")
    start.add_argument("--heap", default="512m", help="the JVM's heap (default 512m)")
    start.add_argument("--fsync", action="store_true", help="an fsync before every ack (log.flush.interval.messages=1)")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a broker property, repeatable")
    stop = actions.add_parser("stop", help="stop it")
    status = actions.add_parser("status", help="say whether it runs; exit code 3 when it does not")
    for action in (start, stop, status):
        action.add_argument("--name", default="kafka", help="which instance, when several run (default kafka)")
    measure_options(peers.add_parser("measure", help="messages a second of all brokers, each driven by its own tool, in turns: peers.json",
                                     epilog=MEASURE, formatter_class=argparse.RawDescriptionHelpFormatter))
    peers.add_parser("list", help="the systems that measure knows, and how to get them")
    tool = actions.add_parser("tool", help="run one of Kafka's own classes, e.g. org.apache.kafka.tools.TopicCommand")
    tool.add_argument("--heap", default="512m", help="the tool's heap (default 512m)")
    tool.add_argument("cls", metavar="CLASS")
    tool.add_argument("arguments", nargs=argparse.REMAINDER)
    return top


def measure_options(measure):
    """The options of `measure`."""
    measure.add_argument("--only", default=",".join(peer_measure.SYSTEMS), metavar="SYSTEM,...", help="systems (default: all)")
    measure.add_argument("--sizes", default="1024,100", metavar="BYTES,...", help="record sizes (default 1024,100)")
    measure.add_argument("--repeat", type=int, default=3, help="repetitions of everything (default 3, the fewest that decide anything)")
    measure.add_argument("--seconds", type=float, default=6.0, help="length of a window; tools that print each 5 or 10 s take that (default 6)")
    measure.add_argument("--warmup", type=float, default=3.0, help="load before a window (default 3)")
    measure.add_argument("--broker-warmup", type=float, default=60.0, metavar="SECONDS",
                         help="before the first window every broker is driven in each way until two successive runs of 5 s differ by at most "
                              "a tenth, at most so long (default 60)")
    measure.add_argument("--no-warm-up", action="store_true", help="leave that away")
    measure.add_argument("--confirms", action="store_true", help="RabbitMQ alone: single, batched and asynchronous confirms against transactions")
    measure.add_argument("--acks", action="store_true",
                         help="ringlog and Kafka: acks 0, 1 and all, with a flush before each ack and without, and what kill -9 loses")
    measure.add_argument("--add", action="store_true", help="add repetitions to what --out holds")
    measure.add_argument("--out", type=Path, default=Path("peers.json"), help="the results; a table goes beside it (default: peers.json)")
    measure.add_argument("--dir", type=Path, default=ROOT / "target", help="where the brokers' folders are made (default: target)")
    measure.add_argument("--server-cores", metavar="LIST", help="cores of the brokers, e.g. 0 or 0-3 (default: the first half)")
    measure.add_argument("--load-cores", metavar="LIST", help="cores of the load (default: the other half)")


def settle_arguments(args):
    """Fills in and checks what `measure` was given."""
    if args.confirms and args.acks:
        raise Failure("--confirms and --acks are runs of their own: one after the other, the second with --add")
    if args.acks:
        args.only = "ringlog,kafka"
    args.only = ["rabbitmq"] if args.confirms else [name.strip() for name in args.only.split(",") if name.strip()]
    unknown = [name for name in args.only if name not in peer_measure.SYSTEMS]
    if unknown or not args.only:
        raise Failure(f"{', '.join(unknown) or 'nothing'}: no such system; there are {', '.join(peer_measure.SYSTEMS)}")
    first, second = host.split_cores()
    try:
        args.sizes = [int(size) for size in args.sizes.split(",")]
        args.server_cores = host.core_list(args.server_cores) if args.server_cores else first
        args.load_cores = host.core_list(args.load_cores) if args.load_cores else second
    except ValueError:
        raise Failure("sizes are numbers of bytes, cores a list such as 0,2-3") from None
    if min(args.sizes) < 1 or args.repeat < 1 or args.seconds <= 0 or args.warmup < 0 or args.broker_warmup < 0:
        raise Failure("--sizes, --repeat and --seconds must be above 0")
    args.out, args.dir = args.out.resolve(), args.dir.resolve()
    return args


def describe(name, state):
    """One line about a running broker."""
    flush = "fsync before every ack" if state["fsync"] else "no fsync before an ack"
    return (
        f"{name}: Kafka {state['version']} at 127.0.0.1:{state['port']}, {flush}, pid {state['pid']}, data {state['data']}"
    )


def main():
    """Runs the command line; exit code 0 when it did what was asked."""
    args = parser().parse_args()
    if args.peer == "measure":
        return peer_measure.measure(settle_arguments(args))
    if args.peer == "list":
        for name, system in peer_measure.SYSTEMS.items():
            print(f"{name:<10}{system.name}: {system.how_to_install}")
        return 0
    if args.action == "tool":
        line = [str(word) for word in kafka.command(args.cls, *args.arguments, jvm=(f"-Xmx{args.heap}",))]
        os.execv(line[0], line)
    peer = kafka.Peer(args.name)
    if args.action == "start":
        extra = dict(setting.split("=", 1) for setting in args.set)
        print(describe(args.name, peer.start(args.port, args.data, args.fsync, args.heap, extra)))
    elif args.action == "stop":
        print(f"{args.name}: stopped" if peer.stop() else f"{args.name}: was not running")
    else:
        state = peer.running()
        print(describe(args.name, state) if state else f"{args.name}: not running")
        return 0 if state else 3
    return 0


if __name__ == "__main__":
    end_like_interrupted()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("peers: interrupted")
    except (Failure, LeftOut) as reason:
        sys.exit(f"peers: {reason}")
