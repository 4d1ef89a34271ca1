//! What the claims about file transfers (C2, C3, C4) share: the rig, and the paths by name.

use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::transfer::{Medium, Path, SendBuffer, Serving, Slices};
use serde_json::json;

use crate::claims::PointError;
use crate::claims::claim::{Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Finding, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

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

pub(super) const PATHS: [Described; 9] = [
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
    Described {
        path: Path::MemorySend,
        name: "memory, send",
        cpu_copies: 1,
        dma_copies: 1,
        route: "memory of the program → socket ⇒ card",
    },
    Described {
        path: Path::MemorySendfile,
        name: "memory, sendfile",
        cpu_copies: 0,
        dma_copies: 1,
        route: "memory with a descriptor (memfd; pages lent to the socket) ⇒ card",
    },
];

/// Send buffers, and what they are called.
pub(super) const BUFFERS: [(SendBuffer, &str); 2] = [
    (SendBuffer::Grown, "buffer as the kernel grows it"),
    (SendBuffer::Narrow, "send buffer of 100 KiB"),
];

/// Seconds of a window, unless a claim has its own.
pub(super) fn window_s(scale: Scale) -> f64 {
    scale.pick(0.01, 0.25, 0.8)
}

/// A point, with the time for taking the file out of memory, for threads and connections.
pub(super) fn point(serving: &Serving, rank: u32, scale: Scale, window_s: f64) -> Point {
    Point::new(serving, rank, window_s + scale.pick(0.02, 0.07, 0.25))
}

/// The rig of all three.
pub(super) struct ServingRig<'a> {
    slices: Slices<'a>,
    lab: &'a Lab,
    window: Duration,
}

impl<'a> ServingRig<'a> {
    /// Over a file of `bytes` and one for hot slices, with windows of so many seconds.
    pub(super) fn new(lab: &'a Lab, bytes: u64, window_s: f64) -> Result<Self, PointError> {
        let slices = Slices::prepare(&lab.scratch, bytes)?.with_a_hot_file();
        Ok(Self::over(lab, slices, window_s))
    }

    /// Over one file for all slices.
    pub(super) fn of_one_file(lab: &'a Lab, bytes: u64, window_s: f64) -> Result<Self, PointError> {
        let slices = Slices::prepare(&lab.scratch, bytes)?;
        Ok(Self::over(lab, slices, window_s))
    }

    /// Bytes on the disk of [`ServingRig::new`].
    pub(super) fn disk_bytes(bytes: u64) -> u64 {
        bytes + Slices::hot_bytes(bytes)
    }

    fn over(lab: &'a Lab, slices: Slices<'a>, window_s: f64) -> Self {
        Self {
            slices,
            lab,
            window: Duration::from_secs_f64(window_s),
        }
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

/// What is sent, how, and over what; the send buffer is left open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) medium: Medium,
    pub(super) path: Path,
    pub(super) slice: u64,
    pub(super) chunk: u64,
    pub(super) hot: bool,
}

impl Sent {
    /// Its measurement with one of the send buffers.
    pub(super) fn with<'a>(
        &self,
        measurements: &'a [Measurement],
        buffer: SendBuffer,
    ) -> Option<&'a Measurement> {
        find(
            measurements,
            &json!({ "medium": self.medium, "path": self.path, "slice": self.slice, "chunk": self.chunk, "hot": self.hot,
                     "buffer": buffer }),
        )
    }

    /// Its measurement with the send buffer that suits it best, by the median of a figure, and that buffer's name.
    pub(super) fn best<'a>(
        &self,
        measurements: &'a [Measurement],
        figure: &Figure,
    ) -> Option<Best<'a>> {
        let found = BUFFERS.iter().filter_map(|&(buffer, name)| {
            let measurement = self.with(measurements, buffer)?;
            let median = measurement.figures.get(figure.name)?.median;
            let loss = if figure.more { -median } else { median };
            Some((loss, measurement, name))
        });
        let (_, measurement, buffer) = found.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let path = PATHS.iter().find(|described| described.path == self.path);
        let name = path.map_or("", |described| described.name);
        Some(Best {
            measurement,
            name: format!("{name}, {buffer}"),
            buffer,
        })
    }
}

/// A side at its best.
pub(super) struct Best<'a> {
    pub(super) measurement: &'a Measurement,
    /// The path and its send buffer.
    pub(super) name: String,
    pub(super) buffer: &'static str,
}

/// A figure, and whether more of it is better.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) more: bool,
}

pub(super) const RATE: Figure = Figure {
    name: "mb_per_s",
    unit: "MB/s",
    more: true,
};
pub(super) const CPU: Figure = Figure {
    name: "cpu_s_per_gb",
    unit: "CPU s/GB",
    more: false,
};
pub(super) const CALLS: Figure = Figure {
    name: "system_calls_per_gb",
    unit: "calls/GB",
    more: false,
};

/// A figure of two ways, each with the send buffer that suits it best; `None` unless both were measured.
pub(super) fn at_their_best(
    measurements: &[Measurement],
    question: &str,
    above: &Sent,
    below: &Sent,
    figure: &Figure,
    expect: Expect,
) -> Option<Finding> {
    let (above, below) = (
        above.best(measurements, figure)?,
        below.best(measurements, figure)?,
    );
    Some(Finding::compare(
        question,
        (&above.name, above.measurement),
        (&below.name, below.measurement),
        (figure.name, figure.unit),
        expect,
    ))
}

/// Why there are no figures over a pair of virtual devices, if that is so.
pub(super) fn no_veth(measurements: &[Measurement]) -> Option<String> {
    let mut veth = measurements.iter().filter(|m| m.params["medium"] == "veth");
    let reason = veth.find_map(|m| m.left_out.as_ref())?;
    Some(format!(
        "Left out: a pair of virtual Ethernet devices between two network namespaces: {reason} (root, or CAP_NET_ADMIN and \
         CAP_SYS_ADMIN, and the command ip allow it)."
    ))
}

/// That verdicts take each side at its best.
pub(super) fn buffers_note() -> String {
    "Each path was measured with the send buffer that the kernel grows by itself and with one of 100 KiB (SO_SNDBUF); a verdict takes \
     each side with the one that suits it best."
        .into()
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
         veth the receiving half of TCP runs on the sender's processor and is part of them; the reading thread does not sleep, so \
         no sender pays for waking it."
            .into(),
        "Neither medium has a card: its copy (scatter-gather DMA) does not take place, and a send_zc is copied by the kernel."
            .into(),
    ]
}
