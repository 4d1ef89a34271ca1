//! Appending: validation, offset assignment, the journal's open frame. Nothing here waits.

use crate::batch::header::assign;
use crate::batch::{BatchHeader, Marker};
use crate::id::{FrameSeq, Now, Part};
use crate::store::{ProducerCheck, ProducerError};

use super::api::{AppendError, Appended};
use super::inspect::{self, Changes, Reading, Stamp};
use super::journal::Target;
use super::partition::{LiveSegment, TailEntry};
use super::{Core, State};

impl Core {
    /// Validates one record batch, assigns its offset, and puts it into the open journal frame. It is durable,
    /// and visible to consumers, once [`Core::durable`] reaches the returned frame.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn append(&mut self, now: Now, part: Part, batch: &[u8]) -> Result<Appended, AppendError> {
        self.append_batch(now, part, batch, false)
    }

    /// As [`Core::append`] for batches the broker writes itself: control batches are allowed.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn append_internal(
        &mut self,
        now: Now,
        part: Part,
        batch: &[u8],
    ) -> Result<Appended, AppendError> {
        self.append_batch(now, part, batch, true)
    }

    fn append_batch(
        &mut self,
        now: Now,
        part: Part,
        batch: &[u8],
        internal: bool,
    ) -> Result<Appended, AppendError> {
        if self.state != State::Running {
            return Err(AppendError::Closed);
        }
        let (epoch, memory_max) = (self.run.leader_epoch, self.tail_bytes_max());
        let partition = self
            .parts
            .get_mut(part.0 as usize)
            .and_then(Option::as_mut)
            .ok_or(AppendError::UnknownPartition)?;
        let limit = partition.config.max_message_bytes;
        let most = (limit as usize).min(self.config.max_batch_bytes);
        let fits = |batch: &[u8]| match batch.len() {
            bytes if bytes > most => Err(AppendError::TooLarge {
                bytes,
                limit: most as u32,
            }),
            _ => Ok(()),
        };
        BatchHeader::parse(batch)?;
        fits(batch)?;
        let header = *BatchHeader::validate(batch)?;
        if header.is_control() && !internal {
            return Err(AppendError::ControlBatch);
        }
        let Changes { stamp, recoded } = if internal {
            Changes::default()
        } else {
            let reading = Reading {
                depth: self.config.inspect,
                limit: self.config.decompressed_bytes_max,
            };
            let scratch = &mut self.scratch;
            inspect::check(reading, &partition.config, now.wall_ms, batch, scratch)?
        };
        let batch = recoded.as_deref().unwrap_or(batch);
        fits(batch)?;
        let marker = if header.is_control() {
            Marker::read(batch)
        } else {
            None
        };
        if let Some(marker) = marker {
            let checked = partition.producers.check_marker(&header, marker);
            checked.map_err(|e| refused(&header, e))?;
        } else if header.is_idempotent()
            && let ProducerCheck::Duplicate(original) = partition
                .producers
                .check(&header)
                .map_err(|e| refused(&header, e))?
        {
            self.stats.duplicates += 1;
            return Ok(Appended {
                frame: FrameSeq(original.frame),
                base_offset: original.base_offset,
                log_start_offset: partition.log_start,
                append_time_ms: -1,
                duplicate: true,
            });
        }
        if self.storage_full
            || self.space_short
            || self.journal.is_starved()
            || self.reserve.has_failed()
        {
            self.room_wanted = true;
            return Err(AppendError::StorageFull);
        }
        if !self.reserve.is_held()
            || !self.journal.has_room(batch.len())
            || self.journal.backlog_bytes() + batch.len() as u64 > memory_max
        {
            self.room_wanted = true;
            return Err(AppendError::Busy);
        }

        let records = i64::from(header.record_count.get());
        let roll = partition.must_roll(batch.len(), records, now.wall_ms);
        let (base, next) = (partition.log_end, partition.log_end + records);
        let append_time = partition.config.log_append_time.then_some(now.wall_ms);
        let stamp = stamp.or(append_time.map(Stamp::Broker));
        let mut stored = header;
        let to = Target {
            key: partition.key,
            part: part.0,
            roll,
            next_offset: next,
        };
        let place = self.journal.append(&mut self.out, to, batch, |bytes| {
            assign(bytes, base, epoch);
            if let Some(stamp) = stamp {
                stamp.put(bytes);
            }
            if let Some(header) = BatchHeader::read(bytes) {
                stored = *header;
            }
        });
        partition.log_end = next;
        if roll {
            partition.roll_next = false;
            partition.live = Some(LiveSegment {
                base_offset: base,
                bytes: 0,
                created_ms: now.wall_ms,
            });
        }
        if let Some(live) = &mut partition.live {
            live.bytes += batch.len() as u64;
        }
        partition
            .tail
            .push_back(TailEntry::new(base, place, batch.len(), roll));
        partition.epochs.append(epoch, base);
        if stored.max_timestamp.get() > partition.max_timestamp.0 {
            partition.max_timestamp = (stored.max_timestamp.get(), next - 1);
        }
        if header.is_idempotent() {
            let producers = &mut partition.producers;
            producers.note(&stored, marker, place.frame, now.wall_ms);
        }
        if !partition.dirty {
            partition.dirty = true;
            self.destage.dirty.push(part.0);
        }
        self.destage.note_append(now);
        self.stats.batches += 1;
        self.stats.records += records as u64;
        self.stats.ingested_bytes += batch.len() as u64;
        Ok(Appended {
            frame: FrameSeq(place.frame),
            base_offset: base,
            log_start_offset: partition.log_start,
            append_time_ms: append_time.unwrap_or(-1),
            duplicate: false,
        })
    }
}

fn refused(header: &BatchHeader, error: ProducerError) -> AppendError {
    let producer_id = header.producer_id.get();
    match error {
        ProducerError::OutOfOrder { got, expected } => AppendError::OutOfOrderSequence {
            producer_id,
            got,
            expected,
        },
        ProducerError::Fenced { got, current } => AppendError::ProducerFenced {
            producer_id,
            got,
            current,
        },
        ProducerError::NotTransactional => AppendError::NotTransactional { producer_id },
        ProducerError::CoordinatorFenced { got, current } => {
            AppendError::CoordinatorFenced { got, current }
        }
    }
}
