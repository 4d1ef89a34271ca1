"""Who owns which partition, from what members say."""

import queue
import unittest

from group_members import Group, Ownership, parse
from process import Failure


class OwnershipTest(unittest.TestCase):
    def test_balance_is_when_every_partition_has_one_owner_and_loads_are_even(self):
        owners = Ownership(4)
        owners.begin([0, 1], 100)
        # The first that joins has everything: not yet what is meant.
        owners.take("assigned", 110, 0, [0, 1, 2, 3])
        self.assertIsNone(owners.balanced_us)
        owners.take("revoked", 120, 0, [2, 3])
        self.assertIsNone(owners.balanced_us)
        self.assertEqual(owners.describe(), "2 of 4 partitions have no owner, 0 have several; 2 members have 0 to 2 partitions")
        owners.take("assigned", 130, 1, [2, 3])
        self.assertEqual((owners.balanced_us, owners.told_us, owners.callbacks), (130, 110, 3))

    def test_a_later_change_begins_anew_and_nothing_counts_twice(self):
        owners = Ownership(3)
        owners.begin([0, 1], 0)
        owners.take("assigned", 1, 0, [0, 1])
        owners.take("assigned", 2, 1, [2])
        self.assertEqual(owners.balanced_us, 2)
        # An empty callback is no change.
        owners.take("assigned", 3, 1, [])
        self.assertEqual(owners.balanced_us, 2)
        owners.take("assigned", 4, 1, [0])
        self.assertIsNone(owners.balanced_us)
        owners.take("lost", 5, 0, [0])
        owners.take("lost", 5, 0, [0])
        self.assertEqual(owners.balanced_us, 5)
        self.assertEqual(owners.count, [1, 1, 1])

    def test_who_is_gone_owns_nothing_and_is_not_heard(self):
        owners = Ownership(2)
        owners.begin([0, 1], 0)
        owners.take("assigned", 1, 0, [0])
        owners.take("assigned", 1, 1, [1])
        owners.begin([0], 10)
        self.assertFalse(owners.is_balanced())
        owners.take("revoked", 11, 1, [1])
        self.assertEqual((owners.count, owners.told_us), ([1, 0], None))
        owners.take("assigned", 12, 0, [1])
        self.assertEqual((owners.balanced_us, owners.told_us), (12, 12))

    def test_times_of_two_processes_may_come_out_of_order(self):
        owners = Ownership(2)
        owners.begin([0, 1], 0)
        owners.take("assigned", 9, 0, [0])
        owners.take("assigned", 7, 1, [1])
        self.assertEqual(owners.balanced_us, 9)


class GroupTest(unittest.TestCase):
    def test_lines_are_parsed(self):
        self.assertEqual(parse("assigned 17 3 1,2"), ("assigned", 17, 3, [1, 2]))
        self.assertEqual(parse("revoked 17 3 "), ("revoked", 17, 3, []))
        self.assertEqual(parse("failed 17 3 some reason"), ("failed", 17, 3, "some reason"))

    def test_no_balance_is_told_with_what_is_missing(self):
        group = Group(queue.Queue(), 2)
        group.ownership.begin([0], 0)
        group.told.put((None, "assigned", 1, 0, [0]))
        with self.assertRaisesRegex(Failure, "1 of 2 partitions have no owner"):
            group.balance(0.01, 0.1)

    def test_a_member_that_fails_ends_the_round(self):
        group = Group(queue.Queue(), 1)
        group.told.put((None, "failed", 1, 0, "why"))
        with self.assertRaisesRegex(Failure, "member 0 failed: why"):
            group.balance(0.01, 1)


if __name__ == "__main__":
    unittest.main()
