"""Record batches by hand, right and wrong. Source: Kafka's record batch format, message format version 2."""

import struct
import time
import zlib

from wire import i8, i16, i32, i64, octets


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _table()


def crc32c(data):
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(value):
    """Signed varint, zigzag."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(offset_delta, value, length=None):
    """One record without a key; `length` overrides its own length field."""
    body = i8(0) + varint(0) + varint(offset_delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body) if length is None else length) + body


def batch(
    values=(b"one", b"two"), *, records=None, count=None, last_offset_delta=None, magic=2, attributes=0, crc_xor=0,
    length_more=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, time_ms=None, base_offset=0,
):
    """A record batch. What is not given is right; `crc_xor` spoils the checksum, `length_more` the length field."""
    if records is None:
        records = b"".join(record(delta, value) for delta, value in enumerate(values))
    count = len(values) if count is None else count
    time_ms = int(time.time() * 1000) if time_ms is None else time_ms
    after_crc = (
        i16(attributes) + i32(count - 1 if last_offset_delta is None else last_offset_delta) + i64(time_ms) + i64(time_ms)
        + i64(producer_id) + i16(producer_epoch) + i32(base_sequence) + i32(count) + records
    )
    crc = crc32c(after_crc) ^ crc_xor
    head = i32(0) + i8(magic) + struct.pack(">I", crc) + after_crc
    return i64(base_offset) + i32(len(head) + length_more) + head


def message_set(magic, value=b"old"):
    """One message of the formats before record batches: magic 0 or 1, CRC-32 of zlib."""
    body = i8(magic) + i8(0) + (i64(int(time.time() * 1000)) if magic else b"") + octets(None) + octets(value)
    message = struct.pack(">I", zlib.crc32(body)) + body
    return i64(0) + i32(len(message)) + message
