//! Bars in groups, and what the groups are called.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::claims::outcome::{Axis, Mark, Series};

use super::scaling::Scaling;
use super::{Area, Chart, Drawn, FONT, SIZE, TEXT, chart, colour, extremes, font, steps, whisker};

/// Further pixels below the axis for names that stand upright.
pub(super) const UPRIGHT: u32 = 82;
/// Pixels between the axes of bars, and of a letter at most.
const BARS_WIDTH: usize = 296;
const LETTER: usize = 8;

/// Bars with error bars, one group for each label.
pub(super) fn bars(svg: &mut String, labels: &[String], y: &Axis, series: &[Series]) -> Drawn {
    let sy = Scaling::of(y);
    let (labels, series) = measured(labels, series);
    let Some(mut ry) = sy.range(extremes(&series)) else {
        return Ok(false);
    };
    if !y.log {
        ry.0 = 0.0;
    }
    let upright = upright(&labels);
    let more = if upright { UPRIGHT } else { 0 };
    let area = SVGBackend::with_string(svg, (SIZE.0, SIZE.1 + more)).into_drawing_area();
    let mut chart = chart(&area, (-0.5, labels.len() as f64 - 0.5), ry, 48 + more)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(steps(ry, y.log))
        .y_label_formatter(&|place| sy.label(*place))
        .y_desc(y.label.as_str())
        .label_style(font())
        .axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.15))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for (index, series) in series.iter().enumerate() {
        let colour = colour(index);
        for mark in &series.marks {
            let left = mark.x - 0.4 + width * index as f64;
            let corners = [(left, ry.0), (left + width * 0.92, sy.place(mark.y.median))];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            whisker(&mut chart, left + width * 0.46, &mark.y, sy, TEXT)?;
        }
    }
    names(&area, &chart, &labels, ry.0)?;
    area.present()?;
    drop(chart);
    Ok(true)
}

/// The groups' names below the axis, which is at `floor`.
fn names(
    area: &Area<'_>,
    chart: &Chart<'_, '_>,
    labels: &[String],
    floor: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let upright = upright(labels);
    let style = font().pos(Pos::new(HPos::Center, VPos::Top));
    for (index, label) in labels.iter().enumerate() {
        if upright {
            let (x, y) = chart.backend_coord(&(index as f64, floor));
            // Turned text reads upwards and ends at the axis.
            let turned = font().transform(FontTransform::Rotate270);
            let style = turned.pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(label.clone(), (x, y + 6), style))?;
            continue;
        }
        // Long names take two lines, below the axis: the chart's own area clips.
        let (first, second) = halves(label, 48 / labels.len().max(1));
        let (x, y) = chart.backend_coord(&(index as f64, floor));
        for (line, words) in [first, second].into_iter().enumerate() {
            let place = (x, y + 6 + line as i32 * (FONT + 2));
            area.draw(&Text::new(words, place, style.clone()))?;
        }
    }
    Ok(())
}

/// Whether the names of the groups that have a bar stand upright.
pub(super) fn stands_upright(labels: &[String], series: &[Series]) -> bool {
    upright(&measured(labels, series).0)
}

/// Whether a name does not fit below its bars, in two lines.
pub(super) fn upright(labels: &[String]) -> bool {
    let place = BARS_WIDTH / labels.len().max(1) / LETTER;
    let too_long = |label: &String| {
        let (first, second) = halves(label, 48 / labels.len().max(1));
        first.chars().count().max(second.chars().count()) > place
    };
    labels.len() > 3 && labels.iter().any(too_long)
}

/// The labels that have a bar, and the bars at their new places: a thinned run leaves groups out.
fn measured(labels: &[String], series: &[Series]) -> (Vec<String>, Vec<Series>) {
    let has_bar = |index: usize| {
        let mut marks = series.iter().flat_map(|series| &series.marks);
        marks.any(|mark| mark.x as usize == index)
    };
    let kept: Vec<usize> = (0..labels.len()).filter(|&index| has_bar(index)).collect();
    let place = |x: f64| kept.iter().position(|&index| index == x as usize);
    let moved = series.iter().map(|series| Series {
        name: series.name.clone(),
        marks: series
            .marks
            .iter()
            .filter_map(|mark| {
                Some(Mark {
                    x: place(mark.x)? as f64,
                    y: mark.y,
                })
            })
            .collect(),
    });
    let names = kept.iter().map(|&index| labels[index].clone());
    (names.collect(), moved.collect())
}

/// A label in two lines, broken at the space nearest to its middle if it is longer than `width` characters.
pub(super) fn halves(label: &str, width: usize) -> (String, String) {
    if label.chars().count() <= width {
        return (label.to_owned(), String::new());
    }
    let middle = label.len() / 2;
    let space = label
        .match_indices(' ')
        .min_by_key(|(at, _)| at.abs_diff(middle));
    match space {
        Some((at, _)) => (label[..at].to_owned(), label[at + 1..].to_owned()),
        None => (label.to_owned(), String::new()),
    }
}
