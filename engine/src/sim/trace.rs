//! The log of a simulated run: a hash that says whether two runs were the same, and lines for people if asked.

use std::fmt;

/// Hashes every step; prints them too when `print` is set.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    print: bool,
    pub(super) now_ns: u64,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            print,
            now_ns: 0,
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Notes a step. `numbers` go into the hash; `detail` is shown to people only.
    pub(super) fn note(&mut self, kind: &str, numbers: [u64; 3], detail: impl FnOnce() -> String) {
        self.steps += 1;
        for byte in kind.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(self.now_ns);
        numbers.iter().for_each(|&n| self.mix(n));
        if self.print {
            self.line(format_args!("{kind:<10} {}", detail()));
        }
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23);
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        let (seconds, nanos) = (self.now_ns / 1_000_000_000, self.now_ns % 1_000_000_000);
        eprintln!("{:>7} {seconds:>8}.{nanos:09} {text}", self.steps);
    }
}
