//! What a network card does by itself, asked as ethtool asks.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

// linux/ethtool.h: commands that answer with one number, 0 or 1.
const GET: [(u32, &str); 6] = [
    (0x18, "scatter-gather"),
    (0x16, "tx checksum"),
    (0x14, "rx checksum"),
    (0x1e, "TCP segmentation"),
    (0x23, "generic segmentation"),
    (0x2b, "generic receive"),
];

/// struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// What a card does by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Done by the card.
    pub on: Vec<&'static str>,
    /// Not done.
    pub off: Vec<&'static str>,
}

impl Offloads {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |names: &[&str]| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(" + "),
        };
        format!("offloads on: {}; off: {}", list(&self.on), list(&self.off))
    }
}

/// Asks the card called `device`.
///
/// # Errors
/// The system's: no such card, or one that cannot be asked.
pub fn offloads(device: &str) -> io::Result<Offloads> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut offloads = Offloads::default();
    for (command, name) in GET {
        match ask(&socket, device, command)? {
            0 => offloads.off.push(name),
            _ => offloads.on.push(name),
        }
    }
    Ok(offloads)
}

fn ask(socket: &impl AsRawFd, device: &str, command: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: an all-zero ifreq is a valid one: numbers, byte arrays and a pointer that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = device.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the request names a device with a terminating zero and points to an ethtool_value, which is what each of
    // these commands reads and writes; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_and_a_card_that_is_not_there_is_an_error() {
        let offloads = offloads("lo").unwrap();
        assert_eq!(offloads.on.len() + offloads.off.len(), GET.len());
        assert!(offloads.describe().contains("scatter-gather"));
        assert!(super::offloads("no-such-card").is_err());
    }
}
