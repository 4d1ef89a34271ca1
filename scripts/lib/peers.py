"""scripts/peers: other brokers to compare with, installed from their registries and started on this host."""

import argparse
import os
import sys

import kafka
from process import Failure, LeftOut


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/peers", description="Start and stop other brokers on this host.")
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
    tool = actions.add_parser("tool", help="run one of Kafka's own classes, e.g. org.apache.kafka.tools.TopicCommand")
    tool.add_argument("--heap", default="512m", help="the tool's heap (default 512m)")
    tool.add_argument("cls", metavar="CLASS")
    tool.add_argument("arguments", nargs=argparse.REMAINDER)
    return top


def describe(name, state):
    """One line about a running broker."""
    flush = "fsync before every ack" if state["fsync"] else "no fsync before an ack"
    return (
        f"{name}: Kafka {state['version']} at 127.0.0.1:{state['port']}, {flush}, pid {state['pid']}, data {state['data']}"
    )


def main():
    """Runs the command line; exit code 0 when it did what was asked."""
    args = parser().parse_args()
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
    try:
        sys.exit(main())
    except (Failure, LeftOut) as reason:
        sys.exit(f"peers: {reason}")
