"""Copies a topic exactly once with confluent-kafka, however often the broker is killed: each batch and the offsets behind it are
one transaction, and whatever goes wrong, a new producer of the same id starts again from what is committed."""

import argparse
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

PARTITIONS_TIMEOUT_S = 10


def parse():
    top = argparse.ArgumentParser()
    top.add_argument("--bootstrap", required=True)
    top.add_argument("--id", required=True)
    top.add_argument("--count", type=int, required=True, help="records in the source")
    top.add_argument("--batch", type=int, default=50, help="most records of a transaction")
    top.add_argument("--pause", type=float, default=0, help="seconds after each transaction")
    top.add_argument("--deadline", type=float, default=120, help="seconds until it gives up")
    top.add_argument("source")
    top.add_argument("target")
    return top.parse_args()


def life(args):
    """Copies until everything is, or something fails. Returns how much of the source is copied."""
    quiet = {
        "bootstrap.servers": args.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500,
        # With all brokers down for a moment librdkafka forgets them, and what waits for a coordinator then waits for ever.
        "metadata.recovery.strategy": "none",
    }
    producer = Producer({**quiet, "transactional.id": args.id, "transaction.timeout.ms": 10_000})
    consumer = Consumer({
        **quiet, "group.id": args.id, "enable.auto.commit": False, "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    })
    try:
        producer.init_transactions(PARTITIONS_TIMEOUT_S)
        known = consumer.list_topics(args.source, timeout=PARTITIONS_TIMEOUT_S).topics[args.source].partitions
        wanted = [TopicPartition(args.source, number) for number in known]
        start = consumer.committed(wanted, timeout=PARTITIONS_TIMEOUT_S)
        done = sum(max(place.offset, 0) for place in start)
        consumer.assign([TopicPartition(p.topic, p.partition, max(p.offset, 0)) for p in start])
        while done < args.count:
            messages = [message for message in consumer.consume(args.batch, 1.0) if not message.error()]
            if not messages:
                return done
            producer.begin_transaction()
            for message in messages:
                producer.produce(args.target, value=message.value(), key=message.key(), partition=message.partition())
            positions = [place for place in consumer.position(wanted) if place.offset >= 0]
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), PARTITIONS_TIMEOUT_S)
            # Who watches can kill in the middle of it.
            print("end", flush=True)
            producer.commit_transaction(PARTITIONS_TIMEOUT_S)
            done += len(messages)
            time.sleep(args.pause)
        return done
    finally:
        consumer.close()


def main():
    args = parse()
    until = time.monotonic() + args.deadline
    lives, last = 0, ""
    while time.monotonic() < until:
        lives += 1
        try:
            if life(args) >= args.count:
                print(f"copied in {lives} lives")
                return
        except KafkaException as failure:
            last = str(failure)
        time.sleep(0.1)
    sys.exit(f"not everything is copied after {lives} lives: {last}")


if __name__ == "__main__":
    main()
