//! What this user may not do here: which figures that costs, and what to allow.

use std::path::Path;

use ringlog_benches::claims::counts::calls_are_counted;
use ringlog_benches::claims::nic;
use ringlog_benches::claims::transfer::{Medium, reach};
use ringlog_benches::uring;

/// Something that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What.
    pub what: &'static str,
    /// Figures that are missing or counted in another way, and what to allow.
    pub costs: String,
}

impl Refused {
    /// As a line for the terminal.
    #[must_use]
    pub fn line(&self) -> String {
        format!("not allowed here: {}: {}", self.what, self.costs)
    }
}

/// Tries everything that may need privilege.
#[must_use]
pub fn refused() -> Vec<Refused> {
    let tried = [
        (
            "io_uring",
            uring::abilities().err().map(|error| {
                format!(
                    "{error}; left out: whatever a server is needed for (C5, C6, C10 to C17, C19, DRIVERS), deep queues (C1, C7, C8), splice, \
                     O_DIRECT and send_zc (C2). To allow: sysctl kernel.io_uring_disabled=0, and a seccomp profile that has io_uring"
                )
            }),
        ),
        (
            "counting system calls in the kernel",
            (!calls_are_counted()).then(|| {
                "C2, C3 and C18 count the calls that their loops make instead, DRIVERS has no system calls an ack. To allow: root, \
                 CAP_PERFMON with a readable tracefs, or sysctl kernel.perf_event_paranoid=-1 with one"
                    .to_owned()
            }),
        ),
        (
            "a pair of virtual Ethernet devices",
            reach(Medium::Veth).err().map(|error| {
                format!(
                    "{error}; left out: C2, C3 and C5 over it. To allow: root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, and the command ip \
                     (Debian: iproute2)"
                )
            }),
        ),
        (
            "asking network cards for their offloads",
            cards_refuse().map(|error| {
                format!("{error}; left out: scatter-gather and other offloads in the header. To allow: ioctl SIOCETHTOOL")
            }),
        ),
    ];
    let refused = tried.into_iter().filter_map(|(what, costs)| {
        Some(Refused {
            what,
            costs: costs?,
        })
    });
    refused.collect()
}

/// Why the first card that refuses does so.
fn cards_refuse() -> Option<String> {
    let devices = std::fs::read_dir(Path::new("/sys/class/net")).ok()?;
    devices.flatten().find_map(|device| {
        let name = device.file_name().to_string_lossy().into_owned();
        let error = nic::offloads(&name).err()?;
        Some(format!("{name}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_it_costs_and_what_to_allow() {
        for refused in refused() {
            let line = refused.line();
            assert!(
                line.contains("To allow: ") && !line.contains('\n'),
                "{line}"
            );
        }
    }
}
