//! Combinations of swept settings side by side, as one page: every figure against every setting, and a table of all.

use std::fmt::Write;

use super::metrics::{Spread, spread};
use super::svg::{self, Axis, Mark, Plot, Series, escape};
use super::{Combination, Run, keys, parts};
use crate::run::Outcome;

/// The figures that are drawn, those of them that were measured.
const FIGURES: [&str; 11] = [
    "delivery",
    "delivery_1s",
    "latency_p50",
    "latency_p99",
    "ldh_mean",
    "rmr",
    "bytes_per_node",
    "detection_max",
    "settled",
    "formed",
    "avg_path",
];
/// The colors of lines.
const COLORS: [char; 6] = ['a', 'b', 'c', 'd', 'e', 'f'];
/// A range of times from which on they stand on a logarithmic axis.
const RANGE_LOG: f64 = 30.0;

/// A report of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'a> {
    /// What was swept.
    pub name: &'a str,
    /// What to type to see it all again.
    pub command: &'a str,
    /// The version of the simulator.
    pub version: &'a str,
    /// The combinations, at least one, each with the same settings and at least one run.
    pub combinations: &'a [Combination<'a>],
}

/// The combinations that a line of a plot goes through, by the place of its setting's value; and what the others of them have in common.
struct Line {
    name: String,
    /// By value of the setting.
    groups: Vec<Vec<usize>>,
}

impl Sweep<'_> {
    fn spread_of(&self, group: &[usize], name: &str) -> Option<Spread> {
        let runs = group.iter().filter_map(|place| self.combinations.get(*place)).flat_map(|combination| combination.runs);
        let outcomes: Vec<&Outcome> = runs.map(|run| run.outcome).collect();
        spread(&outcomes).into_iter().find(|spread| spread.name == name)
    }

    /// The figures that any run has.
    fn figures(&self) -> Vec<&'static str> {
        let all: Vec<usize> = (0..self.combinations.len()).collect();
        FIGURES.into_iter().filter(|name| self.spread_of(&all, name).is_some()).collect()
    }

    /// The values of a setting, in the order in which they are swept.
    fn values(&self, key: &str) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        for value in self.combinations.iter().map(|combination| combination.value(key)) {
            if !values.iter().any(|other| other == value) {
                values.push(value.to_owned());
            }
        }
        values
    }

    /// The whole page.
    pub fn render(&self) -> String {
        let mut page = String::new();
        let runs: Vec<&Run<'_>> = self.combinations.iter().flat_map(|combination| combination.runs).collect();
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return page };
        let keys = keys(self.combinations);
        parts::open(&mut page, &format!("{}, {} combinations", self.name, self.combinations.len()));
        let swept: Vec<String> = keys.iter().map(|key| format!("{key}: {}", self.values(key).join(", "))).collect();
        let seeds = (first.outcome.seed, last.outcome.seed.saturating_add(1));
        put!(page, "<p>{} nodes; {}; each with seeds {}..{}</p>", first.outcome.nodes, escape(&swept.join("; ")), seeds.0, seeds.1);
        parts::verdict(&mut page, &runs, "runs");
        put!(page, "<p>To repeat it; <code>--set</code> picks a combination:</p><code class=\"command\">{}</code>", escape(self.command));
        page.push_str("<h2>All combinations</h2>");
        self.table(&mut page, &keys);
        for key in &keys {
            put!(page, "<h2>By {}</h2><div class=\"plots\">", escape(key));
            for name in self.figures() {
                parts::figure(&mut page, &self.plot(key, &keys, name));
            }
            page.push_str("</div>");
        }
        parts::close(&mut page, self.version);
        page
    }

    fn table(&self, page: &mut String, keys: &[&str]) {
        let figures = self.figures();
        page.push_str("<p>The mean over the seeds, and below it the worst with its seed where that is another.</p><div class=\"scroll\"><table id=\"combinations\"><thead><tr>");
        for key in keys {
            put!(page, "<th>{}</th>", escape(key));
        }
        for name in &figures {
            put!(page, "<th class=\"number\">{}</th>", escape(name));
        }
        page.push_str("<th>runs</th></tr></thead><tbody>");
        for (place, combination) in self.combinations.iter().enumerate() {
            page.push_str("<tr>");
            for key in keys {
                put!(page, "<td><b>{}</b></td>", escape(combination.value(key)));
            }
            for name in &figures {
                let Some(Spread { mean, worst, unit, .. }) = self.spread_of(&[place], name) else {
                    page.push_str("<td></td>");
                    continue;
                };
                put!(page, "<td class=\"number\">{}", parts::with_unit(name, mean, unit));
                if let Some((worst, seed)) = worst.filter(|(worst, _)| *worst != mean) {
                    put!(page, "<br/><span>{}, seed {seed}</span>", parts::with_unit(name, worst, unit));
                }
                page.push_str("</td>");
            }
            let (failed, all) = (combination.runs.iter().filter(|run| !run.outcome.ok).count(), combination.runs.len());
            match failed {
                0 => put!(page, "<td class=\"good\">{all} ok</td></tr>"),
                _ => put!(page, "<td class=\"bad\">{failed} of {all} FAILED</td></tr>"),
            }
        }
        page.push_str("</tbody></table></div>");
    }

    /// A line for each combination of the other settings; when there are too many of those, one over all of them.
    fn lines(&self, key: &str, keys: &[&str]) -> Vec<Line> {
        let values = self.values(key);
        let mut lines: Vec<Line> = Vec::new();
        for (place, combination) in self.combinations.iter().enumerate() {
            let others = keys.iter().filter(|other| **other != key).map(|other| format!("{other}={}", combination.value(other)));
            let name = others.collect::<Vec<_>>().join(" ");
            let group = values.iter().position(|value| value == combination.value(key)).unwrap_or(0);
            let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
                lines.push(Line { name, groups: vec![Vec::new(); values.len()] });
                lines.len() - 1
            });
            lines[at].groups[group].push(place);
        }
        if lines.len() > COLORS.len() {
            let name = format!("all {} combinations of the others", lines.len());
            let mut all = Line { name, groups: vec![Vec::new(); values.len()] };
            for line in lines {
                all.groups.iter_mut().zip(line.groups).for_each(|(all, group)| all.extend(group));
            }
            lines = vec![all];
        }
        lines
    }

    fn plot(&self, key: &str, keys: &[&str], name: &str) -> Plot {
        let lines = self.lines(key, keys);
        let mut series = Vec::new();
        let mut unit = "";
        for (index, (line, color)) in lines.iter().zip(COLORS).enumerate() {
            // Side by side, so that none hides another.
            let aside = (index as f64 - (lines.len() - 1) as f64 / 2.0) * 0.06;
            let (mut means, mut spans) = (Vec::new(), Vec::new());
            for (at, group) in line.groups.iter().enumerate() {
                let Some(spread) = self.spread_of(group, name) else { continue };
                unit = spread.unit;
                let x = at as f64 + aside;
                means.push((x, spread.mean));
                if let Some((worst, _)) = spread.worst.filter(|(worst, _)| *worst != spread.mean) {
                    spans.extend([(x, spread.mean), (x, worst)]);
                }
            }
            let label = if line.name.is_empty() { "mean over the seeds".to_owned() } else { line.name.clone() };
            series.push(Series { name: label, color, is_dashed: false, mark: Mark::Dots, points: means });
            // Without a name of its own: the text below says what the strokes are.
            series.push(Series { name: String::new(), color, is_dashed: false, mark: Mark::Spans, points: spans });
        }
        let values = || series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let format: fn(f64) -> String = match unit {
            "ms" => svg::millis,
            "s" => svg::seconds,
            "B" | "B/s" => svg::bytes,
            _ => svg::plain,
        };
        let label = format!("{name}{}", if unit == "B/s" { " each second" } else { "" });
        let y = match unit {
            _ if name.starts_with("delivery") => Axis::share(&label, least),
            "ms" | "s" if least > 0.0 && most / least > RANGE_LOG => Axis::log(&format!("{label}, logarithmic"), least, most, format),
            _ => Axis::linear(&label, most, format),
        };
        Plot {
            id: format!("plot-{key}-{name}"),
            title: title(name).to_owned(),
            about: format!(
                "{}. Dots are means over the seeds, and a stroke goes from each to its worst seed.",
                super::figures::about(name)
            ),
            x: Axis::words(key, &self.values(key)),
            y,
            bands: Vec::new(),
            series,
        }
    }
}

/// The title of the plots of a figure.
fn title(name: &str) -> &str {
    match name {
        "delivery" => "Deliveries made",
        "delivery_1s" => "Deliveries within a second",
        "latency_p50" => "Latency, median",
        "latency_p99" => "Latency, 99th percentile",
        "ldh_mean" => "Links to the last delivery",
        "rmr" => "Copies per delivery",
        "bytes_per_node" => "Traffic of a node",
        "detection_max" => "Longest time to notice a crash",
        "settled" => "Time to come to rest",
        "formed" => "Time to form",
        "avg_path" => "Links between two nodes",
        other => other,
    }
}
