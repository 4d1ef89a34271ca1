"""aiokafka."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

import contract


async def produce(args):
    producer = AIOKafkaProducer(
        bootstrap_servers=args.bootstrap, acks="all", linger_ms=5, enable_idempotence=args.idempotent,
        compression_type=None if args.codec == "none" else args.codec,
    )
    await producer.start()
    try:
        pending = [
            await producer.send(topic, value) for topic, path in args.files for value in contract.lines(path)
        ]
        await producer.flush()
        for future in pending:
            await future
    finally:
        await producer.stop()


async def transact(args):
    producer = AIOKafkaProducer(bootstrap_servers=args.bootstrap, transactional_id=args.id, linger_ms=5)
    await producer.start()
    try:
        for topic, values, committed in contract.transactions(args.files):
            await producer.begin_transaction()
            pending = [await producer.send(topic, value) for value in values]
            await producer.flush()
            for future in pending:
                await future
            await (producer.commit_transaction() if committed else producer.abort_transaction())
    finally:
        await producer.stop()


async def consume(args):
    # Without a group a subscription means all partitions.
    consumer = AIOKafkaConsumer(
        *args.topics, bootstrap_servers=args.bootstrap, group_id=args.group, auto_offset_reset="earliest",
        enable_auto_commit=False, check_crcs=True,
        isolation_level="read_committed" if args.committed else "read_uncommitted",
    )
    await consumer.start()
    output = contract.Output(args.folder)
    deadline = asyncio.get_running_loop().time() + 60
    try:
        while output.count < args.count:
            if asyncio.get_running_loop().time() > deadline:
                sys.exit(f"read {output.count} of {args.count} records in time")
            found = await consumer.getmany(timeout_ms=200, max_records=args.count - output.count)
            for partition, records in found.items():
                for record in records:
                    output.add(partition.topic, partition.partition, record.offset, record.value)
        if args.group:
            await consumer.commit({TopicPartition(*key): offset for key, offset in output.positions.items()})
    finally:
        await consumer.stop()
    output.close()


async def offsets(args):
    consumer = AIOKafkaConsumer(args.topic, bootstrap_servers=args.bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(args.topic, number) for number in consumer.partitions_for_topic(args.topic)]
        if args.time == -1:
            found = await consumer.end_offsets(partitions)
        elif args.time == -2:
            found = await consumer.beginning_offsets(partitions)
        else:
            times = await consumer.offsets_for_times({partition: args.time for partition in partitions})
            found = {partition: entry.offset if entry else -1 for partition, entry in times.items()}
    finally:
        await consumer.stop()
    contract.answer({partition.partition: offset for partition, offset in found.items()})


async def create(args):
    client = await admin(args)
    topic = NewTopic(args.topic, num_partitions=args.partitions, replication_factor=1, topic_configs=args.config)
    refuse_errors(await client.create_topics([topic]))
    await client.close()


async def describe(args):
    client = await admin(args)
    topics = await client.list_topics()
    if args.topic not in topics:
        contract.answer(None)
    else:
        topic = (await client.describe_topics([args.topic]))[0]
        replies = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, args.topic)])
        entries = [entry for reply in replies for resource in reply.resources for entry in resource[4]]
        contract.answer({
            "partitions": len(topic["partitions"]),
            "config": {entry[0]: entry[1] for entry in entries},
        })
    await client.close()


async def delete(args):
    client = await admin(args)
    refuse_errors(await client.delete_topics([args.topic]))
    await client.close()


def refuse_errors(reply):
    """Replies about topics carry their errors inside."""
    errors = getattr(reply, "topic_errors", None) or reply.topic_error_codes
    for entry in errors:
        if entry[1] != 0:
            sys.exit(f"{entry[0]}: error code {entry[1]}")


async def admin(args):
    client = AIOKafkaAdminClient(bootstrap_servers=args.bootstrap)
    await client.start()
    return client


if __name__ == "__main__":
    arguments = contract.parse()
    asyncio.run(globals()[arguments.command](arguments))
