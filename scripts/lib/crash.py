"""scripts/crash: kills the broker without warning while it is under load, again and again. Every acknowledged record must
be there once and in order, and nothing that a consumer read may be gone. With --transactions the load copies topics exactly
once, and the copiers are killed as well."""

import argparse
import json
import random
import shutil
import sys
import time

import copiers
import wire
from broker import KafkaBroker, RinglogBroker, binaries, build
from checks import eventually
from crash_transactions import Transactions
from paths import CACHE
from process import Failure, LeftOut, end_like_interrupted, free_ports, run, start, stop
from watch import Watcher

# Shapes of load, picked at random: options of `ringlog-load produce`, and partitions.
SHAPES = {
    "small": (16, ["--connections", "16", "--record-size", "256", "--batch-records", "1"]),
    "small-idempotent": (4, ["--connections", "8", "--record-size", "200", "--batch-records", "1", "--idempotent"]),
    "pipelined": (8, ["--connections", "4", "--in-flight", "5", "--batch-bytes", "16384", "--idempotent"]),
    "many-partitions": (200, ["--connections", "4", "--in-flight", "4", "--batch-bytes", "4096"]),
    "large": (4, ["--connections", "2", "--in-flight", "2", "--batch-bytes", "256000"]),
    "lz4": (6, ["--connections", "4", "--in-flight", "4", "--batch-bytes", "65536", "--compression", "lz4"]),
}


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="scripts/crash", description=__doc__)
    top.add_argument("--broker", choices=("ringlog", "kafka"), default="ringlog", help="what to kill (default ringlog)")
    top.add_argument("--rounds", type=int, default=50, help="how often (default 50)")
    top.add_argument("--shards", type=int, default=2, help="ringlog's shards (default 2)")
    top.add_argument("--transactions", action="store_true", help="exactly-once copiers as the load; broker and copiers are killed")
    top.add_argument("--copier", nargs="+", choices=copiers.KINDS, default=list(copiers.KINDS), metavar="NAME",
                     help=f"copiers of --transactions (default: {' '.join(copiers.KINDS)})")
    top.add_argument("--seconds", type=float, default=3.0, help="load of a round, in seconds (default 3; not of --transactions)")
    top.add_argument("--seed", type=int, help="start of the random numbers (default: a new one, printed)")
    top.add_argument("--keep", action="store_true", help="keep data and logs")
    return top


class Crash:
    """The rounds and what they need."""

    def __init__(self, args, work, dice):
        self.args, self.work, self.dice = args, work, dice
        self.log = work / "log"
        self.load = build("ringlog-load")
        self.broker = (RinglogBroker if args.broker == "ringlog" else KafkaBroker)(work / "broker", args.shards)
        self.ack_logs = []

    def rounds(self):
        """All rounds, and at the end every ack log once more: a later crash must not harm earlier records."""
        self.broker.start()
        print(f"broker: {self.broker.what}", flush=True)
        try:
            for number in range(1, self.args.rounds + 1):
                self._round(number)
            records = sum(self._check(path, "at the end") for path in self.ack_logs)
            print(f"after the last round, all topics once more: {records} acknowledged records, each there once", flush=True)
        finally:
            self.broker.stop()

    def _round(self, number):
        shape = self.dice.choice(list(SHAPES))
        partitions, options = SHAPES[shape]
        topic = f"crash-{number}"
        create(self.broker.port, topic, partitions)
        watcher = Watcher(self.broker.port, topic, partitions)
        watcher.begin()
        acks = self.work / f"acks-{number}"
        load = start(
            [self.load, "produce", "-b", self.broker.bootstrap, "--topic", topic, *options, "--ack-log", acks,
             "--tolerate-errors", "--warmup", "0", "--duration", self.args.seconds],
            self.log,
        )
        try:
            down_s, in_recovery = self._kill_and_restart()
            load.wait(self.args.seconds + 60)
        finally:
            stop(load)
            watcher.end()
        if load.returncode != 0:
            raise Failure(f"round {number} ({shape}): ringlog-load ended with {load.returncode} (log: {self.log})")
        self.ack_logs.append(acks)
        records = self._check(acks, f"round {number} ({shape})")
        if records == 0:
            raise Failure(f"round {number} ({shape}): nothing was acknowledged, so nothing was checked (log: {self.log})")
        watcher.check()
        again = f", killed {in_recovery} times before it was ready" if in_recovery else ""
        print(
            f"ok {number} {shape}: {records} acknowledged records there, {watcher.count()} batches seen still there, "
            f"down {down_s:.2f} s{again}",
            flush=True,
        )

    def _kill_and_restart(self):
        """Kills at a random moment of the load and starts again, in some rounds after kills in the middle of the recovery.
        Returns how long the broker was down, in seconds, and how often it was killed in recovery."""
        time.sleep(self.dice.uniform(0.1, self.args.seconds * 0.9))
        if not self.broker.alive():
            raise Failure(f"{self.broker.what} ended by itself (log: {self.broker.log})")
        self.broker.kill()
        begun, in_recovery = time.monotonic(), 0
        if self.args.broker == "ringlog":
            while self.dice.random() < 0.25:
                self.broker.launch()
                time.sleep(self.dice.uniform(0, 0.3))
                self.broker.kill()
                in_recovery += 1
        self.broker.restart()
        return time.monotonic() - begun, in_recovery

    def _check(self, acks, when):
        """Has `ringlog-load check` compare an ack log with the broker. Returns the number of acknowledged records."""
        try:
            output = run(
                [self.load, "check", "--ack-log", acks, "-b", self.broker.bootstrap, "--json"], self.log, timeout_s=300
            )
        except Failure as failure:
            raise Failure(f"{when}: {failure} (log: {self.log}, ack log: {acks})") from failure
        return json.loads(output)["acked"]


def create(port, topic, partitions):
    """Creates a topic and waits until all its partitions have leaders."""
    cluster = wire.Cluster(port)
    body = wire.array(
        wire.string(topic) + wire.i32(partitions) + wire.i16(1) + wire.array()
        + wire.array(wire.string("segment.bytes") + wire.string(str(4 << 20)))
    )
    wire.ask(cluster.controller(), wire.CREATE_TOPICS, 3, body + wire.i32(10_000) + wire.i8(0))
    if not eventually(lambda: len(cluster.leaders(topic)) == partitions):
        raise Failure(f"{topic} could not be created with {partitions} partitions")


def main():
    """Runs the command line. Exit code 0 when every round held."""
    args = parser().parse_args()
    if args.broker == "ringlog" and "ringlog-server" not in binaries() or "ringlog-load" not in binaries():
        raise Failure("this tree does not build ringlog-server and ringlog-load yet")
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    print(f"{args.rounds} rounds, seed {seed}", flush=True)
    work = CACHE / "crash" / str(free_ports())
    work.mkdir(parents=True)
    dice = random.Random(seed)
    (Transactions(args, work, dice, create) if args.transactions else Crash(args, work, dice)).rounds()
    if not args.keep:
        shutil.rmtree(work)
    print(f"{args.rounds} passed, 0 failed")


if __name__ == "__main__":
    end_like_interrupted()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("crash: interrupted")
    except (Failure, LeftOut) as reason:
        sys.exit(f"crash: {reason}")
