"""MirrorMaker 2 moves a topic from Apache Kafka to the broker and on to Kafka again; all three hold the same records."""

import json
import time

import install
import kafka
import wire
from checks import eventually
from process import Failure, run, start, stop

PARTITIONS = 4
# So many records a second at the least, both ways at once, on a host with little to give.
RECORDS_PER_S_MIN = 4000
START_LIMIT_S = 120
# They come over with the topic.
SETTINGS = {"retention.ms": "86400001", "max.message.bytes": "1000000"}
JVM = ("-XX:+UseSerialGC", "-Xmx768m")


def mirror_checks(context):
    """From Kafka to the broker and back: --records says how many."""
    yield "mirror/there-and-back", lambda log: _there_and_back(context, log)


def configuration(source, target, topic):
    """A dedicated MirrorMaker from one cluster to another, each a name and HOST:PORT."""
    (here, here_at), (there, there_at) = source, target
    settings = {
        "clusters": f"{here}, {there}",
        f"{here}.bootstrap.servers": here_at,
        f"{there}.bootstrap.servers": there_at,
        f"{here}->{there}.enabled": "true",
        f"{here}->{there}.topics": topic.replace(".", r"\\."),
        "refresh.topics.interval.seconds": "2",
        "tasks.max": "2",
        "replication.factor": "1",
        **{f"{name}.topic.replication.factor": "1" for name in ("checkpoints", "heartbeats", "offset-syncs")},
        **{f"{name}.storage.replication.factor": "1" for name in ("offset", "status", "config")},
    }
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


def _there_and_back(context, log):
    context.client("franz-go")
    peer = kafka.Peer(f"{context.work.name}-mirror")
    try:
        _mirror(context, log, peer.start()["port"])
    finally:
        peer.stop()
        peer.remove()


def _mirror(context, log, kafka_port):
    topic, kafka_at = context.topic("mirror"), f"127.0.0.1:{kafka_port}"
    program, confluent = install.go() / "checksum", context.client("confluent")
    limit_s = START_LIMIT_S + context.records / RECORDS_PER_S_MIN
    confluent.create_topic(kafka_at, log, topic, PARTITIONS, SETTINGS)
    run(
        [program, "--bootstrap", kafka_at, "--records", context.records, "write", topic, *context.files.exact.values()],
        log, timeout_s=limit_s,
    )
    # A topic never goes back to the cluster that it came from, so Kafka has two names. No two tries have the same.
    origin, there, again = (context.topic(word) for word in ("origin", "there", "back"))
    middle, back = f"{origin}.{topic}", f"{there}.{origin}.{topic}"
    _flow(context, log, (origin, kafka_at), (there, context.at), (topic, middle), context.broker.port, limit_s)
    _flow(context, log, (there, context.at), (again, kafka_at), (middle, back), kafka_port, limit_s)
    holds = {
        name: json.loads(run([program, "--bootstrap", at, "sum", name], log, timeout_s=limit_s))
        for at, name in ((kafka_at, topic), (context.at, middle), (kafka_at, back))
    }
    written = holds[topic]
    if len(written) != PARTITIONS or sum(part["records"] for part in written.values()) != context.records:
        raise Failure(f"{topic} holds {written}")
    for at, name in ((context.at, middle), (kafka_at, back)):
        for partition, part in written.items():
            if holds[name].get(partition) != part:
                raise Failure(f"{name}-{partition} holds {holds[name].get(partition)}, {topic}-{partition} {part}")
        config = confluent.describe_topic(at, log, name)["config"]
        if any(config.get(key) != value for key, value in SETTINGS.items()):
            raise Failure(f"{name} has not the settings of {topic}: {config}")


def _flow(context, log, source, target, topics, port, limit_s):
    """Runs a MirrorMaker until a topic has come over."""
    name = f"{source[0]}-{target[0]}"
    config = context.folder() / f"{name}.properties"
    config.write_text(configuration(source, target, topics[0]))
    begun = time.monotonic()
    process = start(
        kafka.command("org.apache.kafka.connect.mirror.MirrorMaker", config, jvm=JVM, classes=install.java_classes()), log,
    )
    try:
        _wait(process, port, topics[1], context.records, limit_s, log)
    finally:
        stop(process, grace_s=10)
    seconds = time.monotonic() - begun
    print(f"   {name}: {context.records} records in {seconds:.0f} s, the start of MirrorMaker included", flush=True)


def _wait(process, port, topic, records, limit_s, log):
    """Waits until a topic has all records."""
    arrived = 0

    def complete():
        nonlocal arrived
        if process.poll() is not None:
            raise Failure(f"MirrorMaker ended with {process.returncode} (log: {log})")
        arrived = sum(wire.Cluster(port).ends(topic).values())
        return arrived >= records

    if not eventually(complete, limit_s):
        raise Failure(f"{arrived} of {records} records in {topic} after {limit_s:.0f} s (log: {log})")
