"""Checks of single tools: rsyslog's omkafka, Kafka's own commands, and DumpLogSegments on what the broker stored."""

import json
import re
import time

import install
import kafka
from checks import END_TXN, eventually, read_back
from clients import ALL_CODECS
from process import Failure, run, start, stop

DESCRIBE_GROUPS, LIST_GROUPS, DELETE_GROUPS, CREATE_PARTITIONS, DELETE_RECORDS = 15, 16, 42, 37, 21
ALTER_REPLICA_LOG_DIRS, ELECT_LEADERS, ALTER_REASSIGNMENTS, LIST_REASSIGNMENTS = 34, 43, 45, 46
DESCRIBE_QUORUM, LIST_CONFIG_RESOURCES = 55, 74


def rsyslog_checks(context):
    """rsyslog reads the files and sends each line with omkafka; another client reads them back."""
    for codec in ALL_CODECS:
        yield f"rsyslog/{codec}", _rsyslog(context, codec)


def _rsyslog(context, codec):
    def check(log):
        daemon = install.rsyslog()
        folder = context.folder()
        prefix = context.topic(f"rsyslog-{codec}")
        written = {f"{prefix}.{name}": path for name, path in context.files.exact.items()}
        config = folder / "rsyslog.conf"
        config.write_text(rsyslog_config(context.broker.port, folder, written, codec))
        daemon = start([daemon, "-n", "-f", config, "-i", folder / "pid"], log)
        kcat = context.client("kcat").command()
        try:
            if not eventually(lambda: topics_of(run([*kcat, "-b", context.at, "-L", "-J"], log)) >= written.keys()):
                raise Failure("omkafka did not create its topics")
            read_back(context, log, context.readers(codec, "kcat")[0], written)
        finally:
            stop(daemon)

    return check


def topics_of(metadata):
    """The names of the topics that have a leader, from kcat's metadata."""
    topics = json.loads(metadata)["topics"]
    return {topic["topic"] for topic in topics if all(part["leader"] >= 0 for part in topic["partitions"])}


def rsyslog_config(port, folder, written, codec):
    """A configuration of its own: no system log, one file input and one action per topic."""
    lines = [
        f'global(workDirectory="{folder}" maxMessageSize="256k")',
        'module(load="imfile")',
        'module(load="omkafka")',
        'template(name="line" type="string" string="%msg%")',
    ]
    for number, (topic, path) in enumerate(written.items()):
        lines += [
            f'ruleset(name="r{number}") {{',
            f'  action(type="omkafka" broker=["127.0.0.1:{port}"] topic="{topic}" template="line"',
            f'         confParam=["compression.codec={codec}", "acks=all", "linger.ms=20"])',
            "}",
            f'input(type="imfile" file="{path}" tag="t{number}" ruleset="r{number}")',
        ]
    return "\n".join(lines) + "\n"


def java_checks(context):
    """Kafka's own tools. With each name come the APIs it needs beyond reading and writing."""
    yield "java/TopicCommand", lambda log: _topic_command(context, log), (CREATE_PARTITIONS,)
    yield "java/VerifiableProducer-VerifiableConsumer", lambda log: _verifiable(context, log), ()
    yield "java/performance-tools", lambda log: _performance(context, log), ()
    yield "java/EndToEndLatency", lambda log: _end_to_end(context, log), ()
    yield "java/ConsumerGroupCommand", lambda log: _group_command(context, log), (
        DESCRIBE_GROUPS, LIST_GROUPS, DELETE_GROUPS,
    )
    yield "java/TransactionsCommand", lambda log: _transactions(context, log), (END_TXN,)
    yield "java/DeleteRecordsCommand", lambda log: _delete_records(context, log), (DELETE_RECORDS,)
    yield "java/BrokerApiVersionsCommand", lambda log: _api_versions(context, log), ()
    yield "java/MetadataQuorumCommand", lambda log: _quorum(context, log), (DESCRIBE_QUORUM,)
    yield "java/LeaderElectionCommand", lambda log: _election(context, log), (ELECT_LEADERS,)
    yield "java/ReassignPartitionsCommand", lambda log: _reassign(context, log), (
        ALTER_REASSIGNMENTS, LIST_REASSIGNMENTS, ALTER_REPLICA_LOG_DIRS,
    )
    yield "java/ClientMetricsCommand", lambda log: _client_metrics(context, log), (LIST_CONFIG_RESOURCES,)


def _tool(context, log, name, *arguments):
    at = ("--bootstrap-server", context.at)
    return run(kafka.command(f"org.apache.kafka.tools.{name}", *at, *arguments), log).decode()


def _need(pattern, output, what):
    found = re.search(pattern, output)
    if not found:
        raise Failure(f"{what}: no {pattern!r} in its output")
    return found


def _topic_command(context, log):
    topic = context.topic("java-topic")
    _tool(context, log, "TopicCommand", "--create", "--topic", topic, "--partitions", "2")
    _tool(context, log, "TopicCommand", "--alter", "--topic", topic, "--partitions", "5")
    seen = eventually(
        lambda: "PartitionCount: 5" in _tool(context, log, "TopicCommand", "--describe", "--topic", topic)
    )
    if not seen:
        raise Failure("the topic did not grow to 5 partitions")


def _verifiable(context, log):
    topic, group = context.topic("verifiable"), context.topic("verifiable-group")
    output = _tool(
        context, log, "VerifiableProducer", "--topic", topic, "--max-messages", "5000", "--acks", "-1",
    )
    sent = sum(json.loads(line)["name"] == "producer_send_success" for line in output.splitlines() if line[:1] == "{")
    if sent != 5000:
        raise Failure(f"VerifiableProducer had {sent} of 5000 acknowledged")
    for first, last in ((0, 2000), (2000, 5000)):
        output = _tool(
            context, log, "VerifiableConsumer", "--topic", topic, "--group-id", group, "--reset-policy", "earliest",
            "--max-messages", str(last - first), "--verbose",
        )
        events = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
        values = [int(event["value"]) for event in events if event["name"] == "record_data"]
        if values != list(range(first, last)):
            raise Failure(f"VerifiableConsumer should read {first} to {last}, read {len(values)}: {values[:3]}…")
        if not any(event["name"] == "offsets_committed" and event["success"] for event in events):
            raise Failure("VerifiableConsumer committed nothing")


def _performance(context, log):
    topic = context.topic("performance")
    payload = max(context.files.plain.values(), key=lambda path: path.stat().st_size)
    output = run(
        kafka.command(
            "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", context.at, "--topic", topic,
            "--num-records", "50000", "--throughput", "-1", "--payload-file", payload,
            "--command-property", "acks=all", "compression.type=lz4",
        ),
        log,
    ).decode()
    _need(r"50000 records sent", output, "ProducerPerformance")
    output = _tool(context, log, "ConsumerPerformance", "--topic", topic, "--num-records", "50000", "--timeout", "20000")
    columns = output.splitlines()[-1].split(",")
    if int(columns[4]) < 50000:
        raise Failure(f"ConsumerPerformance read {columns[4].strip()} of 50000")


def _transactions(context, log):
    """Kafka's producer writes in transactions, its tools see them, its consumer reads what is committed."""
    topic, name, count = context.topic("java-transactions"), context.topic("java-id"), 5000
    _tool(context, log, "TopicCommand", "--create", "--topic", topic, "--partitions", "1")
    _tool(
        context, log, "ProducerPerformance", "--topic", topic, "--num-records", str(count), "--record-size", "100",
        "--throughput", "-1", "--transactional-id", name, "--transaction-duration-ms", "20",
    )
    listed = eventually(lambda: re.search(
        rf"{name}\s+\d+\s+\d+\s+CompleteCommit", _tool(context, log, "TransactionsCommand", "list"),
    ))
    if not listed:
        raise Failure(f"{name} is not listed as committed")
    at = ("--topic", topic, "--partition", "0")
    _need(r"None", _tool(context, log, "TransactionsCommand", "describe-producers", *at), "describe-producers")
    lines = _tool(
        context, log, "consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--timeout-ms", "20000",
        "--isolation-level", "read_committed", "--max-messages", str(count),
    )
    if lines.count("\n") != count:
        raise Failure(f"{lines.count(chr(10))} records of {count} read committed")


def _end_to_end(context, log):
    topic = context.topic("latency")
    output = _tool(
        context, log, "EndToEndLatency", "--topic", topic, "--num-records", "500", "--producer-acks", "all",
        "--record-size", "200",
    )
    _need(r"Avg latency: ", output, "EndToEndLatency")
    _need(r"Percentiles: 50th = ", output, "EndToEndLatency")


def _group_command(context, log):
    topic, group = context.topic("groups"), context.topic("groups-of")
    name, path = next(iter(context.files.plain.items()))
    client = context.client("confluent")
    client.produce(context.at, log, {topic: path}, "none")
    client.consume(context.at, log, {topic: 100}, context.folder(), group)

    def command(*arguments):
        return _tool(context, log, "consumer.group.ConsumerGroupCommand", *arguments)

    if group not in command("--list").split():
        raise Failure("the group is not listed")
    end = context.files.count[name]
    _need(rf"{topic}\s+0\s+100\s+{end}\s+{end - 100}\s", command("--describe", "--group", group), "--describe")
    command("--reset-offsets", "--group", group, "--topic", topic, "--to-latest", "--execute")
    _need(rf"{topic}\s+0\s+{end}\s+{end}\s+0\s", command("--describe", "--group", group), "--describe after a reset")
    command("--delete", "--group", group)
    if group in command("--list").split():
        raise Failure("the group was deleted, but is still listed")


def _delete_records(context, log):
    topic = context.topic("delete-records")
    context.client("confluent").produce(context.at, log, {topic: next(iter(context.files.plain.values()))}, "none")
    plan = context.folder() / "plan.json"
    plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 7}]}))
    _tool(context, log, "DeleteRecordsCommand", "--offset-json-file", plan)
    start_offset = context.client("confluent").offsets_at(context.at, log, topic, -2)
    if start_offset != {0: 7}:
        raise Failure(f"the log starts at {start_offset}, should start at 7")


def _api_versions(context, log):
    output = _tool(context, log, "BrokerApiVersionsCommand")
    for api in ("Produce(0)", "Fetch(1)", "Metadata(3)", "ApiVersions(18)"):
        _need(re.escape(api) + r": \d", output, "BrokerApiVersionsCommand")
    nodes = re.findall(r"\(id: (\d+) rack", output)
    wanted = getattr(context.broker, "shards", 1)
    if len(nodes) != wanted:
        raise Failure(f"{len(nodes)} brokers in the cluster, should be {wanted}")


def _quorum(context, log):
    leader = _need(r"LeaderId:\s+(\d+)", _tool(context, log, "MetadataQuorumCommand", "describe", "--status"), "--status")
    rows = _tool(context, log, "MetadataQuorumCommand", "describe", "--replication")
    _need(rf"(?m)^{leader.group(1)}\s.*Leader", rows, "--replication")


def _new_topic(context, log, name):
    topic = context.topic(name)
    _tool(context, log, "TopicCommand", "--create", "--topic", topic, "--partitions", "1")
    described = eventually(lambda: _tool(context, log, "TopicCommand", "--describe", "--topic", topic))
    return topic, int(_need(r"Leader: (\d+)", described, "--describe").group(1))


def _election(context, log):
    topic, _ = _new_topic(context, log, "election")
    output = _tool(
        context, log, "LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", "0",
    )
    _need(rf"Valid replica already elected for partitions {topic}-0", output, "LeaderElectionCommand")
    _tool(context, log, "LeaderElectionCommand", "--election-type", "unclean", "--all-topic-partitions")


def _reassign(context, log):
    topic, leader = _new_topic(context, log, "reassign")

    def command(*arguments):
        return _tool(context, log, "reassign.ReassignPartitionsCommand", *arguments)

    _need("No partition reassignments found", command("--list"), "--list")
    plan = context.folder() / "plan.json"
    partition = {"topic": topic, "partition": 0, "replicas": [leader], "log_dirs": [str(context.broker.data)]}
    plan.write_text(json.dumps({"version": 1, "partitions": [partition]}))
    _need("Successfully started partition reassignment", command("--execute", "--reassignment-json-file", plan), "--execute")
    _need(rf"Reassignment of partition {topic}-0 is completed", command("--verify", "--reassignment-json-file", plan), "--verify")


def _client_metrics(context, log):
    output = _tool(context, log, "ClientMetricsCommand", "--list").strip()
    if output:
        raise Failure(f"there are no client metrics, listed are {output}")


def segment_checks(context):
    """Kafka's DumpLogSegments opens what the broker stored."""
    for codec in ("none", "lz4"):
        yield f"segments/DumpLogSegments/{codec}", _segments(context, codec)


def _segments(context, codec):
    def check(log):
        topic = context.topic(f"segments-{codec}")
        java, writer = context.client("java"), context.client("confluent")
        java.create_topic(context.at, log, topic, 1, {"segment.bytes": str(1 << 20)})
        if not eventually(lambda: java.describe_topic(context.at, log, topic)):
            raise Failure(f"{topic} was created, but is not described")
        paths, written, stored = [], [], 0
        # Enough for a few segments, at the least that a codec makes of it.
        while stored < 24 << 20:
            for path in context.files.plain.values():
                paths.append(path)
                written += path.read_bytes().split(b"\n")[:-1]
                stored += path.stat().st_size
        feed = context.folder() / "feed"
        feed.write_bytes(b"\n".join(written) + b"\n")
        writer.produce(context.at, log, {topic: feed}, codec)
        folder = eventually(lambda: context.broker.segments(topic).get(0), 40)
        if not folder:
            raise Failure(f"no folder of {topic}-0 under {context.broker.data}")
        sealed = eventually(lambda: sorted(folder.glob("*.log"))[:-1], limit_s=30)
        if len(sealed) < 2:
            raise Failure(f"{len(sealed)} sealed segments in {folder}, should be several")
        time.sleep(1)
        dump(log, sealed[:2], written)

    return check


# What DumpLogSegments says of an index that does not fit its log.
COMPLAINTS = r".*(mismatch|non-consecutive|out of order|corrupt|not sane|exception).*"


def dump(log, segments, written):
    """Has each segment and its indexes read by Kafka: every record there, in order, as it was written."""
    for path in segments:
        output = run(
            kafka.command(
                "org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", path,
                jvm=("-Xmx1g",),
            ),
            log,
        )
        notes = (line for line in output.splitlines() if not line.startswith(b"|"))
        for note in notes:
            if re.search(rb"isvalid: false|corrupt|Found|Exception", note):
                raise Failure(f"DumpLogSegments on {path.name}: {note.decode(errors='replace')}")
        base = int(path.stem)
        records = re.findall(rb"^\| offset: (\d+) .*? payload: (.*)$", output, re.MULTILINE)
        if not records:
            raise Failure(f"DumpLogSegments found no record in {path}")
        for number, (offset, payload) in enumerate(records):
            if int(offset) != base + number:
                raise Failure(f"{path.name}: offset {int(offset)} where {base + number} should be")
            if payload != written[base + number]:
                raise Failure(f"{path.name}: offset {int(offset)} holds {payload[:80]!r}")
        following = base + len(records)
        if not path.with_name(f"{following:020}.log").exists():
            raise Failure(f"{path.name} ends at {following}, where no segment begins")
        for kind in ("index", "timeindex"):
            output = run(
                # It prints what does not fit as errors, and ends well.
                kafka.command("org.apache.kafka.tools.DumpLogSegments", "--files", path.with_suffix(f".{kind}")), log,
                with_errors=True,
            ).decode()
            complaint = re.search(COMPLAINTS, output, re.IGNORECASE)
            if complaint:
                raise Failure(f"{path.stem}.{kind}: {complaint.group(0)}")
            if not re.search(r"^(offset|timestamp): \d+", output, re.MULTILINE):
                raise Failure(f"{path.stem}.{kind} has no entry")
