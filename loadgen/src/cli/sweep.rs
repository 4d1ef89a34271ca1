//! `sweep`: the same run over lists of parameters.

use std::fmt::Write as _;

use clap::{Args, Parser};
use serde_json::{Value, json};

use super::{Cli, Request};
use crate::report;
use crate::run;

/// `sweep`
#[derive(Debug, Args)]
#[command(after_help = "\
Every --vary names a long option of the run; the runs are all combinations, in order. Each run gets a topic of its own
(--topic with a number behind it) unless --topic is varied, and the runs of one repetition come after another, so that
drift of the host spreads over all points.")]
pub struct SweepCommand {
    /// An option and its values (repeatable), e.g. partitions=1,16,1000
    #[arg(long, value_name = "OPTION=A,B,C", value_parser = parse_axis, required = true)]
    pub vary: Vec<Axis>,
    /// How often to go through all points; the table shows the median
    #[arg(long, default_value_t = 1)]
    pub repeat: usize,
    /// Print a JSON array of all runs instead of the table
    #[arg(long)]
    pub json: bool,
    /// Subcommand and options of the run
    #[arg(last = true, required = true)]
    pub run: Vec<String>,
}

/// One option and its values.
#[derive(Debug, Clone)]
pub struct Axis {
    option: String,
    values: Vec<String>,
}

fn parse_axis(text: &str) -> Result<Axis, String> {
    let (option, values) = text.split_once('=').ok_or("not OPTION=A,B,C")?;
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    if option.is_empty() || values.iter().any(String::is_empty) {
        return Err("an option or a value is empty".into());
    }
    Ok(Axis {
        option: option.trim_start_matches('-').to_owned(),
        values,
    })
}

/// All combinations, the last axis fastest.
fn points(axes: &[Axis]) -> Vec<Vec<(String, String)>> {
    axes.iter().fold(vec![Vec::new()], |points, axis| {
        points
            .iter()
            .flat_map(|point| {
                axis.values.iter().map(|value| {
                    let mut point = point.clone();
                    point.push((axis.option.clone(), value.clone()));
                    point
                })
            })
            .collect()
    })
}

/// The run at a point; the error is a usage message.
fn request(
    command: &SweepCommand,
    point: &[(String, String)],
    number: usize,
) -> Result<Request, String> {
    let mut words = vec!["ringlog-load".to_owned()];
    words.extend(command.run.iter().cloned());
    words.extend(
        point
            .iter()
            .map(|(option, value)| format!("--{option}={value}")),
    );
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let mut request = cli
        .command
        .request()?
        .ok_or("a sweep is over produce, consume, e2e or mixed")?;
    let own_topic =
        request.options.produce.is_some() && !point.iter().any(|(option, _)| option == "topic");
    if own_topic {
        let _ = write!(request.options.topic.topic, "-{number}");
    }
    request.options.progress = false;
    Ok(request)
}

/// Runs all points. Returns what to print and whether all went well; the error says why a run could not take place.
///
/// # Errors
/// A wrong option, or the first run that cannot take place.
pub fn sweep(command: &SweepCommand) -> Result<(String, bool), String> {
    let points = points(&command.vary);
    // Wrong options are found before the first run, not after an hour.
    for point in &points {
        request(command, point, 0)?;
    }
    let mut well = true;
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); points.len()];
    let started = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as usize % 1_000_000);
    for repetition in 0..command.repeat.max(1) {
        for (number, point) in points.iter().enumerate() {
            let serial = (started * 1000 + repetition * points.len() + number) % 1_000_000_000;
            let request = request(command, point, serial)?;
            let result = run::run(&request.options).map_err(|error| error.to_string())?;
            well &= report::is_well(&result, request.tolerate_errors);
            let mut value = report::json(&request.options, &result);
            value["point"] = point
                .iter()
                .map(|(option, value)| (option.clone(), json!(value)))
                .collect();
            eprintln!("{}", row(&point_text(point), &[&value]));
            runs[number].push(value);
        }
    }
    if command.json {
        let all: Vec<Value> = runs.into_iter().flatten().collect();
        return Ok((Value::Array(all).to_string(), well));
    }
    let mut table = header();
    for (point, runs) in points.iter().zip(&runs) {
        let runs: Vec<&Value> = runs.iter().collect();
        table.push('\n');
        table.push_str(&row(&point_text(point), &runs));
    }
    Ok((table, well))
}

fn point_text(point: &[(String, String)]) -> String {
    let words: Vec<String> = point
        .iter()
        .map(|(option, value)| format!("{option}={value}"))
        .collect();
    words.join(" ")
}

const COLUMNS: [(&str, &str); 8] = [
    ("records/s", "/records_per_s"),
    ("MB/s", "/mb_per_s"),
    ("requests/s", "/requests_per_s"),
    ("p50 us", "/latency_us/p50"),
    ("p99 us", "/latency_us/p99"),
    ("p99.9 us", "/latency_us/p999"),
    ("max us", "/latency_us/max"),
    ("errors", "/errors_total"),
];

fn header() -> String {
    COLUMNS
        .iter()
        .fold(format!("{:<40}", "point"), |mut line, (name, _)| {
            let _ = write!(line, " {name:>12}");
            line
        })
        + "  spread"
}

/// A line of medians, with the spread of records/s over the repetitions.
fn row(name: &str, runs: &[&Value]) -> String {
    let all = |path: &str| -> Vec<f64> {
        let mut values: Vec<f64> = runs
            .iter()
            .map(|run| {
                if run["produce"].is_null() {
                    &run["consume"]
                } else {
                    &run["produce"]
                }
            })
            .filter_map(|role| role.pointer(path).and_then(Value::as_f64))
            .collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let mut line = format!("{name:<40}");
    for (_, path) in COLUMNS {
        let values = all(path);
        let median = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
        let digits = usize::from(median < 1000.0 && path != "/errors_total");
        let _ = write!(line, " {median:>12.digits$}");
    }
    let rates = all("/records_per_s");
    if let (Some(low), Some(high), true) = (rates.first(), rates.last(), rates.len() > 1) {
        let _ = write!(line, "  {low:.0}..{high:.0}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_all_combinations_in_order() {
        let axes = [
            parse_axis("partitions=1,16").unwrap(),
            parse_axis("--acks=1,all").unwrap(),
        ];
        let names: Vec<String> = points(&axes)
            .iter()
            .map(|point| point_text(point))
            .collect();
        assert_eq!(
            names,
            [
                "partitions=1 acks=1",
                "partitions=1 acks=all",
                "partitions=16 acks=1",
                "partitions=16 acks=all"
            ]
        );
        assert!(parse_axis("partitions").is_err());
        assert!(parse_axis("partitions=1,,2").is_err());
    }

    #[test]
    fn a_wrong_option_is_found_before_the_first_run() {
        let command = SweepCommand {
            vary: vec![parse_axis("no-such-option=1").unwrap()],
            repeat: 1,
            json: false,
            run: vec!["produce".into()],
        };
        assert!(sweep(&command).unwrap_err().contains("no-such-option"));
    }

    #[test]
    fn a_row_shows_the_median_and_the_spread() {
        let run = |rate: f64| json!({"produce": {"records_per_s": rate, "errors_total": 0}});
        let runs = [run(10_000.0), run(30_000.0), run(20_000.0)];
        let line = row("x=1", &runs.iter().collect::<Vec<_>>());
        assert!(
            line.contains(" 20000 ") && line.ends_with("10000..30000"),
            "{line}"
        );
    }
}
