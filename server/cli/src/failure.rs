//! What a command says when it cannot do what it was asked: one line, with a remedy, and an exit status.

use std::fmt;
use std::io;

use ringlog_load::protocol::ControlError;

/// Exit status of a command that failed.
pub(crate) const FAILED: u8 = 1;
/// Exit status of a command that could not begin: a wrong argument, a directory that cannot be looked at.
pub(crate) const UNUSABLE: u8 = 2;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    remedy: Option<String>,
    status: u8,
    quiet: bool,
}

/// What most functions here return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure told in one line.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: None,
            status: FAILED,
            quiet: false,
        }
    }

    /// An argument or a place that does not serve.
    pub(crate) fn unusable(what: impl Into<String>) -> Self {
        Self {
            status: UNUSABLE,
            ..Self::new(what)
        }
    }

    /// A failure whose reason was told already, in the command's output.
    pub(crate) fn told() -> Self {
        Self {
            quiet: true,
            ..Self::new("")
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds something to know besides.
    #[must_use]
    pub(crate) fn also(mut self, what: &str) -> Self {
        self.remedy = Some(match self.remedy {
            Some(remedy) => format!("{remedy}; {what}"),
            None => what.to_owned(),
        });
        self
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// Whether there is nothing left to say.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Puts what was being done before what went wrong.
    #[must_use]
    pub(crate) fn doing(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    /// Whoever read standard output has gone (`| head`): no reason to say anything, nor to fail.
    pub(crate) fn output(error: &io::Error) -> Self {
        let gone = error.kind() == io::ErrorKind::BrokenPipe;
        Self {
            quiet: gone,
            status: if gone { 0 } else { FAILED },
            ..Self::new(format!("standard output: {error}"))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::Io { address, source } => io_failure(address, source),
            ControlError::Refused {
                code,
                name,
                what,
                message,
            } => refused(what, *code, name, message),
            _ => Self::new(error.to_string()),
        }
    }
}

fn io_failure(address: &str, source: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match source.kind() {
        Kind::ConnectionRefused => Failure::new(format!("no broker listens at {address}"))
            .remedy("start one, or name another with --bootstrap HOST:PORT or RINGLOG_BOOTSTRAP"),
        Kind::WouldBlock | Kind::TimedOut => {
            Failure::new(format!("{address} does not answer in time"))
                .remedy("is it a Kafka-protocol broker? --timeout SECONDS waits longer")
        }
        Kind::UnexpectedEof | Kind::ConnectionReset => {
            Failure::new(format!("{address} closed the connection"))
                .remedy("is it a Kafka-protocol broker, without TLS and SASL, and still running?")
        }
        Kind::InvalidInput => Failure::unusable(format!("{address:?} is no address of a broker"))
            .remedy("HOST:PORT is wanted"),
        Kind::InvalidData => Failure::new(format!("{address}: {source}"))
            .remedy("is it a Kafka-protocol broker, without TLS?"),
        _ => Failure::new(format!("{address}: {source}")),
    }
}

/// What Kafka's error codes ask of a person.
fn refused(what: &str, code: i16, name: &str, message: &str) -> Failure {
    let failure = Failure::new(format!("{what}: {name}{message}"));
    match code {
        3 => failure.remedy("`ringlog topic list` shows the topics there are"),
        5 | 6 | 14 | 15 | 16 => failure.remedy("the broker is not ready for it yet: try again"),
        10 => failure.remedy("raise max.message.bytes with `ringlog topic alter TOPIC --config …`"),
        29 | 30 | 31 | 58 => failure.remedy("the broker does not let this client do it"),
        56 => failure.remedy("the broker's disk is full or failing: see its log"),
        68 => failure.remedy("stop its members first"),
        69 => failure.remedy("`ringlog group list` shows the groups there are"),
        _ => failure,
    }
}

/// Does the same to several things; the first failure decides the exit status, the others are told.
pub(crate) fn each<'a>(
    names: impl IntoIterator<Item = &'a String>,
    mut act: impl FnMut(&'a String) -> Outcome,
) -> Outcome {
    let mut failed: Option<Failure> = None;
    for name in names {
        let Err(failure) = act(name) else { continue };
        if let Some(before) = failed.replace(failure) {
            crate::complain(&before);
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_remedy() {
        let failure = Failure::from(ControlError::refused("topic t", 3, Some("no such topic")));
        assert_eq!(
            failure.to_string(),
            "topic t: UNKNOWN_TOPIC_OR_PARTITION: no such topic; `ringlog topic list` shows the topics there are"
        );
        assert_eq!(failure.status(), FAILED);
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_well() {
        let failure = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert!(failure.is_quiet());
        assert_eq!(failure.status(), 0);
        let failure = Failure::output(&io::Error::from_raw_os_error(28));
        assert!(!failure.is_quiet());
        assert_eq!(failure.status(), FAILED);
    }
}
