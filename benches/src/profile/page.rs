//! A folder with the graphs of a profile and a page that shows them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::threads::Thread;
use super::{Kind, ProfileError, draw};

/// The page's file.
pub const INDEX: &str = "index.html";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:0 auto;padding:1rem;color-scheme:light dark}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}td.n{text-align:right}\
    object{width:100%;border:1px solid #8888;background:#fff}";

/// All graphs of one kind.
#[derive(Debug)]
pub struct Graphs<'a> {
    /// On or off the processor.
    pub kind: Kind,
    /// Of these threads.
    pub threads: &'a [Thread],
}

impl Graphs<'_> {
    fn name(&self) -> (&'static str, &'static str, &'static str) {
        match self.kind {
            Kind::OnCpu => ("on-cpu", "On the processor", "samples"),
            Kind::OffCpu => ("off-cpu", "Off the processor", "µs"),
        }
    }
}

/// Writes a graph for each process and each thread, and [`INDEX`]. Notes go to its top.
///
/// # Errors
/// [`ProfileError::Io`].
pub fn write(
    out: &Path,
    title: &str,
    notes: &[String],
    all: &[Graphs<'_>],
) -> Result<(), ProfileError> {
    fs::create_dir_all(out)?;
    let mut body = String::new();
    for graphs in all {
        let (prefix, heading, unit) = graphs.name();
        let _ = write!(body, "<h2>{heading}</h2>");
        for process in processes(graphs.threads) {
            let of: Vec<&Thread> = graphs
                .threads
                .iter()
                .filter(|t| t.process == process)
                .collect();
            let total: u64 = of.iter().map(|thread| thread.weight()).sum();
            let lines: Vec<String> = of.iter().flat_map(|thread| thread.folded()).collect();
            let file = format!("{prefix}-{}.svg", file_name(process));
            let subtitle = format!("{title}: {process}, {heading}");
            fs::write(
                out.join(&file),
                draw(&lines, graphs.kind, process, &subtitle)?,
            )?;
            let name = escape(process);
            let _ = write!(
                body,
                "<h3>{name}</h3><p><a href=\"{file}\"><object type=\"image/svg+xml\" data=\"{file}\">{name}</object></a></p>\
                 <table><tr><th>thread</th><th>{unit}</th><th>share</th></tr>"
            );
            for thread in of {
                let file = format!(
                    "{prefix}-{}-{}.svg",
                    file_name(process),
                    file_name(&thread.name)
                );
                let svg = draw(&thread.folded(), graphs.kind, &thread.name, &subtitle)?;
                fs::write(out.join(&file), svg)?;
                let share = 100.0 * thread.weight() as f64 / total.max(1) as f64;
                let _ = write!(
                    body,
                    "<tr><td><a href=\"{file}\">{}</a></td><td class=n>{}</td><td class=n>{share:.1} %</td></tr>",
                    escape(&thread.name),
                    thread.weight()
                );
            }
            body.push_str("</table>");
        }
    }
    let title = escape(title);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><ul>"
    );
    for note in notes {
        let _ = write!(page, "<li>{}</li>", escape(note));
    }
    let _ = writeln!(
        page,
        "</ul><p>Width is time, not order. A click enlarges a frame, Ctrl-F searches.</p>{body}</html>"
    );
    fs::write(out.join(INDEX), page)?;
    Ok(())
}

/// The processes' names, once each, in order.
fn processes(threads: &[Thread]) -> Vec<&str> {
    let mut names: Vec<&str> = threads
        .iter()
        .map(|thread| thread.process.as_str())
        .collect();
    names.dedup();
    names
}

fn file_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    name.chars().map(plain).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
