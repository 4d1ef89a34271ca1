//! Running one seed from beginning to end, and catching what it finds.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::disk::Faults;
use super::plan::{End, Life};
use super::world::World;
use crate::core::Mutations;

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Wrong on purpose, to see that the simulator notices.
    pub mutations: Mutations,
    /// Print every step.
    pub trace: bool,
    /// Damage a durable journal or checkpoint before a restart: recovery must then stop, or lose nothing.
    pub flip_bit: bool,
    /// The disk runs full and gets room again in every seed, not in some.
    pub fill_disk: bool,
    /// Every recovery crashes several times first.
    pub crash_recovery: bool,
    /// Syncs fail, and nothing else does, in every seed.
    pub fail_syncs: bool,
    /// Topics are compacted, and their keys are few.
    pub compact: bool,
    /// Some producers write in transactions, and some consumers read what is committed.
    pub transactions: bool,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Identifies everything that happened, in order.
    pub hash: u64,
    /// Steps in the log.
    pub steps: u64,
    /// Starts of the process, failed ones included.
    pub recoveries: u64,
    /// Ends of it without a shutdown.
    pub crashes: u64,
    /// Batches accepted.
    pub batches: u64,
    /// Acknowledgements that reached a producer.
    pub acks: u64,
    /// Appends refused for want of room.
    pub busy: u64,
    /// Appends refused because the disk was full or failing.
    pub storage_full: u64,
    /// Fetches answered.
    pub fetches: u64,
    /// Bytes fetched.
    pub fetched_bytes: u64,
    /// Passes of compaction that ended well.
    pub compactions: u64,
    /// Markers accepted, of transactions committed and aborted.
    pub markers: u64,
    /// Batches of aborted transactions that committed reads met and left out.
    pub hidden: u64,
    /// Recovery stopped at damage that had been done on purpose.
    pub damage_found: bool,
}

impl Summary {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.recoveries += other.recoveries;
        self.crashes += other.crashes;
        self.batches += other.batches;
        self.acks += other.acks;
        self.busy += other.busy;
        self.storage_full += other.storage_full;
        self.fetches += other.fetches;
        self.fetched_bytes += other.fetched_bytes;
        self.compactions += other.compactions;
        self.markers += other.markers;
        self.hidden += other.hidden;
    }
}

/// Names of the faults [`mutation`] knows.
pub const MUTATIONS: [&str; 11] = [
    "ack-before-sync",
    "release-before-sync",
    "accept-reused-frames",
    "skip-dir-sync",
    "serve-undurable",
    "retry-failed-sync",
    "swap-before-sync",
    "drop-newest",
    "remove-before-checkpoint",
    "count-aborted-keys",
    "forget-transactions",
];

/// The engine with one fault switched on, by its name.
#[must_use]
pub fn mutation(name: &str) -> Option<Mutations> {
    let mut mutations = Mutations::default();
    let fault = match name {
        "ack-before-sync" => &mut mutations.ack_before_sync,
        "release-before-sync" => &mut mutations.release_before_sync,
        "accept-reused-frames" => &mut mutations.accept_reused_frames,
        "skip-dir-sync" => &mut mutations.skip_dir_sync,
        "serve-undurable" => &mut mutations.serve_undurable,
        "retry-failed-sync" => &mut mutations.retry_failed_sync,
        "swap-before-sync" => &mut mutations.swap_before_sync,
        "drop-newest" => &mut mutations.drop_newest,
        "remove-before-checkpoint" => &mut mutations.remove_before_checkpoint,
        "count-aborted-keys" => &mut mutations.count_aborted_keys,
        "forget-transactions" => &mut mutations.forget_transactions,
        _ => return None,
    };
    *fault = true;
    Some(mutations)
}

/// A seed that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What broke, and where.
    pub message: String,
}

/// Lives the story of `seed`.
///
/// # Errors
/// [`Failure`] when the engine broke a promise or a rule, or panicked.
pub fn run_seed(seed: u64, options: RunOptions) -> Result<Summary, Failure> {
    catch_panics_quietly();
    CAUGHT.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(|| run(seed, options)));
    let message = CAUGHT.take().unwrap_or_default();
    result.map_err(|_| Failure { seed, message })
}

fn run(seed: u64, options: RunOptions) -> Summary {
    let mut world = World::new(seed, options);
    world.create_first_topics();
    let lives = world.plan.lives.clone();
    let last = lives.len() - 1;
    for (i, life) in lives.iter().enumerate() {
        if !world.live(life) {
            return world.summarise(true);
        }
        if options.flip_bit && i == last {
            world.flip_bit();
        }
    }
    // The story ends on a kind disk: everything is read back, the shutdown is clean, the next start says so.
    let epilogue = Life {
        shards: 1,
        steps: 50,
        end: End::Shutdown,
        faults: Faults::default(),
        recovery_crashes: 0,
        recovery_faults: Faults::default(),
    };
    for _ in 0..2 {
        if !world.live_to_the_end(&epilogue) {
            return world.summarise(true);
        }
    }
    world.summarise(false)
}

thread_local! {
    /// While a seed runs on this thread: the message of its panic.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A seed's panic is a result, not noise on the terminal.
fn catch_panics_quietly() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            let expected = CAUGHT.with_borrow_mut(|caught| {
                let Some(message) = caught else { return false };
                let payload = info.payload();
                let text = payload
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| payload.downcast_ref::<&str>().copied());
                let place = info.location().map(ToString::to_string);
                *message = format!(
                    "{} ({})",
                    text.unwrap_or("panic"),
                    place.unwrap_or_default()
                );
                true
            });
            if !expected {
                previous(info);
            }
        }));
    });
}
