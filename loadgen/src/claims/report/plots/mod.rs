//! Pictures as SVG. Text and axes take the page's colour, so they are legible on light and dark.

mod bars;
mod heat;
mod scaling;

#[cfg(test)]
mod tests;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::claims::ClaimsError;
use crate::claims::outcome::{Axis, Mark, Plot, Series};
use crate::claims::stats::Estimate;

use bars::{UPRIGHT, bars, stands_upright};
use heat::heat;
pub(super) use scaling::Scaling;

/// Drawn in place of the page's text colour, which an SVG library cannot know.
const TEXT: RGBColor = RGBColor(1, 2, 3);
/// Legible on white and on near-black, and told apart by people who see few colours.
const COLOURS: [RGBColor; 8] = [
    RGBColor(47, 128, 204),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(200, 140, 0),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
    RGBColor(160, 90, 200),
];
/// Small enough for a phone without scaling text below what can be read.
const SIZE: (u32, u32) = (380, 270);
const FONT: i32 = 13;

/// A picture for the page.
#[derive(Debug, serde::Serialize)]
pub(super) struct Picture {
    pub(super) title: String,
    pub(super) svg: String,
    /// Name and colour.
    pub(super) legend: Vec<(String, String)>,
}

/// Draws a plot; `None` when it has no marks.
pub(super) fn draw(plot: &Plot) -> Result<Option<Picture>, ClaimsError> {
    let mut svg = String::new();
    let result = match plot {
        Plot::Lines { x, y, series, .. } => lines(&mut svg, x, y, series),
        Plot::Bars {
            labels, y, series, ..
        } => bars(&mut svg, labels, y, series),
        Plot::Heat { .. } => heat(&mut svg, plot),
    };
    if !result.map_err(|error| ClaimsError::Report(error.to_string()))? {
        return Ok(None);
    }
    let (title, series): (&String, &[Series]) = match plot {
        Plot::Lines { title, series, .. } | Plot::Bars { title, series, .. } => (title, series),
        Plot::Heat { title, .. } => (title, &[]),
    };
    let legend = series.iter().enumerate().map(|(index, series)| {
        let RGBColor(r, g, b) = colour(index);
        (series.name.clone(), format!("#{r:02x}{g:02x}{b:02x}"))
    });
    Ok(Some(Picture {
        title: title.clone(),
        svg: scalable(&svg, size(plot)),
        legend: legend.collect(),
    }))
}

/// Pixels of a plot: names of groups that stand upright need more.
fn size(plot: &Plot) -> (u32, u32) {
    match plot {
        Plot::Bars { labels, series, .. } if stands_upright(labels, series) => {
            (SIZE.0, SIZE.1 + UPRIGHT)
        }
        _ => SIZE,
    }
}

/// Lets the page set size and text colour.
fn scalable(svg: &str, (width, height): (u32, u32)) -> String {
    svg.replace("#010203", "currentColor").replacen(
        &format!("width=\"{width}\" height=\"{height}\""),
        "role=\"img\"",
        1,
    )
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

type Drawn = Result<bool, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn font() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&TEXT)
}

fn extremes(series: &[Series]) -> impl Iterator<Item = f64> + Clone + '_ {
    let marks = series.iter().flat_map(|series| &series.marks);
    marks.flat_map(|mark| [mark.y.low, mark.y.median, mark.y.high])
}

fn chart<'a, 'b>(
    area: &'a Area<'b>,
    x: (f64, f64),
    y: (f64, f64),
    bottom: u32,
) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    Ok(ChartBuilder::on(area)
        .margin(8)
        .margin_right(18)
        .x_label_area_size(bottom)
        .y_label_area_size(58)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)?)
}

/// How many labels give steps of whole powers.
fn steps(range: (f64, f64), log: bool) -> usize {
    if !log {
        return 6;
    }
    ((range.1 - range.0).round() as usize + 1).clamp(2, 12)
}

fn lines(svg: &mut String, x: &Axis, y: &Axis, series: &[Series]) -> Drawn {
    let (sx, sy) = (Scaling::of(x), Scaling::of(y));
    let places = series
        .iter()
        .flat_map(|s| s.marks.iter().map(|mark| mark.x));
    let (Some(rx), Some(ry)) = (sx.range(places), sy.range(extremes(series))) else {
        return Ok(false);
    };
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = chart(&area, rx, ry, 44)?;
    chart
        .configure_mesh()
        .x_labels(if x.log { steps(rx, true).min(6) } else { 5 })
        .y_labels(steps(ry, y.log))
        .x_label_formatter(&|place| sx.label(*place))
        .y_label_formatter(&|place| sy.label(*place))
        .x_desc(x.label.as_str())
        .y_desc(y.label.as_str())
        .label_style(font())
        .axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.15))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, series) in series.iter().enumerate() {
        let colour = colour(index);
        let at = |mark: &Mark| (sx.place(mark.x), sy.place(mark.y.median));
        let path: Vec<(f64, f64)> = series.marks.iter().map(at).collect();
        chart.draw_series([PathElement::new(path.clone(), colour.stroke_width(2))])?;
        chart.draw_series(
            path.iter()
                .map(|&place| Circle::new(place, 3, colour.filled())),
        )?;
        for mark in &series.marks {
            whisker(&mut chart, sx.place(mark.x), &mark.y, sy, colour)?;
        }
    }
    area.present()?;
    drop(chart);
    Ok(true)
}

/// The interval of a mark.
fn whisker(
    chart: &mut Chart<'_, '_>,
    x: f64,
    y: &Estimate,
    scaling: Scaling,
    colour: RGBColor,
) -> Result<(), Box<dyn std::error::Error>> {
    if y.high > y.low {
        let (low, high) = (scaling.place(y.low), scaling.place(y.high));
        let line = PathElement::new(vec![(x, low), (x, high)], colour.stroke_width(1));
        chart.draw_series([line])?;
        for end in [low, high] {
            let cap = EmptyElement::at((x, end)) + PathElement::new(vec![(-4, 0), (4, 0)], colour);
            chart.draw_series([cap])?;
        }
    }
    Ok(())
}
