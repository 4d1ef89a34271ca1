//! A table of colours with the number in each cell; colours by logarithm.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::claims::outcome::Plot;
use crate::claims::report::number;

use super::{Drawn, SIZE, TEXT, font};

/// A table of colours, each cell with its number.
pub(super) fn heat(svg: &mut String, plot: &Plot) -> Drawn {
    let Plot::Heat {
        x_label,
        columns,
        y_label,
        rows,
        unit,
        cells,
        ..
    } = plot
    else {
        return Ok(false);
    };
    let values = || {
        cells
            .iter()
            .flatten()
            .flatten()
            .copied()
            .filter(|v| *v > 0.0)
    };
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if values().next().is_none() {
        return Ok(false);
    }
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (left, top, bottom) = (66, 8, 44);
    let width = (SIZE.0 as i32 - left - 12) / columns.len().max(1) as i32;
    let height = (SIZE.1 as i32 - top - bottom) / rows.len().max(1) as i32;
    let centred = font().pos(Pos::new(HPos::Center, VPos::Center));
    for (row, name) in rows.iter().enumerate() {
        let y = top + height * row as i32;
        let style = font().pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(name.clone(), (left - 6, y + height / 2), style))?;
        for column in 0..columns.len() {
            let x = left + width * column as i32;
            let corners = [(x + 1, y + 1), (x + width - 1, y + height - 1)];
            let value = cells.get(row).and_then(|cells| *cells.get(column)?);
            let Some(value) = value.filter(|value| *value > 0.0) else {
                area.draw(&Rectangle::new(corners, TEXT.mix(0.12)))?;
                continue;
            };
            let fill = warmth(value, high);
            area.draw(&Rectangle::new(corners, fill.filled()))?;
            let dark =
                f64::from(fill.0) * 0.3 + f64::from(fill.1) * 0.6 + f64::from(fill.2) * 0.1 < 130.0;
            let ink = if dark { WHITE } else { BLACK };
            let place = (x + width / 2, y + height / 2);
            area.draw(&Text::new(number(value), place, centred.color(&ink)))?;
        }
    }
    let base = top + height * rows.len() as i32;
    for (column, name) in columns.iter().enumerate() {
        let x = left + width * column as i32 + width / 2;
        area.draw(&Text::new(name.clone(), (x, base + 10), centred.clone()))?;
    }
    let across = format!("{x_label} · rows: {y_label} · {unit}");
    area.draw(&Text::new(
        across,
        (left + (SIZE.0 as i32 - left) / 2, base + 30),
        centred,
    ))?;
    area.present()?;
    Ok(true)
}

/// Pale at 1 and below, deep red at the highest value, by logarithm; bluish below 1.
fn warmth(value: f64, high: f64) -> RGBColor {
    let mix = |from: (f64, f64, f64), to: (f64, f64, f64), share: f64| {
        let one = |a: f64, b: f64| (a + (b - a) * share) as u8;
        RGBColor(one(from.0, to.0), one(from.1, to.1), one(from.2, to.2))
    };
    let pale = (250.0, 240.0, 220.0);
    if value < 1.0 {
        let share = (-value.log2()).clamp(0.0, 1.0);
        return mix(pale, (120.0, 170.0, 220.0), share);
    }
    let share = value.ln() / high.max(10.0).ln();
    mix(pale, (165.0, 20.0, 30.0), share.clamp(0.0, 1.0))
}
