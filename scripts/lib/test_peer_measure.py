"""Tests of what scripts/peers measure makes of single runs: python3 -m unittest discover scripts/lib."""

import re
import sys
import tempfile
import unittest
from pathlib import Path

import peer_measure
import peer_tool
from process import Failure


def result(rate, **changes):
    """One run."""
    return {"group": "throughput", "system": "S", "version": "1", "tool": "t", "shape": "s", "settings": "x", "durable": True,
            "record_bytes": 1000, "warmup_s": 2, "seconds": 5, "messages_per_s": rate, "idle_peers_share": 0.0, "steal_share": 0.0, **changes}


class Entries(unittest.TestCase):
    def test_runs_of_one_setting_are_repetitions(self):
        first = peer_measure.entries([result(10), result(30)])
        found = peer_measure.entries([result(20), result(5, durable=False)], first)
        self.assertEqual(len(found), 2)
        self.assertEqual(found[0]["messages_per_s"], {"median": 20, "min": 10, "max": 30, "n": 3})
        self.assertEqual(found[0]["mb_per_s"]["median"], 0.02)
        self.assertEqual(found[0]["spread"], 1)
        self.assertEqual(found[1]["durability"], "no fsync before an ack")

    def test_another_version_is_another_entry(self):
        self.assertEqual(len(peer_measure.entries([result(1), result(1, version="2")])), 2)


    def test_what_a_kill_lost_stays_with_its_run(self):
        found = peer_measure.entries([result(10, group="kill", acked=100, lost_per_million=20.0), result(10, group="kill", acked=50, lost_per_million=0.0)])
        self.assertEqual([run["lost_per_million"] for run in found[0]["repetitions"]], [20.0, 0.0])
        self.assertIn("s: 20 lost of a million acknowledged", peer_measure.row(found[0]))
        self.assertNotIn("lost", peer_measure.row(peer_measure.entries([result(10)])[0]))


class Rate(unittest.TestCase):
    def rate(self, program, warmup_s, seconds):
        with tempfile.TemporaryDirectory() as folder:
            return peer_tool.rate([sys.executable, "-uc", program], Path(folder) / "log", {0}, re.compile(r"rate: ([\d.,]+)"), warmup_s, seconds, 0.5)

    def test_lines_of_the_warm_up_do_not_count(self):
        program = "import time\nfor n in range(99): print('rate: 1' if n < 3 else 'rate: 1,000'); time.sleep(0.5)"
        self.assertEqual(self.rate(program, 1.0, 1.0), 1000)

    def test_a_tool_that_ends_is_a_failure(self):
        with self.assertRaisesRegex(Failure, "ended by itself: no broker"):
            self.rate("print('no broker')", 1, 1)


if __name__ == "__main__":
    unittest.main()
