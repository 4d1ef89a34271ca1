//! Where values stand on an axis, and what is written there.

use crate::claims::outcome::Axis;
use crate::claims::report::number;

/// Values to places: logarithms where steps multiply.
#[derive(Clone, Copy)]
pub(in crate::claims::report) struct Scaling {
    log: bool,
    bytes: bool,
}

impl Scaling {
    pub(in crate::claims::report) fn of(axis: &Axis) -> Self {
        Self {
            log: axis.log,
            bytes: axis.bytes,
        }
    }

    pub(in crate::claims::report) fn place(self, value: f64) -> f64 {
        match (self.log, self.bytes) {
            (true, true) => value.max(1.0).log2(),
            (true, false) => value.max(1e-9).log10(),
            _ => value,
        }
    }

    pub(in crate::claims::report) fn label(self, place: f64) -> String {
        if !self.log {
            // Long numbers would reach into the axis' name.
            return match place {
                place if place >= 1e6 => format!("{}M", place / 1e6),
                place if place >= 1e4 => format!("{}k", place / 1e3),
                place => number(place).trim_end_matches(".00").to_owned(),
            };
        }
        if (place - place.round()).abs() > 0.01 {
            return String::new();
        }
        match self.bytes {
            true => bytes(place.round().exp2()),
            false => decade(place.round() as i32),
        }
    }

    /// From the smallest to the largest place of `values`, with room.
    pub(in crate::claims::report) fn range(
        self,
        values: impl Iterator<Item = f64> + Clone,
    ) -> Option<(f64, f64)> {
        let places = || {
            values
                .clone()
                .filter(|v| v.is_finite() && (!self.log || *v > 0.0))
        };
        let low = places().fold(f64::INFINITY, f64::min);
        let high = places().fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return None;
        }
        if !self.log {
            return Some((low.min(0.0), if high > 0.0 { high * 1.08 } else { 1.0 }));
        }
        let (low, high) = (self.place(low), self.place(high));
        if self.bytes {
            return Some((low - 0.5, high + 0.5));
        }
        Some((low.floor(), high.ceil().max(low.floor() + 1.0)))
    }
}

pub(super) fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = ((value.log2() / 10.0).floor().max(0.0) as usize).min(units.len() - 1);
    format!("{:.0} {}", value / 1024f64.powi(step as i32), units[step])
}

pub(super) fn decade(exponent: i32) -> String {
    match exponent {
        -3..=3 => number(10f64.powi(exponent))
            .trim_end_matches(".00")
            .trim_end_matches(".0")
            .to_owned(),
        4..=5 => format!("{}k", 10i32.pow(exponent as u32 - 3)),
        6..=8 => format!("{}M", 10i32.pow(exponent as u32 - 6)),
        _ => format!("1e{exponent}"),
    }
}
