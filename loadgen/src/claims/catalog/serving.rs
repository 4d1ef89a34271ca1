//! What the claims about file transfers (C2, C3, C4) share: the rig, and the paths by name.

use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::transfer::{Path, Serving, Slices};
use serde_json::json;

use crate::claims::PointError;
use crate::claims::claim::{Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::find;
use crate::claims::plan::Point;
use crate::claims::record::Measurement;

/// A path with what is known of it from the kernel's source, not measured.
pub(super) struct Described {
    pub(super) path: Path,
    pub(super) name: &'static str,
    /// Copies by the processor on the sending side.
    pub(super) cpu_copies: u32,
    /// Copies by the disk's and the card's own engines.
    pub(super) dma_copies: u32,
    pub(super) route: &'static str,
}

pub(super) const PATHS: [Described; 7] = [
    Described {
        path: Path::ReadSend,
        name: "read + send",
        cpu_copies: 2,
        dma_copies: 2,
        route: "disk ⇒ page cache → buffer of the program → socket ⇒ card",
    },
    Described {
        path: Path::MmapSend,
        name: "mmap + send",
        cpu_copies: 1,
        dma_copies: 2,
        route: "disk ⇒ page cache (mapped) → socket ⇒ card",
    },
    Described {
        path: Path::MappedSend,
        name: "mapped once, send",
        cpu_copies: 1,
        dma_copies: 2,
        route: "disk ⇒ page cache (mapped) → socket ⇒ card",
    },
    Described {
        path: Path::Sendfile,
        name: "sendfile",
        cpu_copies: 0,
        dma_copies: 2,
        route: "disk ⇒ page cache (pages lent to the socket) ⇒ card",
    },
    Described {
        path: Path::Splice,
        name: "splice, ring",
        cpu_copies: 0,
        dma_copies: 2,
        route: "disk ⇒ page cache (pages lent to pipe and socket) ⇒ card",
    },
    Described {
        path: Path::DirectSend,
        name: "O_DIRECT + send",
        cpu_copies: 1,
        dma_copies: 2,
        route: "disk ⇒ buffer of the program → socket ⇒ card",
    },
    Described {
        path: Path::SendZc,
        name: "read + send_zc",
        cpu_copies: 1,
        dma_copies: 2,
        route: "disk ⇒ page cache → buffer of the program (lent to the socket) ⇒ card",
    },
];

pub(super) fn window_s(scale: Scale) -> f64 {
    scale.pick(0.01, 0.25, 0.8)
}

/// A point, with the time for bringing the file into memory or out of it, for threads and connections.
pub(super) fn point(serving: &Serving, rank: u32, scale: Scale) -> Point {
    Point::new(
        serving,
        rank,
        window_s(scale) + scale.pick(0.02, 0.15, 0.25),
    )
}

/// The rig of all three.
pub(super) struct ServingRig<'a> {
    slices: Slices<'a>,
    lab: &'a Lab,
    window: Duration,
}

impl<'a> ServingRig<'a> {
    pub(super) fn new(lab: &'a Lab, bytes: u64) -> Result<Self, PointError> {
        Ok(Self {
            slices: Slices::prepare(&lab.scratch, bytes)?,
            lab,
            window: Duration::from_secs_f64(window_s(lab.scale)),
        })
    }
}

impl Rig for ServingRig<'_> {
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError> {
        let serving: Serving = point.typed()?;
        let (seed, cores) = (u64::from(repetition) + 1, &self.lab.cores);
        Ok(self
            .slices
            .measure(&serving, self.window, seed, &cores.server, &cores.load)?)
    }
}

/// A path's measurement over loopback.
pub(super) fn served(
    measurements: &[Measurement],
    path: Path,
    slice: u64,
    chunk: u64,
    hot: bool,
) -> Option<&Measurement> {
    find(
        measurements,
        &json!({ "medium": "loopback", "path": path, "slice": slice, "chunk": chunk, "hot": hot }),
    )
}

/// Who counted, and what one machine cannot show.
pub(super) fn notes(measurements: &[Measurement]) -> Vec<String> {
    let by_kernel = measurements
        .iter()
        .filter_map(|m| m.figures.get("counted_by_kernel"))
        .all(|estimate| estimate.median == 1.0);
    let counted = match by_kernel {
        true => "System calls are counted by the kernel (tracepoint raw_syscalls:sys_enter)",
        false => {
            "System calls are counted by the loops that make them: the tracepoint raw_syscalls:sys_enter may not be used \
             (root, or kernel.perf_event_paranoid at most -1 and a readable tracefs, allow it)"
        }
    };
    vec![
        format!(
            "{counted}; context switches and page faults are those that /proc/thread-self tells of the sending thread."
        ),
        "CPU seconds are those of the sending process, kernel workers included, without the reading thread. On loopback and \
         veth the receiving half of TCP runs on the sender's processor and is part of them."
            .into(),
        "Neither medium has a card: its copy (scatter-gather DMA) does not take place, and a send_zc is copied by the kernel."
            .into(),
    ]
}
