//! Simulated producers: idempotent and plain, with batches in flight, lost acknowledgements and retries.

use std::collections::VecDeque;

use super::rng::Rng;
use super::traffic::{Kind, Sent, Shape};
use super::world::{Actor, PATIENCE_NS, World};
use crate::core::AppendError;
use crate::id::{FrameSeq, PartitionKey};

/// Requests a Kafka producer has in flight at most.
const IN_FLIGHT_MAX: u64 = 5;
/// A producer that heard of no room looks for itself after this long; it must not find any.
const ROOM_TIMEOUT_NS: u64 = 60 * 1_000_000_000;

#[derive(Debug)]
struct InFlight {
    sent: Sent,
    /// The frame to wait for, once the core took it.
    frame: Option<FrameSeq>,
}

/// A producer that was refused for want of room.
#[derive(Debug, Clone, Copy)]
struct Blocked {
    since_ns: u64,
    /// The core has said since that there is room.
    woken: bool,
}

/// Where a transactional producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many more batches belong to the transaction.
    Writing(u64),
    /// Its marker is under way.
    Ending,
}

/// One client that writes to one partition at a time.
#[derive(Debug)]
pub(super) struct Producer {
    key: Option<PartitionKey>,
    /// Producer id and epoch, when idempotent.
    id: Option<(i64, i16)>,
    next_id: i64,
    next_sequence: i32,
    shape: Shape,
    window: VecDeque<InFlight>,
    window_max: usize,
    blocked: Option<Blocked>,
    /// Chance in percent that an acknowledgement is lost and everything in flight is sent again.
    loss_percent: u64,
    /// Of transactional producers.
    stage: Option<Stage>,
}

impl Producer {
    pub(super) fn draw(rng: &mut Rng, index: usize, batch_max: usize) -> Self {
        let idempotent = rng.percent(60);
        Self {
            key: None,
            id: idempotent.then_some((0, 0)),
            next_id: index as i64 * 1000,
            next_sequence: 0,
            shape: Shape::draw(rng, batch_max),
            window: VecDeque::new(),
            window_max: rng.between(1, IN_FLIGHT_MAX) as usize,
            blocked: None,
            loss_percent: rng.pick(&[0, 0, 5, 20]),
            stage: None,
        }
    }

    /// Most producers write in transactions from now on.
    pub(super) fn may_transact(&mut self, rng: &mut Rng) {
        if rng.percent(70) {
            self.id = Some((self.next_id, 0));
            self.shape.transactional = true;
            self.stage = Some(Stage::Writing(rng.below(5)));
        }
    }

    /// The partition and producer id whose transaction it will end itself.
    pub(super) fn owns(&self) -> Option<(PartitionKey, i64)> {
        Some((self.key?, self.id?.0))
    }

    /// The marker of the transaction; half of the time, and always when it gives up, the producer goes on with the next
    /// epoch, as those of the protocol's second generation do.
    fn end_transaction(&mut self, rng: &mut Rng, gives_up: bool, wall_ms: i64) -> Option<Sent> {
        let (id, mut epoch) = self.id?;
        if gives_up || rng.percent(50) {
            epoch += 1;
            self.id = Some((id, epoch));
            self.next_sequence = 0;
        }
        self.stage = Some(Stage::Ending);
        let committed = !gives_up && rng.percent(65);
        Some(Sent::marker((id, epoch), committed, wall_ms))
    }

    /// Few keys, which its records overwrite again and again.
    pub(super) fn overwrites(&mut self, rng: &mut Rng) {
        self.shape.keys = rng.pick(&[3, 12, 100]);
    }

    /// Starts over with another partition and, if idempotent, as a new producer.
    fn assign(&mut self, rng: &mut Rng, key: PartitionKey) {
        self.key = Some(key);
        self.window.clear();
        self.blocked = None;
        if self.id.is_some() {
            self.next_id += 1;
            self.id = Some((self.next_id, 0));
            self.next_sequence = rng.pick(&[0, 0, 0, i32::MAX - 20]);
        }
        if self.stage.is_some() {
            self.stage = Some(Stage::Writing(rng.below(5)));
        }
    }

    /// The connection is gone: everything unacknowledged will be sent again, in order.
    pub(super) fn disconnected(&mut self) {
        self.blocked = None;
        self.window.iter_mut().for_each(|b| b.frame = None);
    }
}

impl World {
    /// A producer's step: takes acknowledgements, sends again what has to be, or sends something new.
    pub(super) fn produce(&mut self, index: usize) {
        let known = self.producers[index]
            .key
            .filter(|key| self.catalog.contains_key(key));
        let Some(key) = known.or_else(|| self.choose_partition(index)) else {
            return self.schedule_after_pause(Actor::Producer(index));
        };
        self.acknowledge(index, key);
        if self.rng.ppm(2000) {
            self.send_nonsense(key);
        }
        let producer = &mut self.producers[index];
        let unsent = producer.window.iter().position(|b| b.frame.is_none());
        match unsent {
            Some(at) => self.send(index, key, at),
            None if producer.window.len() < producer.window_max => {
                let Some(sent) = self.next_to_send(index, key) else {
                    return self.schedule_after_pause(Actor::Producer(index));
                };
                let producer = &mut self.producers[index];
                producer.window.push_back(InFlight { sent, frame: None });
                let at = producer.window.len() - 1;
                self.send(index, key, at);
            }
            None => self.schedule_after_pause(Actor::Producer(index)),
        }
    }

    /// The next batch; none while the end of a transaction waits for acknowledgements, or for its own.
    fn next_to_send(&mut self, index: usize, key: PartitionKey) -> Option<Sent> {
        let (producer, rng) = (&mut self.producers[index], &mut self.rng);
        match producer.stage {
            None => {}
            Some(Stage::Ending) => return None,
            Some(Stage::Writing(left)) => {
                // What is under way then may come before the marker or be lost with a crash.
                let gives_up = rng.percent(4);
                if gives_up {
                    producer.window.clear();
                }
                if gives_up || left == 0 && producer.window.is_empty() {
                    return producer.end_transaction(rng, gives_up, self.now.wall_ms);
                }
                producer.stage = Some(Stage::Writing(left.checked_sub(1)?));
            }
        }
        let id = producer
            .id
            .map(|(id, epoch)| (id, epoch, producer.next_sequence));
        let sent = producer.shape.batch(rng, key, id, self.now.wall_ms);
        let sequence = i64::from(producer.next_sequence) + i64::from(sent.count());
        producer.next_sequence = (sequence % (1 << 31)) as i32;
        Some(sent)
    }

    fn choose_partition(&mut self, index: usize) -> Option<PartitionKey> {
        let keys: Vec<PartitionKey> = self.catalog.keys().copied().collect();
        if keys.is_empty() {
            return None;
        }
        let key = self.rng.pick(&keys);
        self.producers[index].assign(&mut self.rng, key);
        Some(key)
    }

    /// Takes the acknowledgements that are due; one may get lost on its way.
    fn acknowledge(&mut self, index: usize, key: PartitionKey) {
        let shard = self.models[&key].shard as usize;
        let durable = self.shards[shard].durable;
        let producer = &mut self.producers[index];
        while let Some(first) = producer.window.front()
            && first.frame.is_some_and(|frame| frame <= durable)
        {
            if self.rng.percent(producer.loss_percent) {
                producer.disconnected();
                return;
            }
            let acked = producer.window.pop_front();
            self.summary.acks += 1;
            if acked.is_some_and(|b| matches!(b.sent.kind, Kind::Marker { .. })) {
                producer.stage = Some(Stage::Writing(self.rng.below(5)));
            }
        }
    }

    fn send(&mut self, index: usize, key: PartitionKey, at: usize) {
        let sent = self.producers[index].window[at].sent.clone();
        let (shard, result) = self.append(key, &sent);
        let now_ns = self.now.mono_ns;
        let producer = &mut self.producers[index];
        match result {
            Ok(frame) => {
                let blocked = producer.blocked.take();
                producer.window[at].frame = Some(frame);
                assert!(
                    blocked.is_none_or(|b| b.woken),
                    "invariant: there is room and nobody said so"
                );
                self.schedule_after_pause(Actor::Producer(index));
            }
            Err(error @ (AppendError::Busy | AppendError::StorageFull)) => {
                let full = error == AppendError::StorageFull;
                let since_ns = producer.blocked.map_or(now_ns, |b| b.since_ns);
                producer.blocked = Some(Blocked {
                    since_ns,
                    woken: false,
                });
                assert!(
                    now_ns - since_ns < PATIENCE_NS
                        || self.disk.faults.capacity_bytes.is_some()
                        || self.disk.stopped,
                    "invariant: no room for {} s of simulated time: {:?}",
                    PATIENCE_NS / 1_000_000_000,
                    self.shards[shard].core.stats()
                );
                if full {
                    self.summary.storage_full += 1;
                    assert!(
                        self.faulty || self.full_since_start,
                        "invariant: a disk with room and without faults is full"
                    );
                } else {
                    self.summary.busy += 1;
                }
                self.schedule(ROOM_TIMEOUT_NS, Actor::Producer(index));
            }
            Err(AppendError::Closed) if self.fatal.is_some() || self.draining => {}
            // A producer whose batches got lost with a crash, or that has been fenced, starts over.
            Err(_) => {
                producer.assign(&mut self.rng, key);
                self.schedule_after_pause(Actor::Producer(index));
            }
        }
    }

    /// Appends and holds the answer against the model.
    pub(super) fn append(
        &mut self,
        key: PartitionKey,
        sent: &Sent,
    ) -> (usize, Result<FrameSeq, AppendError>) {
        let Some(model) = self.models.get_mut(&key) else {
            panic!("the catalog and the models name the same partitions");
        };
        let shard = model.shard as usize;
        let core = &mut self.shards[shard].core;
        let is_marker = matches!(sent.kind, Kind::Marker { .. });
        let result = if is_marker {
            core.append_internal(self.now, model.part, &sent.bytes)
        } else {
            core.append(self.now, model.part, &sent.bytes)
        };
        let epoch = core.offsets(model.part).map_or(-1, |o| o.leader_epoch);
        let code = match &result {
            Ok(appended) => appended.base_offset as u64,
            Err(_) => u64::MAX,
        };
        let numbers = [shard as u64, sent.bytes.len() as u64, code];
        self.trace.note("append", numbers, || {
            let (id, n) = (sent.producer, sent.bytes.len());
            format!("{shard} {key:?} {n} bytes of {id:?}: {result:?}")
        });
        model.appended(sent, result, epoch);
        self.touched.insert(key);
        self.summary.batches += u64::from(result.is_ok());
        self.summary.markers += u64::from(result.is_ok() && is_marker);
        (shard, result.map(|appended| appended.frame))
    }

    /// Batches that must be refused without effect.
    fn send_nonsense(&mut self, key: PartitionKey) {
        let model = &self.models[&key];
        let (shard, part) = (model.shard as usize, model.part);
        let shape = Shape {
            records_max: 3,
            value_max: 50,
            batch_max: self.plan.max_batch_bytes,
            codec: crate::batch::Compression::None,
            keys: 0,
            transactional: false,
        };
        let good = shape.batch(&mut self.rng, key, None, self.now.wall_ms);
        let mut bytes = good.bytes.to_vec();
        match self.rng.below(4) {
            0 => {
                let at = self.rng.between(21, bytes.len() as u64 - 1) as usize;
                bytes[at] ^= 1 << self.rng.below(8);
            }
            1 => bytes.truncate(self.rng.index(bytes.len())),
            2 => bytes.extend_from_slice(&good.bytes),
            _ => bytes.resize(self.plan.max_batch_bytes + 1, 0),
        }
        let result = self.shards[shard].core.append(self.now, part, &bytes);
        assert!(
            result.is_err(),
            "invariant: nonsense was accepted: {result:?}"
        );
        self.touched.insert(key);
    }

    /// The shard has room: its blocked producers try again.
    pub(super) fn room(&mut self, shard: u32) {
        for index in 0..self.producers.len() {
            let producer = &mut self.producers[index];
            let here = producer.key.and_then(|key| self.models.get(&key));
            if let Some(blocked) = &mut producer.blocked
                && here.is_some_and(|m| m.shard == shard)
            {
                blocked.woken = true;
                self.unschedule(Actor::Producer(index));
                self.schedule(0, Actor::Producer(index));
            }
        }
    }
}
