//! Reports as one page of HTML: a table, and plots as SVG. It needs nothing from elsewhere, and has no script.
//!
//! Works on the JSON form of the reports.

use std::fmt::{self, Write};
use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, RGBColor, SVGBackend, WHITE,
};
use serde_json::Value;

use super::runs::{ROWS, Run};
use crate::load::judge::Micros;

/// Colours that people with any colour vision can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
/// The size of a plot, in pixels.
const SIZE: (u32, u32) = (880, 320);

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}body{max-width:56rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}td,th{padding:.15rem .8rem;text-align:right;\
border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto;background:#fff;\
border-radius:6px}i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}figure{margin:2rem 0}\
figcaption{margin-bottom:.4rem}.wide{overflow-x:auto}";

/// The page of `runs`.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(runs: &[Run]) -> Result<String, String> {
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">",
    );
    let drawn = write_page(&mut html, runs);
    drawn.map_err(|error| format!("the plots cannot be drawn: {error}"))?;
    Ok(html)
}

fn write_page(html: &mut String, runs: &[Run]) -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<_> = runs.iter().map(|run| Escaped(&run.name).to_string()).collect();
    write!(html, "<title>{}</title><style>{STYLE}</style><h1>{0}</h1>", names.join(", "))?;
    write_table(html, runs)?;
    for plot in PLOTS {
        let svg = (plot.draw)(runs)?;
        write!(html, "<figure><figcaption><b>{}</b>. {}</figcaption>{svg}</figure>", plot.title, plot.words)?;
    }
    write_failures(html, runs)?;
    Ok(())
}

fn write_table(html: &mut String, runs: &[Run]) -> fmt::Result {
    html.push_str("<div class=wide><table><tr><th>");
    for (number, run) in runs.iter().enumerate() {
        let RGBColor(r, g, b) = colour(number);
        write!(html, "<th><i style=\"background:rgb({r},{g},{b})\"></i>{}", Escaped(&run.name))?;
    }
    for (heading, cell) in ROWS {
        write!(html, "<tr><td>{heading}")?;
        runs.iter().try_for_each(|run| write!(html, "<td>{}", Escaped(&cell(run))))?;
    }
    html.push_str("</table></div>");
    for run in runs.iter().filter(|run| run.at("tester.was_bottleneck") == &Value::Bool(true)) {
        let words = "the tester was busy nearly all the time, so these figures describe it as much as the receiver";
        write!(html, "<p>{}: {words}.", Escaped(&run.name))?;
    }
    Ok(())
}

fn write_failures(html: &mut String, runs: &[Run]) -> fmt::Result {
    html.push_str("<h2>Outcomes</h2>");
    for run in runs {
        write!(html, "<h3>{}</h3><table>", Escaped(&run.name))?;
        for part in ["files", "failures"] {
            let fields = run.at(part).as_object().into_iter().flatten();
            for (name, count) in fields.filter(|(_, count)| count.as_u64() != Some(0)) {
                let name = if part == "files" { name.replace('_', " ") } else { format!("failed: {name}") };
                write!(html, "<tr><td>{}<td>{count}", Escaped(&name))?;
            }
        }
        html.push_str("</table>");
    }
    Ok(())
}

/// A plot of all runs.
struct Plot {
    title: &'static str,
    words: &'static str,
    draw: fn(&[Run]) -> Drawn,
}

type Drawn = Result<String, Box<dyn std::error::Error>>;
type Line = Vec<(f64, f64)>;

const PLOTS: [Plot; 4] = [
    Plot {
        title: "Latency of stored files",
        words: "So many of the files took at most so long, until the receiver confirmed them. Both axes are logarithmic.",
        draw: draw_distribution,
    },
    Plot {
        title: "Latency over time",
        words: "The median (thin) and the 99th percentile (bold) of each second.",
        draw: |runs| {
            let lines = lines(runs, &["p50_us", "p99_us"]);
            let spans = (0.0..end(&lines), span_of_latencies(&lines));
            draw(spans.0, spans.1.log_scale(), &lines, ("seconds", "latency"), seconds, latency)
        },
    },
    Plot {
        title: "Stored files a second",
        words: "Failed ones are the thin lines.",
        draw: |runs| {
            let lines = lines(runs, &["failures_per_second", "files_per_second"]);
            draw(0.0..end(&lines), 0.0..top(&lines), &lines, ("seconds", "files/s"), seconds, |y| format!("{y}"))
        },
    },
    Plot {
        title: "The tester's own load",
        words: "The share of time that it was busy. Near 100 % it measures itself.",
        draw: |runs| {
            let lines = lines(runs, &["busy_percent"]);
            draw(0.0..end(&lines), 0.0..100.0, &lines, ("seconds", "busy"), seconds, |y| format!("{y} %"))
        },
    },
];

/// The steps of each run, one line for each field. All but the last field of a run are drawn thin.
fn lines(runs: &[Run], fields: &[&str]) -> Vec<(usize, u32, Line)> {
    let line = |run: &Run, field: &str| {
        let steps = run.at("timeline").as_array().into_iter().flatten();
        steps.filter_map(|step| Some((step["end_seconds"].as_f64()?, step[field].as_f64()?))).collect()
    };
    let of_run = |(number, run)| {
        let widths = fields.iter().enumerate().map(move |(at, field)| (*field, 1 + u32::from(at + 1 == fields.len())));
        widths.map(move |(field, width)| (number, width, line(run, field)))
    };
    runs.iter().enumerate().flat_map(of_run).collect()
}

fn draw_distribution(runs: &[Run]) -> Drawn {
    let lines: Vec<_> = runs.iter().enumerate().map(|(number, run)| (number, 2, distribution(run))).collect();
    let (x, y) = (1.0..end(&lines).max(10.0), span_of_latencies(&lines));
    draw(x.log_scale(), y.log_scale(), &lines, ("share of the files", "latency"), share, latency)
}

/// For each bucket of latencies, how many files there are for each one that took longer, and the latency.
fn distribution(run: &Run) -> Line {
    let buckets = run.at("latency.stored.buckets_us").as_array().into_iter().flatten();
    let buckets: Vec<_> = buckets.filter_map(|bucket| Some((bucket[0].as_f64()?, bucket[1].as_f64()?))).collect();
    let all: f64 = buckets.iter().map(|(_, count)| count).sum();
    let mut before = 0.0;
    let mut line = Vec::new();
    for (latency, count) in buckets {
        line.push((all / (all - before), latency));
        before += count;
        line.push((all / (all - before).max(1.0), latency));
    }
    line
}

/// `99.9 %`, if one of so many files took longer.
fn share(one_of: f64) -> String {
    format!("{} %", ((1.0 - 1.0 / one_of) * 1e6).round() / 1e4)
}

fn latency(us: f64) -> String {
    Micros(Some(us as u64)).to_string()
}

fn seconds(x: f64) -> String {
    format!("{x}")
}

fn points(lines: &[(usize, u32, Line)]) -> impl Iterator<Item = &(f64, f64)> {
    lines.iter().flat_map(|(_, _, line)| line)
}

/// Where the x axis ends.
fn end(lines: &[(usize, u32, Line)]) -> f64 {
    points(lines).map(|(x, _)| *x).fold(1.0, f64::max)
}

/// Where the y axis ends.
fn top(lines: &[(usize, u32, Line)]) -> f64 {
    points(lines).map(|(_, y)| *y).fold(1.0, f64::max) * 1.05
}

/// Whole decades, for an axis that is logarithmic.
fn span_of_latencies(lines: &[(usize, u32, Line)]) -> Range<f64> {
    let low = points(lines).map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    let decade = |y: f64| 10_f64.powf(y.clamp(1.0, 1e10).log10().floor());
    let (low, high) = (decade(if low.is_finite() { low } else { 1.0 }), decade(top(lines)) * 10.0);
    low..high.max(low * 10.0)
}

fn draw<X, Y>(
    x: X,
    y: Y,
    lines: &[(usize, u32, Line)],
    (x_title, y_title): (&str, &str),
    x_label: fn(f64) -> String,
    y_label: fn(f64) -> String,
) -> Drawn
where
    X: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
    Y: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
{
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&area);
    builder.margin(14).x_label_area_size(38).y_label_area_size(78);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    let (x_label, y_label) = (|x: &f64| x_label(*x), |y: &f64| y_label(*y));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x_title).y_desc(y_title).x_label_formatter(&x_label).y_label_formatter(&y_label);
    mesh.light_line_style(WHITE).bold_line_style(BLACK.mix(0.12)).label_style(("sans-serif", 13)).draw()?;
    for (number, width, line) in lines {
        chart.draw_series(LineSeries::new(line.iter().copied(), colour(*number).stroke_width(*width)))?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// Text in HTML. It may come from a receiver.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|next| match next {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            next => f.write_char(next),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::tests::run;
    use super::*;

    #[test]
    fn the_page_has_every_run_and_every_plot_and_needs_nothing_else() {
        let html = page(&[run("<a>", 1000, 300), run("b", 10, 90_000)]).unwrap();
        assert_eq!(html.matches("<svg").count(), PLOTS.len());
        assert!(html.contains("&lt;a&gt;") && html.contains("failed: a &lt;reason&gt;") && !html.contains("<a>"));
        for from_elsewhere in ["<script", "<link", "src=", "href=", "url(", "@import"] {
            assert!(!html.contains(from_elsewhere), "{from_elsewhere}");
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_stored_has_a_page() {
        let mut empty = run("empty", 0, 1);
        empty.report["latency"]["stored"]["buckets_us"] = Value::Array(Vec::new());
        empty.report["timeline"] = Value::Array(Vec::new());
        assert!(page(&[empty]).is_ok());
    }

    #[test]
    fn the_distribution_ends_with_the_slowest_file() {
        let mut one = run("one", 1000, 300);
        one.report["latency"]["stored"]["buckets_us"] = serde_json::json!([[100, 990], [300, 9], [5000, 1]]);
        let line = distribution(&one);
        assert_eq!((line[0], line.last()), ((1.0, 100.0), Some(&(1000.0, 5000.0))));
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(share), ["0 %", "90 %", "99 %", "99.9 %"]);
    }
}
