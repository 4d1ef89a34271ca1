//! Every kind of plot is drawn, and its words stay in their places.

use super::bars::{halves, upright};
use super::scaling::{bytes, decade};
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
    let names =
        |count: usize| -> Vec<String> { (0..count).map(|n| format!("O_DIRECT + {n}")).collect() };
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
