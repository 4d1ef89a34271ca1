"""Bad input: raw requests, and what Apache Kafka does about each (compat.d/bad-input.json), which is what is expected.

    python3 bad_input.py PORT      prints what the broker on that port does, in the form of bad-input.json
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

import bad_frames
import bad_records
import bad_requests
import wire
from paths import CLIENTS
from process import Failure
from wire import array, i8, i16, i32, i64, octets, string

FAMILIES = {"frames": bad_frames.CASES, "records": bad_records.CASES, "requests": bad_requests.CASES}
# COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
COORDINATOR_NOT_READY = (14, 15, 16)
EXPECTED = CLIENTS / "bad-input.json"


class World:
    """A broker as the cases see it."""

    def __init__(self, port, pids=()):
        self.port, self.pids = port, pids
        self.cluster = wire.Cluster(port)
        self._number = itertools.count(time.time_ns() // 1_000_000)

    def number(self):
        """A number that was not used before."""
        return next(self._number)

    def new_topic(self):
        """A topic of one partition, created by asking for it."""
        name = f"bad-{self.number()}"
        self._until(lambda: self._serves(name), f"{name} not served")
        return name

    def _serves(self, topic):
        """Whether the leader that metadata names has taken the partition over: it tells its end."""
        port = self.cluster.leader(topic)
        asked = string(topic) + array(i32(0) + i32(-1) + i64(-1))
        reader = port and wire.ask(port, wire.LIST_OFFSETS, 4, i32(-1) + i8(0) + array(asked))
        return reader and (reader.i32(), reader.i32(), reader.string(), reader.i32(), reader.i32(), reader.i16())[-1] == 0

    def new_topic_beside(self, topic):
        """A topic whose partition 0 has the same leader."""
        for _ in range(64):
            name = self.new_topic()
            if self.leader(name) == self.leader(topic):
                return name
        raise Failure(f"of 64 new topics none has the leader of {topic}")

    def _until(self, ask, what):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            port = ask()
            if port:
                return port
            time.sleep(0.05)
        raise Failure(f"{what} within 15 s")

    def leader(self, topic):
        """The port of the leader of the topic's partition 0."""
        return self._until(lambda: self.cluster.leader(topic), f"no leader of {topic}")

    def coordinator(self, group):
        """The port of the group's coordinator; an empty group has none, any node may refuse it."""
        if not group:
            return self.port

        def ready():
            port = self.cluster.coordinator(group)
            body = string(group) + i32(1) + string("nobody")
            reader = port and wire.ask(port, wire.HEARTBEAT, 1, body)
            return port if reader and (reader.i32(), reader.i16())[1] not in COORDINATOR_NOT_READY else None

        return self._until(ready, f"no coordinator of {group}")

    def controller(self):
        """The port of the controller."""
        return self.cluster.controller()

    def producer_id(self):
        """A producer id and epoch of InitProducerId."""
        for _ in range(100):
            reader = wire.ask(self.port, wire.INIT_PRODUCER_ID, 0, string(None) + i32(60_000))
            error, producer_id, epoch = (reader.i32(), reader.i16())[1], reader.i64(), reader.i16()
            if error == 0:
                return producer_id, epoch
            time.sleep(0.1)
        raise Failure(f"InitProducerId answers error {error}")

    @staticmethod
    def produce_body(topic, records, acks=-1, partition=0):
        """A Produce request of version 8."""
        return string(None) + i16(acks) + i32(5000) + array(string(topic) + array(i32(partition) + octets(records)))

    @staticmethod
    def produce_outcomes(reader):
        """{topic: outcome of its first partition} of a Produce response of version 8; topics come in any order."""

        def one():
            _, error, offset = reader.i32(), reader.i16(), reader.i64()
            reader.i64(), reader.i64(), reader.array(lambda: (reader.i32(), reader.string())), reader.string()
            return {"error": error, "base_offset": offset}

        return dict(reader.array(lambda: (reader.string(), reader.array(one)[0])))

    def produce(self, topic, records, acks=-1, partition=0, port=None):
        """Sends records; {"error", "base_offset"} or "closed"."""
        body = self.produce_body(topic, records, acks, partition)
        reader = wire.ask(port or self.leader(topic), wire.PRODUCE, 8, body)
        return "closed" if reader is None else self.produce_outcomes(reader)[topic]

    def must_answer(self):
        """Another connection is answered at once, whatever this one does."""
        begun = time.monotonic()
        wire.api_versions(self.port)
        if time.monotonic() - begun > 2:
            raise Failure("another connection waited for over 2 s")

    def resident_bytes(self):
        """The broker's resident memory, 0 if its process is not known."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def run_case(world, case):
    """A case's outcome; the broker must serve others afterwards."""
    try:
        outcome = case(world)
    except TimeoutError:
        outcome = "no answer"
    world.must_answer()
    return outcome


def bad_input_checks(context):
    """Every case: ringlog must do what Kafka does, or what the data says it may do instead, and why."""
    expected = json.loads(EXPECTED.read_text())
    for family, cases in FAMILIES.items():
        for name, case in cases.items():
            entry = expected["cases"][f"{family}/{name}"]
            yield f"bad-input/{family}/{name}", _check(context, case, entry, expected["taken_from"])


def _check(context, case, entry, source):
    def check(log):
        outcome = run_case(World(context.broker.port, context.broker.pids()), case)
        allowed = [entry["kafka"]]
        if context.broker.name == "ringlog" and "ringlog" in entry:
            allowed += entry["ringlog"]
        with open(log, "a") as file:
            file.write(f"got {json.dumps(outcome)}, allowed {json.dumps(allowed)}\n")
        if outcome not in allowed:
            raise Failure(f"got {json.dumps(outcome)}, {source} gives {json.dumps(entry['kafka'])}")

    return check


def main():
    """Prints every case's outcome at a broker."""
    world = World(int(sys.argv[1]))
    cases = {}
    for family, members in FAMILIES.items():
        for name, case in members.items():
            cases[f"{family}/{name}"] = {"kafka": run_case(world, case)}
            print(name, cases[f"{family}/{name}"], file=sys.stderr)
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
