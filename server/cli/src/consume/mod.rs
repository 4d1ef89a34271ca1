//! `ringlog consume`: records out, a line each.

mod fetcher;
mod format;
mod reader;
mod records;

use std::io::{self, BufWriter, IsTerminal, Write};

use jiff::Timestamp;

use crate::client::{Client, Connect, Isolation};
use crate::failure::{Failure, Outcome};
use crate::output::{count, note};
use crate::place::Place;

use format::{Format, Shown};
use reader::Reader;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog consume logs                                   every record there is now
  ringlog consume logs --from end --follow               what comes from now on
  ringlog consume logs --from -15m --format '%d %k: %s'  the last quarter of an hour, with time and key
  ringlog consume logs --from 4711 --partition 3 --count 10
  ringlog consume logs --json | jq .value
  ringlog consume logs --json | ringlog produce copy --input json

Format: %s value, %k key, %h headers, %o offset, %p partition, %t topic, %T milliseconds since 1970,
%d time (RFC 3339), %S and %K bytes of value and key, %% a percent sign; \\n, \\t, \\r, \\0 and \\\\ as usual.";

/// Bytes collected before they are written.
const OUT_BYTES: usize = 64 << 10;

/// `ringlog consume`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArgs {
    /// Name of the topic.
    topic: String,
    /// Where to begin: beginning, end, an offset, a time (RFC 3339, @SECONDS) or a span before now such as -1h.
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    from: Place,
    /// Where to stop, given as for --from: before that record [default: where the log ends now].
    #[arg(
        long,
        value_name = "PLACE",
        allow_hyphen_values = true,
        conflicts_with = "follow"
    )]
    until: Option<Place>,
    /// Go on at the end, and wait for records to come.
    #[arg(long, short)]
    follow: bool,
    /// Stop after so many records.
    #[arg(long, short = 'n', value_name = "RECORDS")]
    count: Option<u64>,
    /// Read these partitions only, separated by commas.
    #[arg(long, short, value_name = "NUMBERS", value_delimiter = ',')]
    partition: Vec<i32>,
    /// Whose records are shown.
    #[arg(long, value_enum, default_value_t)]
    isolation: Isolation,
    /// How a record is shown; see below.
    #[arg(long, default_value = "%s", conflicts_with = "json")]
    format: Format,
    /// What follows each record.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "\\n",
        conflicts_with = "json"
    )]
    end: Format,
    /// What stands for a key or value that is absent.
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "json")]
    null: String,
    /// Print each record as a line of JSON; bytes that are no text come as base64, under key_base64 and value_base64.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Carries the command out.
pub(crate) fn run(args: &ConsumeArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    let topic = client.topic(&args.topic)?;
    let partitions = topic.choose(&args.partition)?;
    let now = Timestamp::now();
    let starts = args
        .from
        .starts(&mut client, &topic, &partitions, args.isolation, now)?;
    let ends = match (&args.until, args.follow) {
        (_, true) => None,
        (Some(until), _) => {
            Some(until.ends(&mut client, &topic, &partitions, args.isolation, now)?)
        }
        (None, _) => {
            Some(Place::End.ends(&mut client, &topic, &partitions, args.isolation, now)?)
        }
    };
    let shown = match args.json {
        true => Shown::Json,
        false => Shown::Text {
            format: args.format.clone(),
            end: args.end.clone(),
            null: args.null.clone().into_bytes(),
        },
    };
    let mut printer = Printer {
        out: BufWriter::with_capacity(OUT_BYTES, io::stdout()),
        topic: topic.name.clone(),
        shown,
        left: args.count.unwrap_or(u64::MAX),
        printed: 0,
    };
    if printer.left > 0 {
        let reader = Reader::new(client, topic, args.isolation, starts, ends);
        reader.read(args.follow, &mut printer)?;
    }
    printer.flush()?;
    if io::stderr().is_terminal() && !args.follow {
        note(&count(printer.printed, "record"));
    }
    Ok(())
}

/// Writes records until there are enough.
struct Printer {
    out: BufWriter<io::Stdout>,
    topic: String,
    shown: Shown,
    left: u64,
    printed: u64,
}

impl Printer {
    /// Writes one; false when it was the last.
    fn record(&mut self, record: &records::Fetched<'_>) -> Outcome<bool> {
        self.shown
            .write(&mut self.out, &self.topic, record)
            .map_err(|e| Failure::output(&e))?;
        self.printed += 1;
        self.left -= 1;
        Ok(self.left > 0)
    }

    fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(|e| Failure::output(&e))
    }
}
