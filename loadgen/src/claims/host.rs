//! What was measured on: the facts a reader needs to judge a number, none that names the host.

use std::fs;
use std::path::{Path, PathBuf};

use ringlog_benches::claims::nic;
use ringlog_benches::uring;
use serde::{Deserialize, Serialize};

use super::allowed::Refused;

/// The group of what this user may not do.
pub const REFUSED: &str = "Not allowed here";

/// Facts of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What they are about.
    pub name: String,
    /// Name and value.
    pub facts: Vec<(String, String)>,
}

/// The host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Facts by kind.
    pub groups: Vec<Group>,
}

impl Host {
    /// Looks around; `dir` is the directory under test.
    #[must_use]
    pub fn look(dir: &Path) -> Self {
        let mount = Mount::of(dir);
        Self {
            groups: vec![
                group("Machine", machine()),
                group(
                    "File system",
                    mount.as_ref().map_or_else(Vec::new, Mount::facts),
                ),
                group(
                    "Device",
                    mount.as_ref().map_or_else(Vec::new, Mount::device),
                ),
                group("io_uring", io_uring()),
                group("Network", network()),
                group("Mitigations", mitigations()),
            ],
        }
    }

    /// Adds what this user may not do, if there is anything.
    pub fn note_refused(&mut self, refused: &[Refused]) {
        if !refused.is_empty() {
            let facts = refused.iter().map(|r| (r.what, r.costs.clone())).collect();
            self.groups.push(group(REFUSED, facts));
        }
    }

    /// A fact by group and name.
    #[must_use]
    pub fn fact(&self, group: &str, name: &str) -> Option<&str> {
        let group = self.groups.iter().find(|g| g.name == group)?;
        let fact = group.facts.iter().find(|(n, _)| n == name)?;
        Some(&fact.1)
    }

    /// What makes it this host and not another.
    #[must_use]
    pub fn identity(&self) -> String {
        let facts = [
            ("Machine", "processor"),
            ("Machine", "cores"),
            ("Machine", "kernel"),
            ("File system", "type"),
            ("Device", "name"),
        ];
        let words: Vec<&str> = facts
            .iter()
            .map(|(group, name)| self.fact(group, name).unwrap_or("unknown"))
            .collect();
        words.join(", ")
    }
}

fn group(name: &str, facts: Vec<(&str, String)>) -> Group {
    let facts = facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Group {
        name: name.to_owned(),
        facts: facts.collect(),
    }
}

/// A file's text without the end of its last line.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn machine() -> Vec<(&'static str, String)> {
    let cpuinfo = text("/proc/cpuinfo").unwrap_or_default();
    let after = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let meminfo = text("/proc/meminfo").unwrap_or_default();
    let memory_kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    });
    let hypervisor = cpuinfo
        .lines()
        .any(|l| l.starts_with("flags") && l.contains(" hypervisor"));
    // The first part: what follows may name a build or its owner.
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = release.split('-').next().unwrap_or_default().to_owned();
    let unknown = || "not told by this host".to_owned();
    vec![
        ("processor", after("model name").unwrap_or_else(unknown)),
        (
            "cores",
            std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string()),
        ),
        ("virtual", if hypervisor { "yes" } else { "no" }.to_owned()),
        (
            "memory",
            memory_kib.map_or_else(unknown, |kib| {
                format!("{:.1} GiB", kib as f64 / f64::from(1 << 20))
            }),
        ),
        ("kernel", format!("Linux {kernel}")),
        (
            "clock source",
            text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .unwrap_or_else(unknown),
        ),
        (
            "governor",
            text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_else(unknown),
        ),
        (
            "transparent huge pages",
            text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
        ),
        (
            "dirty limits",
            format!(
                "background {} %, all {} %",
                text("/proc/sys/vm/dirty_background_ratio").unwrap_or_else(unknown),
                text("/proc/sys/vm/dirty_ratio").unwrap_or_else(unknown)
            ),
        ),
    ]
}

/// The mount that holds a directory.
struct Mount {
    kind: String,
    options: String,
    device: String,
}

impl Mount {
    fn of(dir: &Path) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let table = text("/proc/self/mountinfo")?;
        Self::longest(&table, &dir)
    }

    /// The last mount with the longest path that begins `dir`.
    fn longest(table: &str, dir: &Path) -> Option<Self> {
        let mut best: Option<(usize, Self)> = None;
        for line in table.lines() {
            let (before, after) = line.split_once(" - ")?;
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (Some(&device), Some(&place), Some(&own)) =
                (before.get(2), before.get(4), before.get(5))
            else {
                continue;
            };
            let (Some(&kind), Some(&super_options)) = (after.first(), after.get(2)) else {
                continue;
            };
            let depth = Path::new(place).components().count();
            if dir.starts_with(place) && best.as_ref().is_none_or(|(d, _)| depth >= *d) {
                best = Some((
                    depth,
                    Self {
                        kind: kind.to_owned(),
                        options: format!("{own}; {super_options}"),
                        device: device.to_owned(),
                    },
                ));
            }
        }
        best.map(|(_, mount)| mount)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("type", self.kind.clone()),
            ("mount options", self.options.clone()),
        ]
    }

    fn device(&self) -> Vec<(&'static str, String)> {
        let link = PathBuf::from(format!("/sys/dev/block/{}", self.device));
        let Ok(mut folder) = link.canonicalize() else {
            return vec![("name", "no block device".to_owned())];
        };
        // A partition's queue is that of its disk.
        if !folder.join("queue").is_dir() {
            folder.pop();
        }
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let mut facts = vec![("name", name.unwrap_or_default())];
        if let Some(sectors) = text(folder.join("size")).and_then(|t| t.parse::<u64>().ok()) {
            facts.push(("size", format!("{:.0} GB", sectors as f64 * 512.0 / 1e9)));
        }
        for file in [
            "device/model",
            "queue/rotational",
            "queue/scheduler",
            "queue/nr_requests",
            "queue/write_cache",
            "queue/fua",
            "queue/logical_block_size",
            "queue/physical_block_size",
            "queue/max_sectors_kb",
            "queue/read_ahead_kb",
            "queue/wbt_lat_usec",
            "queue/nomerges",
            "queue/io_poll",
        ] {
            if let Some(value) = text(folder.join(file)) {
                let name = file.rsplit('/').next().unwrap_or(file);
                facts.push((name, value));
            }
        }
        facts
    }
}

fn io_uring() -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(disabled) = text("/proc/sys/kernel/io_uring_disabled") {
        facts.push(("kernel.io_uring_disabled", disabled));
    }
    match uring::abilities() {
        Ok(abilities) => {
            facts.push(("features", abilities.features.join(", ")));
            facts.push(("operations", abilities.operations.join(", ")));
        }
        Err(error) => facts.push(("refused", error.to_string())),
    }
    facts
}

fn network() -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut devices: Vec<String> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    devices.sort();
    let real = devices
        .iter()
        .filter(|device| device.as_str() != "lo")
        .count();
    if real == 0 {
        facts.push((
            "cards",
            "none: everything on the network goes over loopback".into(),
        ));
    }
    for device in devices {
        let folder = Path::new("/sys/class/net").join(&device);
        let driver = fs::read_link(folder.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let speed = text(folder.join("speed")).filter(|speed| !speed.starts_with('-'));
        let mut words = vec![format!(
            "mtu {}",
            text(folder.join("mtu")).unwrap_or_default()
        )];
        words.extend(driver.map(|driver| format!("driver {driver}")));
        words.extend(speed.map(|speed| format!("{speed} Mbit/s")));
        words.push(match nic::offloads(&device) {
            Ok(offloads) => offloads.describe(),
            Err(error) => format!("offloads not told ({error})"),
        });
        facts.push(("card", format!("{device}: {}", words.join(", "))));
    }
    facts
}

fn mitigations() -> Vec<(&'static str, String)> {
    let folder = "/sys/devices/system/cpu/vulnerabilities";
    let mut active: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let state = text(entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (state != "Not affected").then(|| format!("{name}: {state}"))
        })
        .collect();
    active.sort();
    let none = active.is_empty();
    vec![(
        "active",
        if none {
            "none told".into()
        } else {
            active.join(" · ")
        },
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_tells_what_a_reader_needs() {
        let host = Host::look(".".as_ref());
        assert!(
            host.fact("Machine", "kernel")
                .is_some_and(|kernel| kernel.starts_with("Linux "))
        );
        assert!(host.fact("File system", "type").is_some());
        assert!(!host.identity().is_empty());
    }

    #[test]
    fn the_deepest_mount_counts() {
        let table = "1 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                     2 1 0:30 / /data rw,noatime shared:1 - xfs /dev/vdb rw,attr2\n\
                     3 1 0:31 / /database rw - tmpfs none rw\n";
        let mount = Mount::longest(table, "/data/claims".as_ref()).unwrap();
        assert_eq!(
            (mount.kind.as_str(), mount.device.as_str()),
            ("xfs", "0:30")
        );
        assert_eq!(mount.options, "rw,noatime; rw,attr2");
        assert_eq!(
            Mount::longest(table, "/home".as_ref()).unwrap().kind,
            "ext4"
        );
    }
}
