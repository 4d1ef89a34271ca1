//! Which partition is compacted next, and up to where it may be. Source: `LogCleanerManager` of Apache Kafka.

use crate::id::Now;

use super::job::Job;
use crate::core::Core;
use crate::core::api::CompactionPolicy;
use crate::core::partition::Partition;

/// What there is to be done in a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirty {
    /// From here on nobody has looked for newer records.
    pub(super) from: i64,
    /// The first offset that must stay as it is.
    pub(super) until: i64,
    /// Records between the two at most.
    pub(super) records: u64,
    /// Bytes of segments before and behind `from`.
    clean_bytes: u64,
    dirty_bytes: u64,
    /// When the oldest of them was begun, milliseconds.
    oldest_ms: i64,
}

impl Dirty {
    /// What can be cleaned: whole sealed segments before the one that appends go to, decided and old enough.
    fn of(partition: &Partition, policy: CompactionPolicy, now_ms: i64) -> Option<Self> {
        let segments = &partition.stored.segments;
        let active = match partition.live {
            Some(live) => live.base_offset,
            None => segments.back()?.base_offset,
        };
        let limit = partition.last_stable();
        let from = partition.stored.cleaned_end.max(partition.log_start);
        let mut dirty = Self {
            from,
            until: from,
            records: 0,
            clean_bytes: 0,
            dirty_bytes: 0,
            oldest_ms: i64::MAX,
        };
        for segment in segments {
            let is_open = !segment.sealed || segment.base_offset >= active;
            if is_open || segment.next_offset > limit {
                break;
            }
            if segment.next_offset <= from {
                dirty.clean_bytes += segment.bytes;
                continue;
            }
            if policy.min_lag_ms > 0 && segment.max_timestamp > now_ms - policy.min_lag_ms {
                break;
            }
            dirty.dirty_bytes += segment.bytes;
            dirty.until = segment.next_offset;
            dirty.records += (segment.next_offset - segment.base_offset.max(from)).max(0) as u64;
            dirty.oldest_ms = dirty.oldest_ms.min(segment.created_ms);
        }
        (dirty.dirty_bytes > 0).then_some(dirty)
    }

    /// How much of what could be cleaned is new, millionths.
    fn ratio_ppm(&self) -> u64 {
        let all = u128::from(self.clean_bytes + self.dirty_bytes);
        u64::try_from(u128::from(self.dirty_bytes) * 1_000_000 / all.max(1)).unwrap_or(1_000_000)
    }

    fn is_due(&self, policy: CompactionPolicy, now_ms: i64) -> bool {
        self.ratio_ppm() > u64::from(policy.dirty_ratio_ppm)
            || self.oldest_ms < now_ms.saturating_sub(policy.max_lag_ms)
    }
}

impl Core {
    /// A pass over the partition that needs it most, if one does.
    pub(super) fn choose_compaction(&self, now: Now) -> Option<Job> {
        let candidates = self.parts.iter().zip(0..).filter_map(|(partition, part)| {
            let partition = partition.as_deref()?;
            let policy = partition.config.compaction?;
            if now.mono_ns < partition.compact_after_ns {
                return None;
            }
            let dirty = Dirty::of(partition, policy, now.wall_ms)?;
            let due = dirty.is_due(policy, now.wall_ms);
            due.then_some((dirty.ratio_ppm(), part, dirty))
        });
        let (_, part, dirty) =
            candidates.max_by_key(|&(ratio, part, _)| (ratio, std::cmp::Reverse(part)))?;
        let partition = self.parts[part as usize].as_deref()?;
        Some(Job::new(part, dirty, partition, self, now))
    }
}
