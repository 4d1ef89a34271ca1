"""kafka-python."""

import sys
import time
from contextlib import contextmanager

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.structs import OffsetAndMetadata

import contract


def produce(args):
    producer = KafkaProducer(
        bootstrap_servers=args.bootstrap, acks="all", linger_ms=5, enable_idempotence=args.idempotent,
        compression_type=None if args.codec == "none" else args.codec,
    )
    pending = [producer.send(topic, value) for topic, path in args.files for value in contract.lines(path)]
    producer.flush(60)
    for future in pending:
        future.get(60)
    producer.close(10)


def consume(args):
    consumer = KafkaConsumer(
        bootstrap_servers=args.bootstrap, group_id=args.group, auto_offset_reset="earliest", enable_auto_commit=False,
        check_crcs=True,
    )
    if args.group:
        consumer.subscribe(args.topics)
    else:
        consumer.assign([
            TopicPartition(topic, partition) for topic in args.topics for partition in consumer.partitions_for_topic(topic)
        ])
    output = contract.Output(args.folder)
    deadline = time.monotonic() + 60
    while output.count < args.count:
        if time.monotonic() > deadline:
            sys.exit(f"read {output.count} of {args.count} records in time")
        for partition, records in consumer.poll(200, max_records=args.count - output.count).items():
            for record in records:
                output.add(partition.topic, partition.partition, record.offset, record.value)
    if args.group:
        consumer.commit({
            TopicPartition(*key): OffsetAndMetadata(offset, "", -1) for key, offset in output.positions.items()
        })
    consumer.close()
    output.close()


def offsets(args):
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap)
    partitions = [TopicPartition(args.topic, number) for number in consumer.partitions_for_topic(args.topic)]
    if args.time == -1:
        found = consumer.end_offsets(partitions)
    elif args.time == -2:
        found = consumer.beginning_offsets(partitions)
    else:
        times = consumer.offsets_for_times({partition: args.time for partition in partitions})
        found = {partition: entry.offset if entry else -1 for partition, entry in times.items()}
    consumer.close()
    contract.answer({partition.partition: offset for partition, offset in found.items()})


def create(args):
    topics = {args.topic: {"num_partitions": args.partitions, "configs": args.config}}
    with admin(args) as client:
        client.create_topics(topics, wait_for_metadata=True)


def describe(args):
    with admin(args) as client:
        if args.topic not in client.list_topics():
            contract.answer(None)
            return
        topic = client.describe_topics([args.topic])[0]
        resource = ConfigResource(ConfigResourceType.TOPIC, args.topic)
        found = client.describe_configs([resource], config_filter="all")
    config = next(entries[args.topic] for entries in found.values() if args.topic in entries)
    contract.answer({
        "partitions": len(topic["partitions"]),
        "config": {name: entry["value"] for name, entry in config.items()},
    })


def delete(args):
    with admin(args) as client:
        client.delete_topics([args.topic])


@contextmanager
def admin(args):
    client = KafkaAdminClient(bootstrap_servers=args.bootstrap)
    try:
        yield client
    finally:
        client.close()


if __name__ == "__main__":
    arguments = contract.parse()
    globals()[arguments.command](arguments)
