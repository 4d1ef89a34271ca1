"""confluent-kafka: librdkafka of today."""

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import contract


def produce(args):
    producer = Producer({
        "bootstrap.servers": args.bootstrap, "acks": "all", "compression.type": args.codec, "linger.ms": 5,
        "enable.idempotence": args.idempotent, "queue.buffering.max.messages": 1_000_000,
    })
    failed = []
    sent = 0

    def done(error, _message):
        if error is not None:
            failed.append(error)

    for topic, path in args.files:
        for value in contract.lines(path):
            producer.produce(topic, value=value, on_delivery=done)
            sent += 1
        producer.poll(0)
    left = producer.flush(60)
    if left or failed:
        sys.exit(f"{left} of {sent} records without an answer, {len(failed)} refused: {failed[:1]}")


def transact(args):
    producer = Producer({"bootstrap.servers": args.bootstrap, "transactional.id": args.id, "linger.ms": 5})
    producer.init_transactions(30)
    for topic, values, committed in contract.transactions(args.files):
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value=value)
        if committed:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)


def consume(args):
    consumer = Consumer({
        "bootstrap.servers": args.bootstrap, "group.id": args.group or "unused", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "check.crcs": True,
        "isolation.level": "read_committed" if args.committed else "read_uncommitted",
    })
    if args.group:
        consumer.subscribe(args.topics)
    else:
        topics = consumer.list_topics(timeout=30).topics
        consumer.assign([
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in args.topics
            for partition in topics[topic].partitions
        ])
    output = contract.Output(args.folder)
    deadline = time.monotonic() + 60
    while output.count < args.count:
        if time.monotonic() > deadline:
            sys.exit(f"read {output.count} of {args.count} records in time")
        for message in consumer.consume(args.count - output.count, timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            output.add(message.topic(), message.partition(), message.offset(), message.value())
    if args.group:
        positions = [TopicPartition(topic, partition, offset) for (topic, partition), offset in output.positions.items()]
        consumer.commit(offsets=positions, asynchronous=False)
    consumer.close()
    output.close()


def offsets(args):
    consumer = Consumer({"bootstrap.servers": args.bootstrap, "group.id": "unused"})
    partitions = consumer.list_topics(args.topic, timeout=30).topics[args.topic].partitions
    found = {}
    for partition in partitions:
        if args.time < 0:
            low, high = consumer.get_watermark_offsets(TopicPartition(args.topic, partition), timeout=30)
            found[partition] = high if args.time == -1 else low
        else:
            result = consumer.offsets_for_times([TopicPartition(args.topic, partition, args.time)], timeout=30)
            if result[0].error:
                raise KafkaException(result[0].error)
            found[partition] = result[0].offset
    consumer.close()
    contract.answer(found)


def create(args):
    topic = NewTopic(args.topic, num_partitions=args.partitions, replication_factor=1, config=args.config)
    client = admin(args)  # its futures end with it
    client.create_topics([topic], operation_timeout=30)[args.topic].result()


def describe(args):
    client = admin(args)
    topics = client.list_topics(timeout=30).topics
    if args.topic not in topics:
        contract.answer(None)
        return
    resource = ConfigResource(ConfigResource.Type.TOPIC, args.topic)
    config = client.describe_configs([resource])[resource].result()
    contract.answer({
        "partitions": len(topics[args.topic].partitions),
        "config": {name: entry.value for name, entry in config.items()},
    })


def delete(args):
    client = admin(args)
    client.delete_topics([args.topic], operation_timeout=30)[args.topic].result()


def admin(args):
    return AdminClient({"bootstrap.servers": args.bootstrap})


if __name__ == "__main__":
    arguments = contract.parse()
    globals()[arguments.command](arguments)
