//! What was measured, on disk as soon as it is measured: a run that was cut off goes on where it was.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use ringlog_benches::claims::Figures;
use serde::{Deserialize, Serialize};

use super::ClaimsError;
use super::plan::{Params, key_of};
use super::quiet::Noise;
use super::stats::Estimate;

/// File of the output directory with a line for each repetition.
pub const FILE: &str = "measurements.jsonl";
/// Version of the line's shape.
const VERSION: u32 = 1;
/// Wider intervals than this share of the median mark a measurement as noisy.
const WIDTH_MAX: f64 = 0.5;
/// Second half of a repetition over its first half, at most and at least, for it to count as steady.
const DRIFT: std::ops::RangeInclusive<f64> = 0.75..=1.33;

/// What must be the same for two runs to be one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of this file.
    pub version: u32,
    /// The tool's version.
    pub tool: String,
    /// Quick, full.
    pub scale: String,
    /// Directory under test.
    pub dir: String,
    /// Processor, kernel and file system.
    pub host: String,
}

impl Identity {
    /// Of this tool.
    #[must_use]
    pub fn new(scale: &str, dir: &str, host: String) -> Self {
        Self {
            version: VERSION,
            tool: concat!("ringlog-load ", env!("CARGO_PKG_VERSION")).into(),
            scale: scale.into(),
            dir: dir.into(),
            host,
        }
    }
}

/// One repetition of one point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repetition {
    /// The claim.
    pub claim: String,
    /// The point.
    pub params: Params,
    /// Which repetition, from 0.
    pub number: u32,
    /// What was measured; empty when left out.
    pub figures: Figures,
    /// How quiet the host was meanwhile.
    pub noise: Noise,
    /// Why it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// When it began, seconds since 1970.
    pub unix_s: u64,
    /// The build that measured it; empty where an earlier one did not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
}

/// When and by what a repetition was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Seconds since 1970.
    pub unix_s: u64,
    /// The build, empty where it did not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
}

/// All repetitions of a point.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measurement {
    /// Exact parameters.
    pub params: Params,
    /// Medians with intervals by figure.
    pub figures: BTreeMap<String, Estimate>,
    /// The figures of each repetition.
    pub repetitions: Vec<Figures>,
    /// How quiet the host was in each repetition.
    pub noise: Vec<Noise>,
    /// When each was measured, and by which build.
    #[serde(default)]
    pub taken: Vec<Taken>,
    /// Why it is not to be trusted without looking at its spread.
    pub noisy: Option<String>,
    /// Why it could not be measured.
    pub left_out: Option<String>,
}

impl Measurement {
    /// The values of a figure in order of repetition; those without it are no numbers.
    #[must_use]
    pub fn values(&self, figure: &str) -> Vec<f64> {
        let value = |figures: &Figures| figures.get(figure).copied().unwrap_or(f64::NAN);
        self.repetitions.iter().map(value).collect()
    }

    fn finish(&mut self) {
        let names: std::collections::BTreeSet<&String> = self
            .repetitions
            .iter()
            .flat_map(|figures| figures.keys())
            .collect();
        let estimates = names.into_iter().filter_map(|name| {
            let estimate = Estimate::of(&self.values(name))?;
            Some((name.clone(), estimate))
        });
        self.figures = estimates.collect();
        self.noisy = self.why_noisy();
    }

    fn why_noisy(&self) -> Option<String> {
        let loud: Vec<&Noise> = self.noise.iter().filter(|noise| noise.is_loud()).collect();
        if 2 * loud.len() > self.noise.len() {
            return Some(format!(
                "others used the host in {} of {} repetitions",
                loud.len(),
                self.noise.len()
            ));
        }
        if let Some(main) = self.figures.get("mb_per_s").filter(|e| e.n > 1)
            && main.relative_width() > WIDTH_MAX
        {
            let percent = main.relative_width() * 100.0;
            return Some(format!("its interval is {percent:.0} % of the median wide"));
        }
        let drift = self.figures.get("drift")?.median;
        (!DRIFT.contains(&drift))
            .then(|| format!("not steady: second half {drift:.2} of the first"))
    }
}

/// The repetitions measured so far.
#[derive(Debug)]
pub struct Journal {
    file: File,
    done: Vec<Repetition>,
    /// What new repetitions are measured by.
    build: String,
}

impl Journal {
    /// Opens the file of `out`, or begins it.
    ///
    /// # Errors
    /// [`ClaimsError::OtherRun`] when it belongs to a run with other settings or of another host.
    pub fn open(out: &Path, identity: &Identity) -> Result<Self, ClaimsError> {
        Self::open_without(out, identity, &[])
    }

    /// The same, and what was measured of the claims `again` is forgotten.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_without(
        out: &Path,
        identity: &Identity,
        again: &[&str],
    ) -> Result<Self, ClaimsError> {
        fs::create_dir_all(out).map_err(ClaimsError::file(out))?;
        let path = out.join(FILE);
        let mut done = Vec::new();
        if let Ok(file) = File::open(&path) {
            let mut lines = BufReader::new(file).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            let theirs: Option<Identity> = serde_json::from_str(&first).ok();
            if theirs.as_ref() != Some(identity) {
                return Err(ClaimsError::OtherRun(out.display().to_string()));
            }
            // A line cut off by a crash is no measurement: what follows it was never written.
            done = repetitions(lines);
            done.retain(|repetition| !again.contains(&repetition.claim.as_str()));
        }
        // Written anew, so that a line cut off does not stay in the middle.
        let temporary = out.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary).map_err(ClaimsError::file(&temporary))?;
        write_line(&mut file, identity).map_err(ClaimsError::file(&temporary))?;
        for repetition in &done {
            write_line(&mut file, repetition).map_err(ClaimsError::file(&temporary))?;
        }
        drop(file);
        fs::rename(&temporary, &path).map_err(ClaimsError::file(&path))?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(ClaimsError::file(&path))?;
        Ok(Self {
            file,
            done,
            build: String::new(),
        })
    }

    /// Repetitions are measured by `build` from now on.
    pub fn measured_by(&mut self, build: &str) {
        build.clone_into(&mut self.build);
    }

    /// Whether a repetition is there already.
    #[must_use]
    pub fn has(&self, claim: &str, params: &Params, number: u32) -> bool {
        self.done
            .iter()
            .any(|r| r.claim == claim && r.number == number && r.params == *params)
    }

    /// Whether a point was left out in an earlier repetition.
    #[must_use]
    pub fn left_out(&self, claim: &str, params: &Params) -> bool {
        let mut of_point = self
            .done
            .iter()
            .filter(|r| r.claim == claim && r.params == *params);
        of_point.any(|r| r.left_out.is_some())
    }

    /// Adds a repetition, on disk before it returns.
    ///
    /// # Errors
    /// [`ClaimsError::File`].
    pub fn add(&mut self, mut repetition: Repetition) -> Result<(), ClaimsError> {
        repetition.build.clone_from(&self.build);
        let what = Path::new(FILE);
        write_line(&mut self.file, &repetition).map_err(ClaimsError::file(what))?;
        self.done.push(repetition);
        Ok(())
    }

    /// Repetitions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// The claim's measurements by point, in the order in which they were first measured.
    #[must_use]
    pub fn measurements(&self, claim: &str) -> Vec<Measurement> {
        let mut order = Vec::new();
        let mut by_key: BTreeMap<String, Vec<&Repetition>> = BTreeMap::new();
        for repetition in self.done.iter().filter(|r| r.claim == claim) {
            let key = key_of(&repetition.params);
            if !by_key.contains_key(&key) {
                order.push(key.clone());
            }
            by_key.entry(key).or_default().push(repetition);
        }
        let measurements = order.iter().map(|key| {
            let mut repetitions = by_key.remove(key).unwrap_or_default();
            repetitions.sort_by_key(|repetition| repetition.number);
            let mut measurement = Measurement {
                params: repetitions[0].params.clone(),
                left_out: repetitions.iter().find_map(|r| r.left_out.clone()),
                ..Measurement::default()
            };
            for repetition in repetitions.iter().filter(|r| r.left_out.is_none()) {
                measurement.repetitions.push(repetition.figures.clone());
                measurement.noise.push(repetition.noise);
                measurement.taken.push(Taken {
                    unix_s: repetition.unix_s,
                    build: repetition.build.clone(),
                });
            }
            measurement.finish();
            measurement
        });
        measurements.collect()
    }
}

/// The largest value of a parameter that was measured of a claim in `out`, if there is a run.
#[must_use]
pub fn largest(out: &Path, claim: &str, name: &str) -> Option<u64> {
    let lines = BufReader::new(File::open(out.join(FILE)).ok()?).lines();
    let done = repetitions(lines.skip(1));
    let of_claim = done.iter().filter(|r| r.claim == claim);
    of_claim.filter_map(|r| r.params.get(name)?.as_u64()).max()
}

/// Repetitions, one a line. A line cut off by a crash is no measurement, and what follows it was never written.
fn repetitions(lines: impl Iterator<Item = std::io::Result<String>>) -> Vec<Repetition> {
    let parsed = lines
        .map_while(Result::ok)
        .map_while(|line| serde_json::from_str(&line).ok());
    parsed.collect()
}

fn write_line(file: &mut File, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn repetition(number: u32, value: f64) -> Repetition {
        Repetition {
            claim: "C1".into(),
            params: json!({ "n": 1 }).as_object().unwrap().clone(),
            number,
            figures: Figures::from([("mb_per_s".to_owned(), value)]),
            noise: Noise::default(),
            left_out: None,
            unix_s: u64::from(number),
            build: String::new(),
        }
    }

    #[test]
    fn a_run_goes_on_where_it_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new("quick", "d", "host".into());
        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        journal.add(repetition(0, 10.0)).unwrap();
        journal.add(repetition(1, 12.0)).unwrap();
        drop(journal);
        // Half a line, as a crash leaves it.
        let path = folder.path().join(FILE);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"claim\":\"C1\",\"para");
        fs::write(&path, text).unwrap();

        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        let params = repetition(0, 0.0).params;
        assert!(journal.has("C1", &params, 1) && !journal.has("C1", &params, 2));
        assert!(!journal.has("C2", &params, 0));
        journal.add(repetition(2, 11.0)).unwrap();
        drop(journal);
        let journal = Journal::open(folder.path(), &identity).unwrap();
        let measurements = journal.measurements("C1");
        assert_eq!(measurements.len(), 1);
        assert_eq!(measurements[0].values("mb_per_s"), [10.0, 12.0, 11.0]);
        assert_eq!(measurements[0].figures["mb_per_s"].median, 11.0);
        assert_eq!(measurements[0].noisy, None);

        let other = Identity::new("full", "d", "host".into());
        assert!(matches!(
            Journal::open(folder.path(), &other),
            Err(ClaimsError::OtherRun(_))
        ));
    }

    #[test]
    fn a_claim_is_measured_anew_and_the_others_stay_with_their_builds() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new("quick", "d", "host".into());
        let of = |claim: &str, value| Repetition {
            claim: claim.into(),
            ..repetition(0, value)
        };
        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        journal.measured_by("first");
        journal.add(of("C1", 1.0)).unwrap();
        journal.add(of("C2", 2.0)).unwrap();
        drop(journal);
        assert_eq!(largest(folder.path(), "C2", "n"), Some(1));
        assert_eq!(largest(folder.path(), "C3", "n"), None);

        let mut journal = Journal::open_without(folder.path(), &identity, &["C2"]).unwrap();
        assert_eq!(journal.len(), 1);
        journal.measured_by("second");
        journal.add(of("C2", 3.0)).unwrap();
        drop(journal);
        let journal = Journal::open(folder.path(), &identity).unwrap();
        let builds = |claim: &str| {
            let measurement = journal.measurements(claim).remove(0);
            let taken = measurement.taken.into_iter().map(|taken| taken.build);
            (
                measurement.figures["mb_per_s"].median,
                taken.collect::<Vec<_>>(),
            )
        };
        assert_eq!(builds("C1"), (1.0, vec!["first".to_owned()]));
        assert_eq!(builds("C2"), (3.0, vec!["second".to_owned()]));
    }

    #[test]
    fn a_wide_spread_and_a_loud_host_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new("quick", "d", "host".into());
        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        for (number, value) in [(0, 10.0), (1, 30.0), (2, 20.0)] {
            journal.add(repetition(number, value)).unwrap();
        }
        let wide = journal.measurements("C1")[0].noisy.clone().unwrap();
        assert!(wide.contains("100 %"), "{wide}");
        for number in 3..9 {
            let mut loud = repetition(number, 20.0);
            loud.noise.steal_share = 0.5;
            journal.add(loud).unwrap();
        }
        let loud = journal.measurements("C1")[0].noisy.clone().unwrap();
        assert!(loud.contains("6 of 9"), "{loud}");
    }
}
