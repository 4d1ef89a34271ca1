//! C12: what acks 0, 1 and all cost, and what each loses when the server is killed.

use std::time::Duration;

use ringlog_benches::claims::Figures;

use super::whole::{Whole, WholeRig, compare, conclude, of, times};
use crate::check::check;
use crate::claims::PointError;
use crate::claims::broker::Broker;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Side};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::stats::Estimate;
use crate::claims::verdict::{Expect, Verdict};

const ACKS: [&str; 3] = ["0", "1", "all"];
/// The number that tells speed from loss in a point.
const SPEED: u64 = 0;
const LOSS: u64 = 1;
const LOST: &str = "lost_per_million";

pub(super) struct C12;

impl Claim for C12 {
    fn id(&self) -> &'static str {
        "C12"
    }

    fn sentence(&self) -> &'static str {
        "acks 0, 1 and -1 trade loss for speed"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for acks in ACKS {
            let load = format!(
                "produce -t {{topic}} -p 4 --delete-topics -s 1024 --batch-records 1 --connections 16 --in-flight 4 \
                 --acks {acks} {{time}}"
            );
            points.push(Whole::new(acks, SPEED, "", load).point(u32::from(acks == "1"), scale));
        }
        for acks in ACKS {
            let load = format!(
                "produce -t {{topic}} -p 4 -s 1024 --batch-records 4 --connections 8 --in-flight 4 --acks {acks} --warmup 0 \
                 --duration 1.5 --tolerate-errors"
            );
            let mut point = Whole::new(acks, LOSS, "", load).point(u32::from(acks == "1"), scale);
            point.seconds = scale.pick(2.0, 2.6, 3.0);
            points.push(point);
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: scale.pick(2 << 30, 6 << 30, 12 << 30),
            setup_s: scale.pick(0.5, 1.0, 1.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 26.0, 200.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(AcksRig {
            lab,
            whole: WholeRig::new(lab, self.id())?,
            crashes: 0,
        }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

struct AcksRig<'a> {
    lab: &'a Lab,
    whole: WholeRig<'a>,
    crashes: u32,
}

impl Rig for AcksRig<'_> {
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError> {
        let setting: Whole = point.typed()?;
        if setting.x == SPEED {
            return self.whole.measure(point, repetition);
        }
        self.crashes += 1;
        crash(self.lab, &setting, self.crashes)
    }

    fn pids(&self) -> Vec<u32> {
        self.whole.pids()
    }
}

/// Kills a server under load, starts it again, and counts what is gone.
fn crash(lab: &Lab, setting: &Whole, number: u32) -> Result<Figures, PointError> {
    let mut broker = Broker::start(lab, &format!("crash-{number}"), &setting.server)?;
    let log = lab.scratch.path().join(format!("acks-{number}"));
    let mut line = setting.load.replace("{topic}", "crash");
    let acked = setting.side != "0";
    if acked {
        line = format!("{line} --ack-log {}", log.display());
    }
    // Not the same moment every time: between two commits, in the middle of one, during a destage.
    let delay = Duration::from_millis(700 + u64::from(number) * 37 % 400);
    let pid = broker.pid();
    let sent = std::thread::scope(|scope| {
        let load = scope.spawn(|| broker.load_until_killed(&line));
        std::thread::sleep(delay);
        let killed = rustix::process::Pid::from_raw(pid as i32)
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        let sent = load.join();
        match (killed, sent) {
            (Some(Ok(())), Ok(sent)) => sent,
            _ => Err(PointError::Failed(
                "the server could not be killed under load".into(),
            )),
        }
    })?;
    broker.kill();
    broker.restart(lab, &setting.server)?;
    let (wanted, lost) = match acked {
        true => {
            let found = check(&log, Some(broker.bootstrap()))
                .map_err(|error| PointError::Failed(error.to_string()))?;
            (found.acked, found.acked_lost)
        }
        false => {
            let sent = sent.produce.map_or(0, |role| role.total.records);
            let read = broker.load("consume -t crash --until end --duration 60")?;
            let read = read.consume.map_or(0, |role| role.total.records);
            (sent, sent.saturating_sub(read))
        }
    };
    if acked {
        let _ = std::fs::remove_file(&log);
    }
    if wanted == 0 {
        return Err(PointError::Failed(
            "nothing was sent before the crash".into(),
        ));
    }
    Ok(Figures::from([
        (LOST.into(), lost as f64 * 1e6 / wanted as f64),
        ("records".into(), wanted as f64),
        ("lost".into(), lost as f64),
    ]))
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    findings.extend(compare(
        measurements,
        "is no ack faster than an ack by all? single records of 1 KiB, 64 under way",
        ("0", SPEED, "acks=0"),
        ("all", SPEED, "acks=all"),
        ("records_per_s", "records/s"),
        Expect::More,
    ));
    findings.extend(loss(measurements));
    let lost = |acks| {
        let estimate = of(measurements, acks, LOSS).and_then(|m| m.figures.get(LOST).copied());
        estimate.map_or_else(
            || "an unknown number".into(),
            |e| crate::claims::report_number(e.median),
        )
    };
    let why = format!(
        "acks=0 takes {} times the records of acks=all; after kill -9 under load, of a million records sent it had lost {}, \
         acks=all {} of a million acknowledged",
        times(findings.first()),
        lost("0"),
        lost("all")
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.notes.push(
        "With one node acks=1 and acks=all are the same promise: both wait for the flush. Power loss is not simulated: a kill \
         leaves the page cache alone, so what it shows of a missing flush is nothing. Records sent count as they leave the client."
            .into(),
    );
    conclusion.plots.push(Plot::Bars {
        title: "Records a second by acks".into(),
        labels: ACKS.map(|acks| format!("acks={acks}")).to_vec(),
        y: Axis::linear("records/s"),
        series: vec![Series {
            name: "one record of 1 KiB a request".into(),
            marks: ACKS
                .iter()
                .enumerate()
                .filter_map(|(index, acks)| {
                    let y = *of(measurements, acks, SPEED)?
                        .figures
                        .get("records_per_s")?;
                    Some(Mark { x: index as f64, y })
                })
                .collect(),
        }],
    });
    conclusion
}

/// Loss has no ratio: nothing may be lost on one side, and something must be on the other.
fn loss(measurements: &[Measurement]) -> Option<Finding> {
    let (none, all) = (of(measurements, "0", LOSS)?, of(measurements, "all", LOSS)?);
    let side = |name: &str, measurement: &Measurement| Side {
        name: name.into(),
        value: measurement.figures.get(LOST).copied(),
        unit: "lost of a million".into(),
    };
    let enough = |m: &Measurement| m.figures.get(LOST).copied().filter(|e: &Estimate| e.n >= 3);
    let worst = all.values(LOST).into_iter().fold(0.0, f64::max);
    let verdict = match (enough(none), enough(all)) {
        // A single record lost after an acknowledgement is one too many, however rare.
        (_, Some(_)) if worst > 0.0 => Verdict::DoesNotHold,
        (Some(none), Some(_)) if none.low > 0.0 => Verdict::Holds,
        _ => Verdict::Undecided,
    };
    Some(Finding {
        question: "kill -9 under load: does acks=0 lose records, and acks=all none?".into(),
        above: side("acks=0, of those sent", none),
        below: side("acks=all, of those acknowledged", all),
        ratio: None,
        expect: Expect::More,
        verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;

    fn verdict(speed: [f64; 3], lost: [f64; 3], lost_with_acks: [f64; 3]) -> Verdict {
        let all = [
            measurement(&Whole::new("0", SPEED, "", ""), "records_per_s", &speed),
            measurement(
                &Whole::new("all", SPEED, "", ""),
                "records_per_s",
                &[100.0; 3],
            ),
            measurement(&Whole::new("0", LOSS, "", ""), LOST, &lost),
            measurement(&Whole::new("all", LOSS, "", ""), LOST, &lost_with_acks),
        ];
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        let fast = [500.0, 510.0, 520.0];
        assert_eq!(verdict(fast, [30.0, 20.0, 50.0], [0.0; 3]), Verdict::Holds);
        assert_eq!(
            verdict(fast, [30.0, 20.0, 50.0], [0.0, 0.0, 1.0]),
            Verdict::DoesNotHold
        );
        assert_eq!(
            verdict(fast, [30.0, 0.0, 50.0], [0.0; 3]),
            Verdict::Undecided
        );
        assert_eq!(
            verdict([100.0; 3], [30.0, 20.0, 50.0], [0.0; 3]),
            Verdict::DoesNotHold
        );
        assert_eq!(
            verdict([90.0, 300.0, 100.0], [30.0, 20.0, 50.0], [0.0; 3]),
            Verdict::Undecided
        );
    }
}
