"""Records with keys, one program for all of them: written with confluent-kafka, read back with aiokafka.

    records.py --bootstrap HOST:PORT write [--codec CODEC] TOPIC    records from standard input, one as JSON on each line:
                                                                    {"key": ..., "value": ...}; a value of null deletes
    records.py --bootstrap HOST:PORT read [--committed] TOPIC...    every record up to the ends, the same way, with "topic",
                                                                    "partition" and "offset"

Bytes are written as the characters of ISO 8859-1. `write` prints each record's partition and offset in the order of its
input, with a space between them, and ends when every record is acknowledged.
"""

import argparse
import asyncio
import json
import sys

LIMIT_S = 60


def octets(text):
    """A key or a value from JSON."""
    return None if text is None else text.encode("latin-1")


def text(octets_):
    """A key or a value for JSON."""
    return None if octets_ is None else octets_.decode("latin-1")


def write(args):
    """Writes what standard input holds."""
    from confluent_kafka import Producer

    producer = Producer({
        "bootstrap.servers": args.bootstrap, "acks": "all", "enable.idempotence": True, "compression.type": args.codec,
        "linger.ms": 5, "queue.buffering.max.messages": 1_000_000,
    })
    places, refused = [], []

    def done(number):
        def keep(error, message):
            if error is not None:
                refused.append(error)
            else:
                places[number] = f"{message.partition()} {message.offset()}"

        return keep

    for line in sys.stdin:
        record = json.loads(line)
        places.append(None)
        key, value = octets(record["key"]), octets(record["value"])
        producer.produce(args.topic, key=key, value=value, on_delivery=done(len(places) - 1))
        producer.poll(0)
    left = producer.flush(LIMIT_S)
    if left or refused:
        sys.exit(f"{left} of {len(places)} records without an answer, {len(refused)} refused: {refused[:1]}")
    print("\n".join(places))


async def read(args):
    """Prints every record that is there now."""
    from aiokafka import AIOKafkaConsumer

    # Without a group a subscription means all partitions.
    consumer = AIOKafkaConsumer(
        *args.topics, bootstrap_servers=args.bootstrap, group_id=None, auto_offset_reset="earliest",
        isolation_level="read_committed" if args.committed else "read_uncommitted",
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            found = await consumer.getmany(timeout_ms=500)
            for record in (record for records in found.values() for record in records):
                print(json.dumps({
                    "topic": record.topic, "partition": record.partition, "offset": record.offset,
                    "key": text(record.key), "value": text(record.value),
                }))
    finally:
        await consumer.stop()


def main():
    """Runs the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--bootstrap", required=True)
    commands = top.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--codec", default="none")
    writing.add_argument("topic")
    reading = commands.add_parser("read")
    reading.add_argument("--committed", action="store_true")
    reading.add_argument("topics", nargs="+")
    args = top.parse_args()
    if args.command == "write":
        write(args)
    else:
        asyncio.run(asyncio.wait_for(read(args), LIMIT_S))


if __name__ == "__main__":
    main()
