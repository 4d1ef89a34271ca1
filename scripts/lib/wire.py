"""As much of Kafka's protocol as raw requests need, by hand: it must be able to send what no client library would.
Layouts are from the message schemas of kafka-clients; all requests here are of versions before the flexible ones."""

import itertools
import socket
import struct

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 18, 19, 20, 22
OFFSET_FOR_LEADER_EPOCH, DESCRIBE_CONFIGS = 23, 32
# A time that asks ListOffsets for the end.
LATEST = -1


def i8(value):
    """INT8, also BOOLEAN."""
    return struct.pack(">b", value)


def i16(value):
    """INT16."""
    return struct.pack(">h", value)


def i32(value):
    """INT32."""
    return struct.pack(">i", value)


def i64(value):
    """INT64."""
    return struct.pack(">q", value)


def string(text):
    """STRING, and NULLABLE_STRING's null for None."""
    return i16(-1) if text is None else i16(len(text.encode())) + text.encode()


def octets(data):
    """BYTES, and NULLABLE_BYTES' null for None."""
    return i32(-1) if data is None else i32(len(data)) + data


def array(*elements):
    """ARRAY of encoded elements."""
    return i32(len(elements)) + b"".join(elements)


class Reader:
    """Reads a response's fields in order."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def _take(self, layout):
        (value,) = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return value

    def i8(self):
        """INT8."""
        return self._take("b")

    def i16(self):
        """INT16."""
        return self._take("h")

    def i32(self):
        """INT32."""
        return self._take("i")

    def i64(self):
        """INT64."""
        return self._take("q")

    def string(self):
        """STRING or NULLABLE_STRING."""
        return self._bytes(self.i16(), lambda data: data.decode())

    def octets(self):
        """BYTES or NULLABLE_BYTES."""
        return self._bytes(self.i32(), lambda data: data)

    def _bytes(self, length, convert):
        if length < 0:
            return None
        self.at += length
        return convert(self.data[self.at - length : self.at])

    def array(self, element):
        """ARRAY: calls `element` for each."""
        return [element() for _ in range(max(0, self.i32()))]


def connect(port, timeout_s=5):
    """A connection to a broker on loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout_s)


def receive_exactly(connection, count):
    """Exactly so many bytes; None when the peer closed before."""
    received = bytearray()
    while len(received) < count:
        try:
            chunk = connection.recv(min(count - len(received), 1 << 20))
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        received += chunk
    return bytes(received)


_correlation = itertools.count(1)


def request(api, version, body, correlation=None):
    """A framed request with header version 1."""
    correlation = next(_correlation) if correlation is None else correlation
    message = i16(api) + i16(version) + i32(correlation) + string("raw") + body
    return i32(len(message)) + message


def response(connection):
    """(correlation id, Reader over the body), or None when the broker closed the connection."""
    head = receive_exactly(connection, 4)
    message = head and receive_exactly(connection, struct.unpack(">i", head)[0])
    return message and (struct.unpack_from(">i", message)[0], Reader(message[4:]))


def ask(port, api, version, body):
    """One request on a connection of its own. A Reader over the response's body, None when the connection was closed;
    TimeoutError when nothing comes."""
    with connect(port) as connection:
        connection.sendall(request(api, version, body))
        answer = response(connection)
    return answer and answer[1]


def api_versions(port):
    """{api key: (lowest, highest version)} that the broker offers, from ApiVersions version 0."""
    reader = ask(port, API_VERSIONS, 0, b"")
    if reader is None or reader.i16() != 0:
        raise ValueError("the broker refuses ApiVersions version 0")
    return {key: (low, high) for key, low, high in reader.array(lambda: (reader.i16(), reader.i16(), reader.i16()))}


class Cluster:
    """Who leads what, from Metadata and FindCoordinator."""

    def __init__(self, port):
        self.port = port

    def _metadata(self, topics, create=True):
        reader = ask(self.port, METADATA, 4, array(*map(string, topics)) + i8(create))
        reader.i32()
        nodes = dict(reader.array(lambda: (reader.i32(), (reader.string(), reader.i32(), reader.string())[1])))
        reader.string()
        controller = reader.i32()

        def partition():
            error, index, leader = reader.i16(), reader.i32(), reader.i32()
            reader.array(reader.i32), reader.array(reader.i32)
            return index, (error, leader)

        def topic():
            error, name, _ = reader.i16(), reader.string(), reader.i8()
            return name, (error, dict(reader.array(partition)))

        return nodes, controller, dict(reader.array(topic))

    def nodes(self):
        """{node id: port}."""
        return self._metadata([])[0]

    def controller(self):
        """The port of the node that creates topics."""
        nodes, controller, _ = self._metadata([])
        return nodes[controller]

    def leader(self, topic):
        """The port of the leader of a topic's partition 0; the topic is created if need be. None while it has none."""
        nodes, _, topics = self._metadata([topic])
        error, partitions = topics[topic]
        return nodes.get(partitions[0][1]) if error == 0 and 0 in partitions and partitions[0][0] == 0 else None

    def leaders(self, topic, create=True):
        """{partition: port of its leader}, for the partitions that have one. The topic is created if need be."""
        nodes, _, topics = self._metadata([topic], create)
        _, partitions = topics[topic]
        return {index: nodes[leader] for index, (error, leader) in partitions.items() if error == 0 and leader in nodes}

    def ends(self, topic):
        """{partition: its end offset}, for the partitions that have a leader."""
        found = {}
        for index, port in self.leaders(topic, create=False).items():
            body = i32(-1) + array(string(topic) + array(i32(index) + i64(LATEST)))
            reader = ask(port, LIST_OFFSETS, 1, body)

            if reader is None:
                continue
            # One topic, one partition: counts and names that are known.
            reader.i32(), reader.string(), reader.i32(), reader.i32()
            error, _, offset = reader.i16(), reader.i64(), reader.i64()
            if error == 0:
                found[index] = offset
        return found

    def coordinator(self, group):
        """The port of a group's coordinator, None while it has none."""
        reader = ask(self.port, FIND_COORDINATOR, 1, string(group) + i8(0))
        reader.i32()
        error, _, _, _, port = reader.i16(), reader.string(), reader.i32(), reader.string(), reader.i32()
        return port if error == 0 else None
