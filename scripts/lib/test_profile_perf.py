"""Tests of what scripts/flamegraph and scripts/perf-report make of perf's words: python3 -m unittest discover scripts/lib."""

import os
import unittest
from unittest import mock

import perf_report
import profile_perf
from process import Failure

# What `perf stat -x ,` printed of a server; the second event is one that the kernel does not have.
COUNTS = """53890,,raw_syscalls:sys_enter,10003012,100.00,,
<not supported>,,context-switches,0,100.00,,
12,,cpu-migrations,10003012,100.00,1.2,/sec
"""


class Counts(unittest.TestCase):
    def test_what_is_not_counted_is_missing(self):
        found = profile_perf.parse_counts(COUNTS, ("raw_syscalls:sys_enter", "context-switches", "cpu-migrations"))
        self.assertEqual(found, {"raw_syscalls:sys_enter": 53890, "cpu-migrations": 12})

    def test_rates_are_by_second_and_by_ack(self):
        found = perf_report.per_request({"raw_syscalls:sys_enter": 53890}, 10, 5389)
        self.assertEqual(found, {"system_calls": {"per_s": 5389, "per_request": 1}})
        self.assertIsNone(perf_report.per_request({"page-faults": 5}, 10, 0)["page_faults"]["per_request"])


class Refusals(unittest.TestCase):
    def test_a_lack_of_permission_names_its_remedy(self):
        text = profile_perf.refused("perf record", "Error:\nAccess to performance monitoring and observability operations is limited.\n")
        self.assertIn("sysctl kernel.perf_event_paranoid=-1", text)
        self.assertEqual(len(text.splitlines()), 1)

    def test_without_perf_one_line_says_how_to_get_it(self):
        with mock.patch.dict(os.environ, {"PATH": ""}), self.assertRaisesRegex(Failure, "apt install linux-perf") as raised:
            profile_perf.perf()
        self.assertEqual(len(str(raised.exception).splitlines()), 1)

    def test_anything_else_is_told_as_it_is(self):
        self.assertEqual(profile_perf.refused("perf script", "x\nno such file\n"), "perf script failed: no such file")


if __name__ == "__main__":
    unittest.main()
