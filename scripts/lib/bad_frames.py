"""Bad input below the APIs: frames, headers, lengths, and clients that stall. Each case returns its outcome."""

import socket
import struct
import time

import wire
from batches import batch
from wire import array, i8, i16, i32, i64, string


def outcome_of(data, port, wait_s=2):
    """What the broker does about bytes on a connection: "closed", "open" (says nothing for a while), or "answer"."""
    with wire.connect(port) as connection:
        connection.settimeout(wait_s)
        try:
            connection.sendall(data)
            answer = wire.response(connection)
        except (BrokenPipeError, ConnectionResetError):
            return "closed"
        except TimeoutError:
            return "open"
        return "closed" if answer is None else "answer"


def raw(data):
    """A case that sends bytes as they are."""
    return lambda world: outcome_of(data, world.port)


def framed(message):
    """A case that sends a message with its right length."""
    return raw(i32(len(message)) + message)


def _head(api, version, client=string("raw")):
    return i16(api) + i16(version) + i32(7) + client


def unknown_api_versions(world):
    """A version of ApiVersions that no broker knows: error 35 and the version 0 body. The header is flexible, as every
    later version's will be."""
    body = b"\0" + b"\x04raw" + b"\x021" + b"\0"
    reader = wire.ask(world.port, wire.API_VERSIONS, 99, body)
    if reader is None:
        return "closed"
    error, entries = reader.i16(), reader.array(lambda: (reader.i16(), reader.i16(), reader.i16()))
    names_itself = any(key == wire.API_VERSIONS for key, _, _ in entries)
    return {"error": error, "names_api_versions": names_itself, "bytes_left": len(reader.data) - reader.at}


def half_a_frame(world):
    """A frame of 1000 bytes of which 20 come; meanwhile another connection is answered."""
    with wire.connect(world.port) as stalled:
        stalled.sendall(i32(1000) + _head(wire.METADATA, 4))
        world.must_answer()
        stalled.settimeout(1)
        try:
            return "closed" if stalled.recv(1) == b"" else "answer"
        except TimeoutError:
            return "open"


def byte_by_byte(world):
    """A good request in pieces of one byte."""
    with wire.connect(world.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in wire.request(wire.API_VERSIONS, 0, b""):
            connection.sendall(bytes([byte]))
        return "closed" if wire.response(connection) is None else "answer"


def pipelined(world):
    """Two hundred requests at once: all answered, in their order."""
    with wire.connect(world.port) as connection:
        bodies = [(wire.API_VERSIONS, 0, b""), (wire.METADATA, 4, array() + i8(0))]
        connection.sendall(
            b"".join(wire.request(*bodies[number % 2], correlation=number) for number in range(200))
        )
        answers = [wire.response(connection) for _ in range(200)]
    if None in answers:
        return "closed"
    return "in order" if [correlation for correlation, _ in answers] == list(range(200)) else "out of order"


def never_reads(world):
    """A client asks for far more than it reads, which is nothing. Others are served meanwhile."""
    topic = world.new_topic()
    port = world.leader(topic)
    for _ in range(8):
        world.produce(topic, batch([bytes(900_000)]))
    fetch = wire.request(
        wire.FETCH, 4,
        i32(-1) + i32(100) + i32(1) + i32(50 << 20) + i8(0)
        + array(string(topic) + array(i32(0) + i64(0) + i32(50 << 20))),
    )
    before = world.resident_bytes()
    with wire.connect(port) as deaf:
        deaf.settimeout(0.5)
        try:
            for _ in range(500):
                deaf.sendall(fetch)
        except TimeoutError:
            pass
        time.sleep(1)
        world.must_answer()
        world.produce(topic, batch())
        grown = world.resident_bytes() - before
    # 500 answers of 7 MB would be 3.5 GB.
    return "bounded" if grown < 256 << 20 else f"{grown >> 20} MiB more resident"


CASES = {
    "http": raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "tls-hello": raw(bytes.fromhex("16030100c8010000c40303") + bytes(192)),
    "garbage": raw(struct.pack(">i", 64) + bytes(range(100, 164))),
    "length-2gib": raw(i32(0x7FFFFFFF) + b"x" * 64),
    "length-200mib": raw(i32(200 << 20) + b"x" * 64),
    "length-negative": raw(i32(-1) + b"x" * 64),
    "length-zero": raw(i32(0)),
    "length-shorter-than-header": framed(i16(wire.METADATA) + i16(4)),
    "half-a-frame": half_a_frame,
    "byte-by-byte": byte_by_byte,
    "pipelined": pipelined,
    "never-reads": never_reads,
    "api-unknown": framed(_head(999, 0)),
    "api-negative": framed(_head(-1, 0)),
    "version-unknown": framed(_head(wire.METADATA, 99) + array()),
    "version-negative": framed(_head(wire.METADATA, -1) + array()),
    "api-versions-unknown-version": unknown_api_versions,
    "client-id-null": framed(_head(wire.METADATA, 4, string(None)) + array() + i8(0)),
    "client-id-longer-than-frame": framed(_head(wire.METADATA, 4, i16(30000)) + array() + i8(0)),
    "client-id-not-utf8": framed(_head(wire.METADATA, 4, i16(2) + b"\xff\xfe") + array() + i8(0)),
    "body-missing": framed(_head(wire.METADATA, 4)),
    "body-too-long": framed(_head(wire.METADATA, 4) + array() + i8(0) + bytes(10)),
    "array-longer-than-frame": framed(_head(wire.METADATA, 4) + i32(1000) + i8(0)),
    "array-2gi": framed(_head(wire.METADATA, 4) + i32(0x7FFFFFFF) + i8(0)),
    "array-negative": framed(_head(wire.METADATA, 4) + i32(-5) + i8(0)),
    "string-negative": framed(_head(wire.METADATA, 4) + i32(1) + i16(-7) + i8(0)),
    "produce-version-2": framed(_head(wire.PRODUCE, 2) + i16(-1) + i32(1000) + array()),
    "fetch-version-3": framed(_head(wire.FETCH, 3) + i32(-1) + i32(0) + i32(0) + i32(0) + array()),
}
