"""Members of a group (librdkafka) read topics by a regular expression while they come and go and the broker restarts. Every
record must be delivered, and none again once its commit was acknowledged. Without --roll all speak the consumer protocol, and
one is killed; with it the group starts under the classic protocol, and its members are replaced one by one, there and back.

Prints a line for each thing that happens; "restart the broker" asks for that."""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer

LIMIT_S = 50


class Ledger:
    """What was delivered, and what the broker said is committed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.delivered, self.committed = {}, {}

    def deliver(self, place, offset):
        with self.lock:
            if offset < self.committed.get(place, 0):
                # This is a member's thread, and the whole check has failed.
                print(f"{place}: offset {offset} delivered again after a commit of {self.committed[place]}", flush=True)
                os._exit(1)
            self.delivered.setdefault(place, set()).add(offset)

    def commit(self, place, offset):
        with self.lock:
            self.committed[place] = max(offset, self.committed.get(place, 0))

    def count(self):
        with self.lock:
            return sum(map(len, self.delivered.values()))

    def check(self, topics):
        """What was delivered is committed, once nobody reads any more."""
        for place in [(topic, partition) for topic in topics for partition in range(6)]:
            offsets = self.delivered.get(place, set())
            if self.committed.get(place) != len(offsets):
                sys.exit(f"{place}: {len(offsets)} records delivered, {self.committed.get(place)} committed")


class Member(threading.Thread):
    """Reads until it is told to leave. `note` hears of every record and every commit."""

    def __init__(self, args, name, note, strategy=None):
        super().__init__(daemon=True)
        self.name, self.note, self.leaves, self.owned = name, note, threading.Event(), 0
        protocol = {"group.protocol": "consumer"}
        if strategy:
            protocol = {"group.protocol": "classic", "partition.assignment.strategy": strategy}
        self.consumer = Consumer({
            "bootstrap.servers": args.bootstrap, "group.id": args.group, "client.id": name, **protocol,
            "auto.offset.reset": "earliest", "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000,
        })
        self.consumer.subscribe([f"^{args.prefix}-.*"])
        self.start()

    def run(self):
        while not self.leaves.is_set():
            messages = [message for message in self.consumer.consume(100, 0.2) if not message.error()]
            offsets = {}
            for message in messages:
                place = (message.topic(), message.partition())
                self.note("delivered", place, message.offset())
                offsets[place] = message
            for place, message in offsets.items():
                try:
                    self.consumer.commit(message=message, asynchronous=False)
                except KafkaException:
                    # Not known whether it counts: it may come again.
                    continue
                self.note("committed", place, message.offset() + 1)
            self.owned = len(self.consumer.assignment())
        self.consumer.close()

    def leave(self):
        self.leaves.set()
        self.join()


def speak(what, place, offset):
    """How a member in a process of its own tells what it does."""
    print(what, *place, offset, flush=True)


class Process:
    """A member in a process of its own, so that it can be killed."""

    def __init__(self, args, note):
        command = [sys.executable, __file__, *sys.argv[1:], "--member"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.delivered = 0
        self.reader = threading.Thread(target=self.read, args=(note,), daemon=True)
        self.reader.start()

    def read(self, note):
        for line in self.process.stdout:
            words = line.split()
            if len(words) == 4 and line.endswith("\n"):
                note(words[0], (words[1], int(words[2])), int(words[3]))
                self.delivered += words[0] == "delivered"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()


def until(what, condition):
    """Waits for a condition, and says so."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() > start + LIMIT_S:
            sys.exit(f"not within {LIMIT_S} s: {what}")
        time.sleep(0.05)
    print(f"{what}, after {time.monotonic() - start:.1f} s", flush=True)


class Records:
    """Records that come as long as the check lasts, by number, to both topics in turn."""

    def __init__(self, args):
        self.producer = Producer({"bootstrap.servers": args.bootstrap, "acks": "all", "enable.idempotence": True})
        self.topics = [f"{args.prefix}-{letter}" for letter in "ab"]
        self.sent, self.refused = 0, []

    def send(self, count):
        for _ in range(count):
            number = self.sent
            self.producer.produce(
                self.topics[number % 2], str(number), partition=number // 2 % 6,
                on_delivery=lambda error, _: self.refused.append(error) if error else None,
            )
            self.sent += 1
            if number % 500 == 0:
                self.producer.poll(0)
        if self.producer.flush(30) or self.refused:
            sys.exit(f"records were refused: {self.refused[:1]}")


def check(args):
    ledger, records = Ledger(), Records(args)
    notes = {"delivered": ledger.deliver, "committed": ledger.commit}

    def note(what, place, offset):
        notes[what](place, offset)

    everything = lambda: ledger.count() == records.sent  # noqa: E731
    records.send(2000)
    first = Member(args, "first", note)
    until("the first member reads everything", everything)
    second = Member(args, "second", note)
    until("the second has its half", lambda: first.owned == second.owned == 6)
    records.send(2000)
    until("both read everything", everything)
    third = Process(args, note)
    until("the third has its share", lambda: first.owned == second.owned == 4)
    records.send(2000)
    until("the third reads", lambda: third.delivered > 0)
    third.kill()
    print("restart the broker", flush=True)
    records.send(2000)
    until("the third, killed, is given up", lambda: first.owned == second.owned == 6)
    second.leave()
    until("the second has left", lambda: first.owned == 12)
    records.send(2000)
    until("the first reads everything again", everything)
    first.leave()
    ledger.check(records.topics)


def roll(args):
    """Members of both protocols take each other's places while records come."""
    ledger, records = Ledger(), Records(args)
    notes = {"delivered": ledger.deliver, "committed": ledger.commit}
    members = []

    def join(name, strategy=None):
        members.append(Member(args, name, lambda what, place, offset: notes[what](place, offset), strategy))
        settle(f"{name} has joined")

    def leave():
        left = members.pop(0)
        left.leave()
        settle(f"{left.name} has left")

    def settle(what):
        records.send(500)
        share = 12 // len(members)
        until(f"{what}, and each has {share}", lambda: all(member.owned == share for member in members))
        until("everything is read", lambda: ledger.count() == records.sent)

    join("old 1", args.roll)
    join("old 2", args.roll)
    join("new 1")
    leave()
    print("restart the broker", flush=True)
    settle("both protocols in one group")
    join("new 2")
    leave()
    join("old 3", args.roll)
    leave()
    leave()
    join("old 4", args.roll)
    for member in members:
        member.leave()
    ledger.check(records.topics)


def main():
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--bootstrap", required=True)
    top.add_argument("--group", required=True)
    top.add_argument("--member", action="store_true", help="be a member and nothing else")
    top.add_argument("--roll", metavar="STRATEGY", help="replace members of the classic protocol, which assign by STRATEGY, and back")
    top.add_argument("prefix", help="of the two topics, <prefix>-a and <prefix>-b, with 6 partitions each")
    args = top.parse_args()
    if args.member:
        Member(args, "third", speak).join()
    elif args.roll:
        roll(args)
    else:
        check(args)


if __name__ == "__main__":
    main()
