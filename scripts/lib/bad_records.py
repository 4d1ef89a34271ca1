"""Bad record batches in Produce requests, and idempotent sequences. Each case returns the partition's error code and base
offset, or "closed"."""

import gzip
import time

import wire
from batches import batch, message_set, record
from wire import i16, i32, string

BIG = [bytes(1_100_000)]
GOOD = batch()
HOUR_MS = 3_600_000


def sends(records, **options):
    """A case that produces to a new topic."""
    return lambda world: world.produce(world.new_topic(), records() if callable(records) else records, **options)


def _nth(*batches_of):
    """A case that sends several batches of one producer; `batches_of` maps a producer id and epoch to them. The outcome
    is of the last."""

    def case(world):
        producer_id, epoch = world.producer_id()
        topic = world.new_topic()
        outcome = None
        for make in batches_of:
            outcome = world.produce(topic, make(producer_id, epoch))
        return outcome

    return case


def _batch_at(sequence, epoch_more=0, values=(b"one", b"two")):
    return lambda producer_id, epoch: batch(
        values, producer_id=producer_id, producer_epoch=epoch + epoch_more, base_sequence=sequence
    )


def no_answer(world):
    """acks=0 gets no answer: what comes next on the connection is the next request's."""
    topic = world.new_topic()
    with wire.connect(world.leader(topic)) as connection:
        connection.sendall(wire.request(wire.PRODUCE, 8, world.produce_body(topic, GOOD, acks=0), correlation=1))
        connection.sendall(wire.request(wire.API_VERSIONS, 0, b"", correlation=2))
        answer = wire.response(connection)
    return "closed" if answer is None else {"next_answer_is_of": answer[0]}


def no_answer_bad(world):
    """acks=0 with a wrong checksum: the connection is the only way to tell."""
    topic = world.new_topic()
    with wire.connect(world.leader(topic)) as connection:
        bad = batch(crc_xor=1)
        connection.sendall(wire.request(wire.PRODUCE, 8, world.produce_body(topic, bad, acks=0), correlation=1))
        connection.sendall(wire.request(wire.API_VERSIONS, 0, b"", correlation=2))
        answer = wire.response(connection)
    return "closed" if answer is None else {"next_answer_is_of": answer[0]}


def one_bad_of_two(world):
    """Two partitions of one request, the second with a wrong checksum: each has its own answer."""
    topic = world.new_topic()
    other = world.new_topic_beside(topic)
    body = string(None) + i16(-1) + i32(5000) + wire.array(
        *(
            string(name) + wire.array(i32(0) + wire.octets(records))
            for name, records in ((topic, GOOD), (other, batch(crc_xor=1)))
        )
    )
    reader = wire.ask(world.leader(topic), wire.PRODUCE, 8, body)
    if reader is None:
        return "closed"
    outcomes = world.produce_outcomes(reader)
    return {"good": outcomes[topic], "bad": outcomes[other]}


CASES = {
    "good": sends(GOOD),
    "base-offset-set": sends(batch(base_offset=77)),
    "wrong-crc": sends(batch(crc_xor=1)),
    "magic-0": sends(message_set(0)),
    "magic-1": sends(message_set(1)),
    "magic-3": sends(batch(magic=3)),
    "magic-negative": sends(batch(magic=-1)),
    "two-batches": sends(GOOD + GOOD),
    "batch-and-garbage": sends(GOOD + b"garbage"),
    "records-null": sends(None),
    "records-empty": sends(b""),
    "records-of-20-bytes": sends(GOOD[:20]),
    "batch-cut": sends(GOOD[:-5]),
    "length-too-long": sends(batch(length_more=1000)),
    "length-too-short": sends(batch(length_more=-3)),
    "length-2gib": sends(GOOD[:8] + i32(0x7FFFFFFF) + GOOD[12:]),
    "length-negative": sends(GOOD[:8] + i32(-1) + GOOD[12:]),
    "count-more": sends(batch(count=5)),
    "count-less": sends(batch(count=1)),
    "count-zero": sends(batch((), count=0)),
    "count-negative": sends(batch(count=-3)),
    "count-2gi": sends(batch(count=0x7FFFFFFF)),
    "last-offset-delta-other": sends(batch(last_offset_delta=7)),
    "last-offset-delta-negative": sends(batch(last_offset_delta=-1)),
    "record-length-lies": sends(batch(records=record(0, b"one", length=500) + record(1, b"two"))),
    "record-offsets-repeat": sends(batch(records=record(0, b"one") + record(0, b"two"))),
    "compressed-garbage": sends(batch(records=b"not gzip at all", attributes=1)),
    "compressed-count-more": sends(batch(records=gzip.compress(record(0, b"one")), count=5, attributes=1)),
    "codec-5": sends(batch(attributes=5)),
    "codec-7": sends(batch(attributes=7)),
    "attributes-unused-bits": sends(batch(attributes=0x0100)),
    "control-batch": sends(batch(attributes=0x20)),
    "transactional-without-id": sends(batch(attributes=0x10)),
    "batch-larger-than-max": sends(lambda: batch(BIG)),
    "time-in-two-hours": sends(lambda: batch(time_ms=int(time.time() * 1000) + 2 * HOUR_MS)),
    "time-in-1970": sends(batch(time_ms=5)),
    "time-negative": sends(batch(time_ms=-5)),
    "acks-2": sends(GOOD, acks=2),
    "acks-0": no_answer,
    "acks-0-wrong-crc": no_answer_bad,
    "one-bad-of-two": one_bad_of_two,
    "partition-unknown": sends(GOOD, partition=9),
    "partition-negative": sends(GOOD, partition=-1),
    "topic-unknown": lambda world: world.produce("never-created", GOOD, port=world.port),
    "topic-name-illegal": lambda world: world.produce("a b/c", GOOD, port=world.port),
    "topic-name-empty": lambda world: world.produce("", GOOD, port=world.port),
    "sequence-first-0": _nth(_batch_at(0)),
    "sequence-first-5": _nth(_batch_at(5)),
    "sequence-next": _nth(_batch_at(0), _batch_at(2)),
    "sequence-gap": _nth(_batch_at(0), _batch_at(9)),
    "sequence-back": _nth(_batch_at(5), _batch_at(3)),
    "sequence-negative": _nth(_batch_at(-3)),
    "sequence-duplicate": _nth(_batch_at(0), _batch_at(2), _batch_at(4), _batch_at(2)),
    "sequence-duplicate-of-other-length": _nth(_batch_at(0), _batch_at(2), _batch_at(2, values=(b"one",))),
    "sequence-duplicate-older-than-5": _nth(*(_batch_at(2 * number) for number in range(7)), _batch_at(0)),
    "sequence-wraps": _nth(_batch_at(0x7FFFFFFE), _batch_at(0)),
    "epoch-next": _nth(_batch_at(0), _batch_at(0, epoch_more=1)),
    "epoch-next-sequence-not-0": _nth(_batch_at(0), _batch_at(2, epoch_more=1)),
    "epoch-old": _nth(_batch_at(0, epoch_more=1), _batch_at(2)),
    "epoch-negative": _nth(_batch_at(0, epoch_more=-1)),
    "producer-id-never-given": sends(batch(producer_id=1 << 40, producer_epoch=0, base_sequence=0)),
}


