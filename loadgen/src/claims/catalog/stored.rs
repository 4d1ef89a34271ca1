//! What is stored before it is read: as much as a point says, however slow the disk.

use crate::claims::PointError;

/// Bytes of a record, unless the claim is about them.
pub(super) const RECORD: u64 = 1024;
/// MiB a second at which records of 1 KiB are stored.
pub(super) const STORED_MIB_PER_S: f64 = 400.0;
/// A disk may take so many times as long as the line says; a slower one takes too much of the run.
const SLOWER_MAX: f64 = 6.0;
/// Share of the records that may be missing: a load's last moment is not a whole one.
const MISSING_MAX: f64 = 0.005;
/// Shortest run of a load, seconds.
const RUN_MIN_S: f64 = 0.1;

/// A line that stores `mib` MiB of 1 KiB records in 64 KiB batches, over `partitions`.
pub(super) fn store(mib: u64, partitions: u32) -> String {
    store_records(mib, partitions, RECORD)
}

/// The same with records of `record` bytes.
pub(super) fn store_records(mib: u64, partitions: u32, record: u64) -> String {
    // At a rate that most disks take, and any load in question; what a disk does not take is stored afterwards. Small
    // records are many.
    let mib_per_s = if record < RECORD {
        200.0
    } else {
        STORED_MIB_PER_S
    };
    let seconds = (mib as f64 / mib_per_s).max(RUN_MIN_S).ceil();
    let rate = (mib << 20) / record / (seconds as u64).max(1);
    format!(
        "produce -p {partitions} -s {record} --batch-bytes 65536 --connections 4 --in-flight 4 --warmup 0 --duration {seconds:.0} \
         --rate {rate}"
    )
}

/// Stores what `line` says: `load` carries a line out and returns the records that were acknowledged. A load at a rate ends on
/// time, whatever was sent by then; so it is asked for what is missing until nothing is.
///
/// # Errors
/// [`PointError::Unavailable`] when that would take too long; those of `load`.
pub(super) fn fill(
    line: &str,
    mut load: impl FnMut(&str) -> Result<u64, PointError>,
) -> Result<(), PointError> {
    let (rate, planned_s) = (number(line, "--rate")?, number(line, "--duration")?);
    let wanted = rate * planned_s;
    let (mut stored, mut spent_s) = (0.0, 0.0);
    let mut next = line.to_owned();
    let mut next_s = planned_s;
    loop {
        stored += load(&next)? as f64;
        spent_s += next_s;
        let missing = wanted - stored;
        if missing <= wanted * MISSING_MAX {
            return Ok(());
        }
        if spent_s >= planned_s * SLOWER_MAX {
            let percent = stored * 100.0 / wanted;
            return Err(PointError::Unavailable(format!(
                "the disk is too slow for what is to be stored: {percent:.0} % of it in {spent_s:.0} s"
            )));
        }
        next_s = (missing / rate).max(RUN_MIN_S);
        next = with(line, "--duration", &format!("{next_s:.2}"));
        next = with(&next, "--rate", &format!("{:.0}", missing / next_s));
    }
}

/// The number after an option of a line.
fn number(line: &str, option: &str) -> Result<f64, PointError> {
    let mut words = line.split_whitespace().skip_while(|word| *word != option);
    let word = words.nth(1).and_then(|word| word.parse().ok());
    word.ok_or_else(|| PointError::Failed(format!("{line}: no {option}")))
}

/// The line with another value of an option.
fn with(line: &str, option: &str, value: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == option) {
        words[at + 1] = value;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores 800 MiB on a disk that takes so much; returns the records and the runs.
    fn stored(mib_per_s: f64) -> (Result<(), PointError>, u64, u32) {
        let (mut records, mut runs) = (0, 0);
        let outcome = fill(&store(800, 1), |line| {
            let seconds = number(line, "--duration")?;
            let asked = number(line, "--rate")? * seconds;
            let taken = asked.min(mib_per_s * 1024.0 * seconds) as u64;
            records += taken;
            runs += 1;
            Ok(taken)
        });
        (outcome, records, runs)
    }

    #[test]
    fn as_much_is_stored_on_a_slow_disk_as_on_a_fast_one() {
        let (fast, records, runs) = stored(1000.0);
        assert!(fast.is_ok());
        assert_eq!((records, runs), (800 << 10, 1));
        let (slow, records, runs) = stored(130.0);
        assert!(slow.is_ok() && runs > 2, "{slow:?}");
        let share = records as f64 / f64::from(800 << 10);
        assert!((0.995..1.005).contains(&share), "{share}");
    }

    #[test]
    fn what_would_take_too_long_is_not_stored_and_the_reason_says_so() {
        let (outcome, _, runs) = stored(5.0);
        let Err(PointError::Unavailable(reason)) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(reason.contains("too slow"), "{reason}");
        assert!(runs < 20, "{runs}");
        assert!(stored(0.0).0.is_err());
    }
}
