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
    def rate(self, program, warmup_s, seconds, **more):
        with tempfile.TemporaryDirectory() as folder:
            pattern = re.compile(r"rate: ([\d.,]+)")
            return peer_tool.rate([sys.executable, "-uc", program], Path(folder) / "log", {0}, pattern, warmup_s, seconds, 0.5, **more)

    def test_lines_of_the_warm_up_do_not_count(self):
        program = "import time\nfor n in range(99): print('rate: 1' if n < 3 else 'rate: 1,000'); time.sleep(0.5)"
        self.assertEqual(self.rate(program, 1.0, 1.0), 1000)

    def test_a_window_begins_when_lines_say_about_the_same(self):
        program = "import time\nfor n in range(99): print('rate:', (9, 100, 500, 900, 950, 700)[min(n, 5)]); time.sleep(0.5)"
        self.assertEqual(self.rate(program, 0, 1.0, until_steady=True), 700)
        self.assertEqual(self.rate(program, 0, 1.0), 300)

    def test_a_tool_that_ends_is_a_failure(self):
        with self.assertRaisesRegex(Failure, "ended by itself: no broker"):
            self.rate("print('no broker')", 1, 1)


class Warm(unittest.TestCase):
    def warm(self, rates, limit_s=60):
        """Each step takes ten seconds of a clock of its own."""
        steps, now = iter(rates), [0]

        def step():
            now[0] += 10
            return next(steps)

        return peer_tool.warm(step, limit_s, lambda: now[0])

    def test_it_ends_when_two_steps_are_within_a_tenth(self):
        seen = self.warm([100, 200, 300, 329, 1000])
        self.assertEqual((seen.rates, seen.steady), ([100, 200, 300, 329], True))

    def test_a_minute_is_enough(self):
        seen = self.warm([100, 200] * 10)
        self.assertEqual((len(seen.rates), seen.steady), (6, False))
        self.assertEqual(len(self.warm([100, 200], limit_s=0).rates), 1)

    def test_what_never_moves_is_not_steady(self):
        self.assertFalse(self.warm([0] * 10).steady)


if __name__ == "__main__":
    unittest.main()
