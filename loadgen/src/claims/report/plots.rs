//! Pictures as SVG. Text and axes take the page's colour, so they are legible on light and dark.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::number;
use crate::claims::ClaimsError;
use crate::claims::outcome::{Axis, Mark, Plot, Series};
use crate::claims::stats::Estimate;

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
/// Further pixels below the axis for names that stand upright.
const UPRIGHT: u32 = 82;
/// Pixels between the axes of bars, and of a letter at most.
const BARS_WIDTH: usize = 296;
const LETTER: usize = 8;

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
        Plot::Bars { labels, series, .. } if upright(&measured(labels, series).0) => {
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

/// Values to places: logarithms where steps multiply.
#[derive(Clone, Copy)]
pub(super) struct Scaling {
    log: bool,
    bytes: bool,
}

impl Scaling {
    pub(super) fn of(axis: &Axis) -> Self {
        Self {
            log: axis.log,
            bytes: axis.bytes,
        }
    }

    pub(super) fn place(self, value: f64) -> f64 {
        match (self.log, self.bytes) {
            (true, true) => value.max(1.0).log2(),
            (true, false) => value.max(1e-9).log10(),
            _ => value,
        }
    }

    pub(super) fn label(self, place: f64) -> String {
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
    pub(super) fn range(self, values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
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

fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = ((value.log2() / 10.0).floor().max(0.0) as usize).min(units.len() - 1);
    format!("{:.0} {}", value / 1024f64.powi(step as i32), units[step])
}

fn decade(exponent: i32) -> String {
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

fn bars(svg: &mut String, labels: &[String], y: &Axis, series: &[Series]) -> Drawn {
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
    let style = font().pos(Pos::new(HPos::Center, VPos::Top));
    for (index, label) in labels.iter().enumerate() {
        if upright {
            let (x, y) = chart.backend_coord(&(index as f64, ry.0));
            // Turned text reads upwards and ends at the axis.
            let turned = font().transform(FontTransform::Rotate270);
            let style = turned.pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(label.clone(), (x, y + 6), style))?;
            continue;
        }
        // Long names take two lines, below the axis: the chart's own area clips.
        let (first, second) = halves(label, 48 / labels.len().max(1));
        let (x, y) = chart.backend_coord(&(index as f64, ry.0));
        for (line, words) in [first, second].into_iter().enumerate() {
            let place = (x, y + 6 + line as i32 * (FONT + 2));
            area.draw(&Text::new(words, place, style.clone()))?;
        }
    }
    area.present()?;
    drop(chart);
    Ok(true)
}

/// Whether a name does not fit below its bars, in two lines.
fn upright(labels: &[String]) -> bool {
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
fn halves(label: &str, width: usize) -> (String, String) {
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

fn heat(svg: &mut String, plot: &Plot) -> Drawn {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[(f64, f64)]) -> Vec<Series> {
        let marks = values.iter().map(|&(x, y)| Mark {
            x,
            y: Estimate {
                median: y,
                low: y * 0.9,
                high: y * 1.1,
                n: 3,
            },
        });
        vec![Series {
            name: "a <b>".into(),
            marks: marks.collect(),
        }]
    }

    #[test]
    fn every_kind_of_plot_is_drawn_and_takes_the_pages_colour() {
        let heat = Plot::Heat {
            title: "t".into(),
            x_label: "x".into(),
            columns: vec!["1".into(), "2".into()],
            y_label: "y".into(),
            rows: vec!["a".into()],
            unit: "times".into(),
            cells: vec![vec![Some(12.5), None]],
        };
        let lines = Plot::Lines {
            title: "t".into(),
            x: Axis::bytes("block"),
            y: Axis::log("MB/s"),
            series: series(&[(4096.0, 10.0), (65536.0, 1000.0)]),
        };
        let bars = Plot::Bars {
            title: "t".into(),
            labels: vec![
                "one".into(),
                "a very long label of a group of bars, longer than its place".into(),
            ],
            y: Axis::linear("s"),
            series: series(&[(0.0, 1.0), (1.0, 3.0)]),
        };
        for (plot, text) in [(heat, "12.5"), (lines, "64 KiB"), (bars, "one")] {
            let picture = draw(&plot).unwrap().unwrap();
            assert!(
                picture.svg.contains("currentColor") && picture.svg.contains(text),
                "{}",
                picture.svg
            );
            assert!(!picture.svg.contains("#010203"));
            assert!(
                picture.svg.starts_with("<svg role=\"img\""),
                "{}",
                &picture.svg[..80]
            );
        }
    }

    #[test]
    fn names_of_many_groups_stand_upright() {
        let names = |count: usize| -> Vec<String> {
            (0..count).map(|n| format!("O_DIRECT + {n}")).collect()
        };
        assert!(upright(&names(9)) && !upright(&names(3)));
        assert!(!upright(
            &["lz4", "zstd", "none", "gzip", "snappy"].map(String::from)
        ));
        let marks: Vec<(f64, f64)> = (0..9).map(|n| (f64::from(n), 1.0)).collect();
        let plot = Plot::Bars {
            title: "t".into(),
            labels: names(9),
            y: Axis::linear("s"),
            series: series(&marks),
        };
        let picture = draw(&plot).unwrap().unwrap();
        assert!(
            picture.svg.contains("rotate(270") && picture.svg.contains("O_DIRECT + 8"),
            "{}",
            picture.svg
        );
        assert!(picture.svg.starts_with("<svg role=\"img\""));
    }

    #[test]
    fn nothing_measured_is_no_picture() {
        let plot = Plot::Lines {
            title: "t".into(),
            x: Axis::linear("x"),
            y: Axis::log("y"),
            series: Vec::new(),
        };
        assert!(draw(&plot).unwrap().is_none());
    }

    #[test]
    fn places_have_names() {
        assert_eq!(
            (bytes(4096.0), bytes(1.0), bytes(2.0f64.powi(30))),
            ("4 KiB".into(), "1 B".into(), "1 GiB".into())
        );
        assert_eq!(
            (decade(0), decade(2), decade(5), decade(-1)),
            ("1".into(), "100".into(), "100k".into(), "0.10".into())
        );
        assert_eq!(
            halves("page cache, cold", 10),
            ("page cache,".into(), "cold".into())
        );
    }
}
