//! Latency as a picture, both axes by powers of ten.

use std::path::Path;

use plotters::{
    prelude::{
        ChartBuilder, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, SVGBackend,
        SeriesLabelPosition,
    },
    style::{BLACK, Color, RGBColor, WHITE},
};

use crate::series::grouped;

const SIZE: (u32, u32) = (800, 480);
const FONT: (&str, u32) = ("sans-serif", 14);
/// Told apart by those who do not see red or green, too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(213, 94, 0),
];

/// A point of a line.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) line: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// Draws all lines that the points belong to; `axes` are the words beside them.
pub(crate) fn draw(path: &Path, axes: [&str; 2], points: &[Point]) {
    // In the order of the points: fifogate is the first one.
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for point in points {
        let place = lines.iter().position(|(name, _)| *name == point.line);
        let place = place.unwrap_or_else(|| {
            lines.push((&point.line, Vec::new()));
            lines.len() - 1
        });
        lines[place].1.push((point.x, point.y));
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let (x, y) = (span(points, |point| point.x), span(points, |point| point.y));
    // Room for the names of the lines, above them.
    let y = (y.0, y.1 * 10.0);
    let mut chart = ChartBuilder::on(&area)
        .margin(15)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(65)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(axes[0])
        .y_desc(axes[1])
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_label_formatter(&|value| grouped(*value))
        .y_label_formatter(&|value| grouped(*value))
        .draw()
        .unwrap();
    for ((name, line), colour) in lines.into_iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let series = LineSeries::new(line, style).point_size(3);
        chart
            .draw_series(series)
            .unwrap()
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .unwrap();
    area.present().unwrap();
}

/// From the power of ten below all values to the one above.
fn span(points: &[Point], pick: fn(&Point) -> f64) -> (f64, f64) {
    let values: Vec<_> = points.iter().map(pick).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()))
}
