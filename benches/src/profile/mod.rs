//! What `perf` recorded of a server and its load, by thread: flame graphs, and a table of where the time goes.
//!
//! The input is the text of `perf script`. inferno folds and draws; here is what it does not have: waits from scheduler
//! events ([`waits`]), stacks by thread ([`threads`]), a table ([`table`]) and the page that shows it all ([`page`]).

pub mod page;
pub mod table;
pub mod threads;
pub mod waits;

use std::io;

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use inferno::flamegraph;
use thiserror::Error;

/// Why a profile cannot be shown.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Neither a sample nor a stack.
    #[error(
        "perf recorded no samples of these processes: did they run, and was the window long enough?"
    )]
    Empty,
    /// A process is given as NAME=PID.
    #[error("{0}: a process is given as NAME=PID")]
    Process(String),
    /// A line of folded stacks that is none.
    #[error("no folded stack: {0}")]
    Folded(String),
    /// Reading, folding or drawing.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Folds the text of `perf script` into lines of `thread-pid;outermost;…;innermost weight`, kernel functions marked `_[k]`.
/// The weight is the event's period where the text has one, else 1 a sample.
///
/// # Errors
/// [`ProfileError::Io`] on text that is none of perf's.
pub fn fold(script: &str) -> Result<String, ProfileError> {
    let mut options = Options::default();
    options.annotate_kernel = true;
    options.include_pid = true;
    options.nthreads = 1;
    let mut folded = Vec::new();
    Folder::from(options).collapse(script.as_bytes(), &mut folded)?;
    Ok(String::from_utf8_lossy(&folded).into_owned())
}

/// How a graph is labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Where the processor's time goes.
    OnCpu,
    /// What threads wait for.
    OffCpu,
}

/// Draws folded lines (in any order) as an SVG.
///
/// # Errors
/// [`ProfileError::Io`] from drawing.
pub fn draw(
    lines: &[String],
    kind: Kind,
    title: &str,
    subtitle: &str,
) -> Result<String, ProfileError> {
    let mut options = flamegraph::Options::default();
    options.title = title.into();
    options.subtitle = Some(subtitle.into());
    options.deterministic = true;
    (options.count_name, options.colors) = match kind {
        Kind::OnCpu => ("samples".into(), flamegraph::Palette::default()),
        Kind::OffCpu => (
            "µs".into(),
            flamegraph::Palette::Basic(flamegraph::color::BasicPalette::Blue),
        ),
    };
    let mut sorted: Vec<&str> = lines.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, sorted, &mut svg)?;
    Ok(String::from_utf8_lossy(&svg).into_owned())
}
