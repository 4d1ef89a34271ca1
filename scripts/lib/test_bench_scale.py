"""What the benchmarks of groups, commits and connections make of what programs tell them, and how a report shows it."""

import unittest
from unittest import mock

import bench_commits
import bench_connections
import bench_report
from process import Failure


def commits(**changes):
    told = {
        "commits": {"per_s": 5000.0, "latency_us": {"p50": 900.0, "p99": 4000.0}},
        "server": {"cores": 0.08, "cpu_us_per_commit": 16.0, "write_bytes_per_commit": 120.0},
        "heartbeats": None, "behind_s": 0.0, "errors_total": 0,
    }
    return {**told, **changes}


class FiguresTest(unittest.TestCase):
    def test_commits_are_told_with_the_servers_share_of_a_core(self):
        figures, note = bench_commits.figures_of(commits())
        self.assertEqual((figures["cores"], figures["p99_us"], note), (0.08, 4000.0, ""))

    def test_what_went_wrong_is_in_the_note(self):
        result = commits(behind_s=3.0, errors_total=2, heartbeats={"per_s": 1667.0}, server=None)
        figures, note = bench_commits.figures_of(result)
        self.assertIsNone(figures["cores"])
        self.assertEqual(note, "1667 heartbeats/s; the rate was not reached: 3.0 s behind; 2 errors")

    def test_silent_connections_that_were_closed_are_no_result(self):
        idle = {
            "connections": 10, "open_s": 0.5, "closed_by_broker": 0, "server_bytes_per_connection": 1800.0,
            "with": {"resident_bytes": 3 << 20, "descriptors": 40},
        }
        figures, _ = bench_connections.figures_of({"idle": idle})
        self.assertEqual(figures, {"bytes_per_connection": 1800.0, "descriptors": 40, "resident_mib": 3.0})
        self.assertEqual(bench_connections.figures_of({"idle": None}), ({}, ""))
        with self.assertRaisesRegex(Failure, "4 of 10 silent connections"):
            bench_connections.figures_of({"idle": {**idle, "closed_by_broker": 4}})

    def test_too_few_descriptors_are_told_with_the_remedy(self):
        with mock.patch("resource.getrlimit", return_value=(1024, 4096)):
            bench_connections.needs(4096)
            with self.assertRaisesRegex(Failure, "ulimit -Hn 12000"):
                bench_connections.needs(12000)


class ReportTest(unittest.TestCase):
    def test_ratios_of_times_say_how_many_times_better_ringlog_is(self):
        def run(side, **figures):
            return {"item": "groups", "case": "c", "side": side, "repeat": 0, "figures": figures, "settings": "", "note": ""}

        runs = [run("ringlog", first_balance_s=2.0, crash_s=8.0, cores=0.05), run("kafka", first_balance_s=3.0, crash_s=6.0, cores=0.5)]
        sides = next(iter(bench_report.group(runs).values()))
        found = bench_report.ratios(sides)["kafka"]
        self.assertEqual(found["first_balance_s"]["median"], 1.5)
        self.assertEqual(found["crash_s"]["median"], 0.75)
        self.assertAlmostEqual(found["cores"]["median"], 10.0)
        lines = bench_report.table(sides)
        self.assertIn("first balance s", lines[0])
        self.assertIn("| 2.00 |", lines[2])


if __name__ == "__main__":
    unittest.main()
