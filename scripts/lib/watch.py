"""A consumer that remembers: what it saw of a topic must still be there, the same, after the broker was killed."""

import struct
import threading
import time

import wire
from process import Failure
from wire import array, i8, i32, i64, string

# Up to the CRC, and to the last offset delta behind it.
BATCH_HEAD = struct.Struct(">qiibIhi")
FETCH_BYTES = 4 << 20


def batches_in(records):
    """(base offset, last offset, CRC) of each whole batch in a record set."""
    at = 0
    while at + BATCH_HEAD.size <= len(records):
        base, length, _, _, crc, _, last_delta = BATCH_HEAD.unpack_from(records, at)
        if at + 12 + length > len(records):
            return
        yield base, base + last_delta, crc
        at += 12 + length


def fetch(connection, topic, positions, wait_ms):
    """{partition: (error, records)} of one Fetch (version 4) from the given positions."""
    asked = (i32(partition) + i64(offset) + i32(FETCH_BYTES) for partition, offset in positions.items())
    body = i32(-1) + i32(wait_ms) + i32(1) + i32(4 * FETCH_BYTES) + i8(0) + array(string(topic) + array(*asked))
    connection.sendall(wire.request(wire.FETCH, 4, body))
    answer = wire.response(connection)
    if answer is None:
        raise ConnectionError("closed")
    reader = answer[1]
    reader.i32()

    def one():
        partition, error = reader.i32(), reader.i16()
        reader.i64(), reader.i64(), reader.array(lambda: (reader.i64(), reader.i64()))
        return partition, (error, reader.octets() or b"")

    return dict(found for group in reader.array(lambda: (reader.string(), reader.array(one))[1]) for found in group)


class Watcher:
    """Reads every partition of a topic from its start as records come, one thread for each leader, over as many
    connections as the broker's deaths need."""

    def __init__(self, port, topic, partitions):
        self.port, self.topic, self.partitions = port, topic, partitions
        self.seen = [{} for _ in range(partitions)]
        self.positions = [0] * partitions
        self.gone = None
        self._stopped = threading.Event()
        self._threads = []

    def begin(self):
        """Starts reading; the topic must exist."""
        for port, partitions in self._by_leader().items():
            self._threads.append(threading.Thread(target=self._follow, args=(port, partitions), daemon=True))
        for thread in self._threads:
            thread.start()

    def _by_leader(self):
        leaders = wire.Cluster(self.port).leaders(self.topic)
        if len(leaders) != self.partitions:
            raise Failure(f"{self.topic} has leaders for {len(leaders)} of {self.partitions} partitions")
        found = {}
        for partition, port in leaders.items():
            found.setdefault(port, []).append(partition)
        return found

    def _follow(self, port, partitions):
        while not self._stopped.is_set():
            try:
                with wire.connect(port) as connection:
                    while not self._stopped.is_set():
                        positions = {partition: self.positions[partition] for partition in partitions}
                        self._take(fetch(connection, self.topic, positions, wait_ms=100))
            except OSError:
                time.sleep(0.02)

    def _take(self, found):
        for partition, (error, records) in found.items():
            if error == 1:
                self.gone = f"{self.topic}-{partition}: offset {self.positions[partition]}, which was read up to, is gone"
            for base, last, crc in batches_in(records):
                if last >= self.positions[partition]:
                    self.seen[partition][base] = (last, crc)
                    self.positions[partition] = last + 1

    def end(self):
        """Stops reading."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)

    def count(self):
        """How many batches were seen."""
        return sum(map(len, self.seen))

    def check(self):
        """Reads the topic anew: every batch that was seen is there, at its offset, with its checksum."""
        if self.gone:
            raise Failure(self.gone)
        for port, partitions in self._by_leader().items():
            with wire.connect(port) as connection:
                for partition in partitions:
                    self._check_partition(connection, partition)

    def _check_partition(self, connection, partition):
        missing, offset = dict(self.seen[partition]), 0
        while missing and offset < self.positions[partition]:
            error, records = fetch(connection, self.topic, {partition: offset}, wait_ms=500)[partition]
            before = offset
            for base, last, crc in batches_in(records):
                if base in missing and missing.pop(base) != (last, crc):
                    raise Failure(f"{self.topic}-{partition}: the batch at offset {base} is not the one read before")
                offset = last + 1
            if error or offset == before:
                raise Failure(f"{self.topic}-{partition}: nothing at offset {offset}, which was read before (error {error})")
        if missing:
            raise Failure(f"{self.topic}-{partition}: {len(missing)} batches that were read are gone, first {min(missing)}")
