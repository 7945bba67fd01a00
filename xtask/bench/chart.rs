//! A table as bars: a group for each column, a colour for each row, a line from the least to the most.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use crate::summary::Summary;

const SIZE: (u32, u32) = (960, 420);
/// How much wider than the bars the chart is: the names of the rows stand beside them.
const LEGEND: f64 = 1.3;
const FONT: (&str, u32) = ("sans-serif", 14);

/// A table's content.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) rows: &'a [&'a str],
    pub(crate) columns: &'a [String],
    /// By row and column.
    pub(crate) cells: Vec<(usize, usize, Summary)>,
}

impl Chart<'_> {
    /// As a file of the measurement's name in a folder.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> Result<()> {
        let file = dir.join(name).with_extension("svg");
        fs::write(&file, self.draw()?).with_context(|| format!("writing {}", file.display()))
    }

    /// As an SVG document.
    fn draw(&self) -> Result<String> {
        let mut text = String::new();
        self.draw_on(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    fn draw_on(&self, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<()> {
        area.fill(&WHITE)?;
        let most = self.cells.iter().map(|(.., rate)| rate.most).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, FONT)
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..self.group() * self.columns.len() as f64 * LEGEND, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .max_light_lines(0)
            .y_desc(self.unit)
            .label_style(FONT)
            .draw()?;
        for (place, row) in self.rows.iter().enumerate() {
            let colour = Palette99::pick(place).to_rgba();
            chart
                .draw_series(
                    self.cells.iter().filter(|cell| cell.0 == place).map(|cell| self.bar(cell, colour)),
                )?
                .label(*row)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        chart.draw_series(self.cells.iter().map(|(row, column, rate)| {
            let middle = self.left(*row, *column) + 0.45;
            PathElement::new([(middle, rate.least), (middle, rate.most)], BLACK)
        }))?;
        chart.draw_series(self.columns.iter().enumerate().map(|(place, name)| {
            EmptyElement::at((self.group() * place as f64, 0.0)) + Text::new(name.clone(), (4, 8), FONT)
        }))?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font(FONT)
            .draw()?;
        area.present()?;
        Ok(())
    }

    /// Width of a column's group, in bars: with a gap.
    fn group(&self) -> f64 {
        self.rows.len() as f64 + 1.0
    }

    fn left(&self, row: usize, column: usize) -> f64 {
        self.group() * column as f64 + row as f64
    }

    fn bar(&self, (row, column, rate): &(usize, usize, Summary), colour: RGBAColor) -> Rectangle<(f64, f64)> {
        let left = self.left(*row, *column);
        Rectangle::new([(left, 0.0), (left + 0.9, rate.median)], colour.filled())
    }
}
