"""The tests that client libraries have of their own, run against the broker. compat.d/suites/expected.json lists those that
do not pass, each with the reason; a check fails when the list is not true."""

import json
import re
import xml.etree.ElementTree

import install
from paths import CLIENTS
from process import Failure, run

END_TXN, CONSUMER_GROUP_HEARTBEAT, SHARE_FETCH = 26, 68, 78


def upstream_checks(context):
    """franz-go's tests, those of newer features apart, and kafka-python's."""
    yield "kgo-suite/groups-and-transactions", _kgo(context, "-test.skip", "Share|848"), (END_TXN,)
    yield "kgo-suite/kip-848", _kgo(context, "-test.run", "848"), (CONSUMER_GROUP_HEARTBEAT,)
    yield "kgo-suite/share", _kgo(context, "-test.run", "Share"), (SHARE_FETCH,)
    yield "kafka-python-suite", lambda log: _kafka_python(context, log)


def compare(context, suite, outcomes):
    """Every test passes or is listed, and what is listed does not pass. `outcomes` maps test to outcome."""
    if "passed" not in outcomes.values():
        raise Failure("no test passed")
    listed = json.loads((CLIENTS / "suites" / "expected.json").read_text())[suite]
    others = [f"{test} {outcome}" for test, outcome in outcomes.items() if outcome != "passed" and test not in listed]
    if others:
        raise Failure(f"not passed and not in expected.json: {', '.join(others)}")
    passed = [test for test, outcome in outcomes.items() if outcome == "passed" and test in listed]
    if passed and context.broker.name == "ringlog":
        raise Failure(f"passed, but expected.json says why not: {', '.join(passed)}")


def _kgo(context, *choice):
    def check(log):
        program, source = install.kgo_suite()
        environment = {
            "KGO_SEEDS": context.at, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": "10000", "KGO_LOG_LEVEL": "none",
        }
        output = run(
            [program, "-test.v", *choice], log, timeout_s=600, env=environment, cwd=source, any_code=True,
        ).decode(errors="replace")
        # Of tests with parts, the whole has the outcome.
        rows = re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", output, re.MULTILINE)
        words = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
        compare(context, "franz-go", {test: words[word] for word, test in rows})

    return check


# What its tests give to the broker that they start themselves, which is one node.
KAFKA_PYTHON_BROKER = {
    "num.partitions": "4", "group.min.session.timeout.ms": "1000", "group.initial.rebalance.delay.ms": "0",
}


def _kafka_python(context, log):
    source, folder = install.kafka_python_tests(), context.folder()
    broker = type(context.broker)(folder / f"{context.work.name}-suite", 1, KAFKA_PYTHON_BROKER)
    broker.start()
    try:
        outcomes = _pytest(source, broker, log, folder / "report.xml")
    finally:
        broker.stop()
    compare(context, "kafka-python", outcomes)


def _pytest(source, broker, log, report):
    # They look for a folder of Kafka even when they start none.
    environment = {"KAFKA_VERSION": "4.2.0", "KAFKA_URI": f"kafka://{broker.bootstrap}", "KAFKA_ROOT": str(source)}
    files = [f"test/integration/test_{what}_integration.py" for what in ("admin", "consumer", "producer")]
    run(
        [install.python("suites"), "-m", "pytest", "-q", "--tb=native", f"--junitxml={report}", *files], log,
        timeout_s=600, env=environment, cwd=source, any_code=True,
    )
    if not report.exists():
        raise Failure(f"pytest ran no test (log: {log})")
    outcomes = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        word = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        outcomes[f"{case.get('classname').rsplit('.', 1)[-1]}.{case.get('name')}"] = word
    return outcomes
