//! Which builds a report's figures come from: claims may be measured anew by a later one.

use std::fmt::Write as _;
use std::path::Path;

use ringlog_engine::checksum::crc32c;
use serde::{Deserialize, Serialize};

use super::page::moment;
use crate::claims::outcome::ClaimResult;

/// Environment variable with the commit that a build was made of; `scripts/claims` sets it.
const COMMIT: &str = "RINGLOG_COMMIT";

/// What one build has measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Commit and checksums of its executables; empty where an early one did not tell.
    pub name: String,
    /// Claims with repetitions by it.
    pub claims: Vec<String>,
    /// Its repetitions.
    pub repetitions: usize,
    /// When the first of them began, seconds since 1970.
    pub from_unix_s: u64,
    /// When the last of them began.
    pub to_unix_s: u64,
}

impl Build {
    /// One line for people.
    pub(super) fn line(&self) -> String {
        let name = match self.name.as_str() {
            "" => "a build that did not tell its name",
            name => name,
        };
        format!(
            "{name}: {} repetitions of {}, {} to {}",
            self.repetitions,
            self.claims.join(", "),
            moment(self.from_unix_s),
            moment(self.to_unix_s)
        )
    }
}

/// The builds behind the claims' measurements, in order of time.
pub(super) fn of(claims: &[ClaimResult]) -> Vec<Build> {
    let mut builds: Vec<Build> = Vec::new();
    for claim in claims {
        for taken in claim.measurements.iter().flat_map(|m| &m.taken) {
            let index = builds.iter().position(|build| build.name == taken.build);
            let index = index.unwrap_or_else(|| {
                builds.push(Build {
                    name: taken.build.clone(),
                    from_unix_s: taken.unix_s,
                    ..Build::default()
                });
                builds.len() - 1
            });
            let build = &mut builds[index];
            build.repetitions += 1;
            build.from_unix_s = build.from_unix_s.min(taken.unix_s);
            build.to_unix_s = build.to_unix_s.max(taken.unix_s);
            if build.claims.last() != Some(&claim.id) {
                build.claims.push(claim.id.clone());
            }
        }
    }
    builds.sort_by_key(|build| build.from_unix_s);
    builds
}

/// The name of this build: the commit, if it is known, and what tells two builds of one commit apart.
#[must_use]
pub fn name_of_build(server: Option<&Path>) -> String {
    let mut name = std::env::var(COMMIT).unwrap_or_default();
    if name.is_empty() {
        name.push_str("of an unnamed commit");
    }
    let load = std::env::current_exe().ok();
    let files = [("load", load.as_deref()), ("server", server)];
    let sums: Vec<String> = files
        .into_iter()
        .filter_map(|(what, path)| {
            let bytes = std::fs::read(path?).ok()?;
            Some(format!("{what} {:08x}", crc32c(&bytes)))
        })
        .collect();
    if !sums.is_empty() {
        let _ = write!(name, " ({})", sums.join(", "));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::outcome::Conclusion;
    use crate::claims::record::{Measurement, Taken};
    use crate::claims::verdict::Verdict;

    fn claim(id: &str, taken: &[(u64, &str)]) -> ClaimResult {
        let taken = taken.iter().map(|&(unix_s, build)| Taken {
            unix_s,
            build: build.into(),
        });
        ClaimResult {
            measurements: vec![Measurement {
                taken: taken.collect(),
                ..Measurement::default()
            }],
            ..ClaimResult::new(id, "", Conclusion::without(Verdict::Holds, ""))
        }
    }

    #[test]
    fn every_build_has_its_claims_and_its_time() {
        let builds = of(&[
            claim("C1", &[(100, "a"), (160, "a")]),
            claim("C2", &[(900, "b")]),
            claim("C3", &[(200, "a"), (1000, "b")]),
        ]);
        let names: Vec<&str> = builds.iter().map(|build| build.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(builds[0].claims, ["C1", "C3"]);
        assert_eq!((builds[0].from_unix_s, builds[0].to_unix_s), (100, 200));
        assert_eq!((builds[1].repetitions, builds[1].to_unix_s), (2, 1000));
        let line = builds[1].line();
        assert!(
            line.contains("b: 2 repetitions of C2, C3, 1970-01-01 00:15 UTC"),
            "{line}"
        );
    }

    #[test]
    fn a_build_is_told_from_others_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join("server");
        std::fs::write(&server, "one").unwrap();
        let first = name_of_build(Some(&server));
        assert_eq!(name_of_build(Some(&server)), first);
        std::fs::write(&server, "two").unwrap();
        assert_ne!(name_of_build(Some(&server)), first);
        assert!(first.contains("load ") && !name_of_build(None).contains("server"));
    }
}
