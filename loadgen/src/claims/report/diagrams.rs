//! The ways from a file to a socket as pictures: who holds a byte, who moves it, and what was counted on the way. Drawn from the
//! measurements alone, in the page's colours.

use std::fmt::Write as _;

use ringlog_benches::claims::transfer::Path;

use super::number;
use super::plots::Picture;
use crate::claims::catalog::{ReadPath, Took, read_paths};
use crate::claims::outcome::ClaimResult;

/// The claim whose measurements they are drawn from.
const CLAIM: &str = "C2";
/// Pixels: a phone shows it without scaling words below what can be read.
const WIDTH: u32 = 340;
/// What lies in the kernel is at the left, what the program holds at the right.
const KERNEL: u32 = 8;
const PROGRAM: u32 = 190;
const BOX: (u32, u32) = (142, 28);
/// Tops of the rows of boxes.
const ROWS: [u32; 5] = [24, 84, 146, 208, 268];
const LINE: u32 = 16;

/// What becomes of a byte on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Copied by the processor.
    Copied,
    /// Moved by the disk's engine.
    Dma,
    /// Its page is lent: nothing moves.
    Lent,
}

impl Move {
    fn class(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Dma => "dma",
            Self::Lent => "lent",
        }
    }
}

/// Names, class and colour of the moves, for the legend beside the pictures.
pub(super) const LEGEND: [(&str, &str); 3] = [
    ("copied", "copied by the processor"),
    ("dma", "moved by the disk itself (DMA)"),
    ("lent", "page lent, nothing copied"),
];

/// Claims that speak of the same paths.
const ALSO: [&str; 2] = ["C3", "C5"];

/// Where a claim's paths are drawn, if not beside it.
pub(super) fn elsewhere(claim: &ClaimResult, all: &[ClaimResult]) -> Option<String> {
    let drawn = all.iter().any(|other| !diagrams(other).is_empty());
    (drawn && ALSO.contains(&claim.id.as_str()))
        .then(|| format!("The paths are drawn under {CLAIM}, as measured there."))
}

/// A diagram of each path that the claim has measured.
pub(super) fn diagrams(claim: &ClaimResult) -> Vec<Picture> {
    if claim.id != CLAIM {
        return Vec::new();
    }
    let paths = read_paths(&claim.measurements);
    paths.iter().map(diagram).collect()
}

fn diagram(path: &ReadPath) -> Picture {
    let mut drawing = Drawing::default();
    drawing.text(KERNEL, 14, "faint", "kernel");
    drawing.text(PROGRAM, 14, "faint", "program");
    let middle = (KERNEL + BOX.0 + PROGRAM) / 2;
    let _ = write!(
        drawing.svg,
        "<path class=\"border\" d=\"M{middle} 4V{}\"/>",
        ROWS[3] + BOX.1
    );
    route(&mut drawing, path.path);
    drawing.down(
        3,
        4,
        Move::Lent,
        "loopback: no card (the receiver's read copies)",
    );
    drawing.kernel(3, "socket buffer");
    drawing.kernel(4, "receiver");
    let bottom = figures(&mut drawing, path);
    Picture {
        title: path.name.into(),
        svg: format!(
            "<svg class=\"way\" role=\"img\" viewBox=\"0 0 {WIDTH} {bottom}\">{}</svg>",
            drawing.svg
        ),
        legend: Vec::new(),
    }
}

/// Boxes and arrows up to the socket.
fn route(drawing: &mut Drawing, path: Path) {
    if !path.from_memory() {
        drawing.kernel(0, "disk");
    }
    match path {
        Path::ReadSend | Path::InspectSend | Path::SendZc => {
            drawing.down(0, 1, Move::Dma, "if not in the cache");
            drawing.kernel(1, "page cache");
            drawing.take(1, Move::Copied, "pread copies");
            drawing.program("buffer");
        }
        Path::MmapSend | Path::MappedSend => {
            drawing.down(0, 1, Move::Dma, "if not in the cache");
            drawing.kernel(1, "page cache");
            let call = match path {
                Path::MmapSend => "mmap for each slice",
                _ => "mmap once",
            };
            drawing.take(1, Move::Lent, call);
            drawing.program("mapping");
        }
        Path::DirectSend => {
            drawing.take(0, Move::Dma, "O_DIRECT read, ring");
            drawing.program("aligned buffer");
        }
        Path::MemorySend => drawing.program("memory"),
        Path::Sendfile | Path::MemorySendfile => {
            if path.from_memory() {
                drawing.kernel(1, "memory (memfd)");
            } else {
                drawing.down(0, 1, Move::Dma, "if not in the cache");
                drawing.kernel(1, "page cache");
            }
            drawing.down(1, 3, Move::Lent, "sendfile");
        }
        Path::Splice => {
            drawing.down(0, 1, Move::Dma, "if not in the cache");
            drawing.kernel(1, "page cache");
            drawing.down(1, 2, Move::Lent, "splice, ring");
            drawing.kernel(2, "pipe");
            drawing.down(2, 3, Move::Lent, "splice, ring");
        }
    }
    match path {
        Path::SendZc => drawing.send(Move::Lent, "send_zc; copied here"),
        Path::Sendfile | Path::MemorySendfile | Path::Splice => {}
        _ => drawing.send(Move::Copied, "send copies"),
    }
}

/// What was counted, measured and derived, below the boxes; returns where it ends.
fn figures(drawing: &mut Drawing, path: &ReadPath) -> u32 {
    let mut y = ROWS[4] + BOX.1 + 22;
    let mut row = |class: &str, words: &str, value: &str| {
        drawing.text(KERNEL, y, class, words);
        let _ = write!(
            drawing.svg,
            "<text class=\"{class} e\" x=\"{}\" y=\"{y}\">{value}</text>",
            PROGRAM + BOX.0
        );
        y += LINE;
    };
    let counted = |took: &Took| {
        [
            ("system calls a MB", took.system_calls_per_mb),
            ("context switches a MB", took.context_switches_per_mb),
            ("page faults a MB", took.page_faults_per_mb),
        ]
    };
    row("b", "counted, page cache hot", "");
    for (words, value) in counted(&path.hot) {
        row("n", words, &count(value));
    }
    if let Some(cold) = &path.cold {
        row("b", "counted, cold", "");
        for (words, value) in counted(cold) {
            row("n", words, &count(value));
        }
    }
    row("b", "derived", "");
    row(
        "n",
        "copies of a byte by the processor",
        &path.cpu_copies.to_string(),
    );
    row("n", "by DMA, with a card", &path.dma_copies.to_string());
    let switches = number(path.hot.mode_switches_per_mb());
    row("n", "mode switches a MB, hot", &switches);
    row("b", "measured", "");
    row("n", "CPU s a GB, hot", &number(path.hot.cpu_s_per_gb));
    if let Some(cold) = &path.cold {
        row("n", "CPU s a GB, cold", &number(cold.cpu_s_per_gb));
    }
    row("n", "MB/s, hot", &number(path.hot.mb_per_s));
    row("faint", path.buffer, "");
    y - LINE + 8
}

/// A count with digits that say something, small ones too.
fn count(value: f64) -> String {
    match value {
        0.0005..0.1 => format!("{value:.3}"),
        ..0.0005 => "0".into(),
        _ => number(value),
    }
}

/// An SVG's inside. All words are ours: nothing to escape.
#[derive(Default)]
struct Drawing {
    svg: String,
}

impl Drawing {
    fn text(&mut self, x: u32, y: u32, class: &str, words: &str) {
        let _ = write!(
            self.svg,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>"
        );
    }

    fn place(&mut self, x: u32, y: u32, words: &str) {
        let (width, height) = BOX;
        let _ = write!(
            self.svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"5\"/>"
        );
        self.text(x + width / 2, y + 19, "m", words);
    }

    /// A box in the kernel.
    fn kernel(&mut self, row: usize, words: &str) {
        self.place(KERNEL, ROWS[row], words);
    }

    /// The program's box.
    fn program(&mut self, words: &str) {
        self.place(PROGRAM, ROWS[2], words);
    }

    fn arrow(&mut self, how: Move, line: &str, head: &str) {
        let class = how.class();
        let _ = write!(
            self.svg,
            "<path class=\"{class}\" d=\"{line}\"/><path class=\"{class} head\" d=\"{head}\"/>"
        );
    }

    /// From one box in the kernel to another below it.
    fn down(&mut self, from: usize, to: usize, how: Move, words: &str) {
        let (x, top, end) = (KERNEL + 30, ROWS[from] + BOX.1, ROWS[to]);
        let line = format!("M{x} {top}V{}", end - 7);
        let head = format!("M{x} {end}l-5 -8h10z");
        self.arrow(how, &line, &head);
        self.text(x + 10, (top + end) / 2 + 4, "n", words);
    }

    /// From a box in the kernel to the program's.
    fn take(&mut self, from: usize, how: Move, words: &str) {
        let (x, y, end) = (PROGRAM + BOX.0 / 2, ROWS[from] + BOX.1 / 2, ROWS[2]);
        let line = format!("M{} {y}H{x}V{}", KERNEL + BOX.0, end - 7);
        let head = format!("M{x} {end}l-5 -8h10z");
        self.arrow(how, &line, &head);
        self.text(PROGRAM - 14, y - 6, "n", words);
    }

    /// From the program's box to the socket's.
    fn send(&mut self, how: Move, words: &str) {
        let (x, top) = (PROGRAM + BOX.0 / 2, ROWS[2] + BOX.1);
        let (end, y) = (KERNEL + BOX.0, ROWS[3] + BOX.1 / 2);
        let line = format!("M{x} {top}V{y}H{}", end + 7);
        let head = format!("M{end} {y}l8 -5v10z");
        self.arrow(how, &line, &head);
        self.text(PROGRAM - 14, y + 16, "n", words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement_of;
    use crate::claims::outcome::Conclusion;
    use crate::claims::verdict::Verdict;
    use serde_json::json;

    const PATHS: [&str; 9] = [
        "read_send",
        "mmap_send",
        "mapped_send",
        "sendfile",
        "splice",
        "direct_send",
        "send_zc",
        "memory_send",
        "memory_sendfile",
    ];

    fn claim(id: &str) -> ClaimResult {
        let mut measurements = Vec::new();
        for path in PATHS {
            for hot in [true, false] {
                let params = json!({ "medium": "loopback", "hot": hot, "slice": 4 << 20, "chunk": 64 << 10, "from": 0,
                                     "path": path, "buffer": "grown" });
                measurements.push(measurement_of(
                    &params,
                    &[
                        ("cpu_s_per_gb", &[0.25; 3]),
                        ("mb_per_s", &[4000.0; 3]),
                        ("system_calls_per_gb", &[30_500.0; 3]),
                        ("context_switches_per_gb", &[1200.0; 3]),
                        ("page_faults_per_gb", &[0.0; 3]),
                    ],
                ));
            }
        }
        ClaimResult {
            measurements,
            ..ClaimResult::new(id, "", Conclusion::without(Verdict::Holds, ""))
        }
    }

    #[test]
    fn every_path_is_drawn_with_what_was_counted_on_it() {
        let pictures = diagrams(&claim(CLAIM));
        assert_eq!(pictures.len(), PATHS.len());
        for picture in &pictures {
            let (title, svg) = (&picture.title, &picture.svg);
            assert!(
                svg.contains(">socket buffer<") && svg.contains(">30.5<"),
                "{title}"
            );
            // 2 × (30.5 + 0) a megabyte, and calls come from the kernel, not from the paths' names.
            assert!(svg.contains(">61.0<") && svg.contains(">1.20<"), "{title}");
            assert!(!svg.contains("NaN"), "{title}");
        }
        let of = |name: &str| &pictures.iter().find(|p| p.title == name).unwrap().svg;
        let moves = |name: &str, class: &str| of(name).matches(&format!("\"{class}\"")).count();
        assert_eq!(
            (moves("read + send", "copied"), moves("read + send", "dma")),
            (2, 1)
        );
        assert_eq!(
            (moves("sendfile", "copied"), moves("sendfile", "lent")),
            (0, 2)
        );
        assert_eq!(moves("splice, ring", "lent"), 3);
        assert!(!of("O_DIRECT + send").contains("page cache<"));
        assert!(of("memory, send").contains(">memory<") && !of("memory, send").contains(">disk<"));
    }

    #[test]
    fn other_claims_and_missing_measurements_have_no_diagram() {
        assert!(diagrams(&claim("C1")).is_empty());
        let all = [claim("C1"), claim(CLAIM), claim("C5")];
        let told = all.each_ref().map(|claim| elsewhere(claim, &all).is_some());
        assert_eq!(told, [false, false, true]);
        assert!(elsewhere(&all[2], &all[2..]).is_none(), "nothing is drawn");
        let mut unmeasured = claim(CLAIM);
        unmeasured.measurements.clear();
        assert!(diagrams(&unmeasured).is_empty());
    }

    #[test]
    fn seldom_counts_are_told_without_exponents() {
        let told = [0.0, 0.0815, 0.9, 30.6, f64::NAN].map(count);
        assert_eq!(told, ["0", "0.082", "0.90", "30.6", "–"]);
    }

    #[test]
    fn the_arrows_colours_are_explained() {
        for how in [Move::Copied, Move::Dma, Move::Lent] {
            assert!(LEGEND.iter().any(|(class, _)| *class == how.class()));
        }
    }
}
