//! The report as one HTML page: it asks nobody for anything, needs no script, follows the colors of the reader and reads on a phone.

use std::fmt::Write;

use super::Run;
use super::figures::figure_of;
use super::metrics::{self, Picture, Results, State};
use super::parts::{self, SEEDS_MAX};
use super::svg::{self, Axis, Band, Dot, Mark, Plot, Series, escape};
use crate::plan::SECOND;
use crate::run::Outcome;

/// So many messages are drawn one by one.
const COPIES_MAX: usize = 1_500;

/// The figures at the top.
const KEY_FIGURES: &[&str] =
    &["delivery", "delivery_1s", "latency_p50", "latency_p99", "ldh_mean", "rmr", "bytes_per_node", "detection_max", "settled"];

/// A report: one or several seeds of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What was run, in a line.
    pub plan: &'a str,
    /// What to type to see it all again.
    pub command: &'a str,
    /// The version of the simulator.
    pub version: &'a str,
    /// The runs by seed; at least one.
    pub runs: &'a [Run<'a>],
}

/// A run in a plot, with what stands beside its name in the legend.
struct Shown<'a> {
    run: &'a Run<'a>,
    suffix: String,
    is_worst: bool,
}

impl Report<'_> {
    fn outcomes(&self) -> Vec<&Outcome> {
        self.runs.iter().map(|run| run.outcome).collect()
    }

    /// The runs that a plot shows: the only one, or the one in the middle by a metric and the worst.
    fn shown(&self, metric: &'static str) -> Vec<Shown<'_>> {
        let (middle, worst) = metrics::middle_and_worst(&self.outcomes(), metric);
        let shown = |place: usize, is_worst, suffix| Shown { run: &self.runs[place], suffix, is_worst };
        let seed = |place: usize| self.runs[place].outcome.seed;
        match self.runs.len() {
            0 => Vec::new(),
            1 => vec![shown(0, false, String::new())],
            _ if middle == worst => vec![shown(middle, false, format!(", seed {}", seed(middle)))],
            _ => vec![
                shown(middle, false, format!(", seed {} (in the middle)", seed(middle))),
                shown(worst, true, format!(", seed {} (worst)", seed(worst))),
            ],
        }
    }

    /// The whole page.
    pub fn render(&self) -> String {
        let mut page = String::new();
        let Some(first) = self.runs.first() else { return page };
        let title = format!("{}, {} nodes", first.outcome.scenario, first.outcome.nodes);
        parts::open(&mut page, &title);
        put!(page, "<p>{}</p>", escape(self.plan));
        parts::verdict(&mut page, &self.runs.iter().collect::<Vec<_>>(), "seeds");
        put!(page, "<p>To repeat it:</p><code class=\"command\">{}</code>", escape(self.command));
        self.tiles(&mut page);
        page.push_str("<h2>What must hold</h2>");
        self.invariants(&mut page);
        page.push_str("<h2>What happened</h2>");
        if self.runs.len() > 1 {
            put!(
                page,
                "<p>Of {} seeds each plot shows two: the one in the middle by its figure, and the worst, with broken lines and its own faults.</p>",
                self.runs.len()
            );
        }
        page.push_str("<div class=\"plots\">");
        for plot in self.plots() {
            parts::figure(&mut page, &plot);
        }
        page.push_str("</div>");
        self.by_region(&mut page);
        self.overlay(&mut page);
        page.push_str("<h2>All figures</h2>");
        self.figures(&mut page);
        page.push_str("<h2>Runs</h2>");
        self.seeds(&mut page);
        parts::close(&mut page, self.version);
        page
    }

    fn tiles(&self, page: &mut String) {
        page.push_str("<div class=\"tiles\">");
        let spreads = metrics::spread(&self.outcomes());
        for spread in KEY_FIGURES.iter().filter_map(|name| spreads.iter().find(|spread| spread.name == *name)) {
            let value = |value: f64| parts::with_unit(spread.name, value, spread.unit);
            put!(page, "<div><b>{}</b>", value(spread.mean));
            if let Some((worst, seed)) = spread.worst.filter(|(worst, _)| *worst != spread.mean) {
                put!(page, "<span>mean; worst {}, seed {seed}</span>", value(worst));
            }
            put!(page, "<span>{}</span></div>", escape(parts::headline(spread.name)));
        }
        page.push_str("</div>");
    }

    fn invariants(&self, page: &mut String) {
        page.push_str(
            "<div class=\"scroll\"><table id=\"invariants\"><thead><tr><th>invariant</th><th>when</th><th>verdict</th></tr></thead><tbody>",
        );
        // A run that panicked has none.
        let verdicts = self.runs.iter().map(|run| &run.outcome.invariants).find(|verdicts| !verdicts.is_empty());
        for verdict in verdicts.into_iter().flatten() {
            let broken = |run: &&Run<'_>| run.outcome.invariants.iter().any(|other| other.name == verdict.name && !other.ok);
            let seeds: Vec<String> = self.runs.iter().filter(broken).map(|run| run.outcome.seed.to_string()).collect();
            put!(page, "<tr><td>{}</td><td>{}</td>", escape(verdict.name), escape(verdict.kind));
            match (seeds.len(), self.runs.len()) {
                (0, _) => page.push_str("<td class=\"good\">holds</td></tr>"),
                (_, 1) => page.push_str("<td class=\"bad\">FAILS</td></tr>"),
                _ => put!(page, "<td class=\"bad\">FAILS: seed {}</td></tr>", seeds.join(", ")),
            }
        }
        page.push_str("</tbody></table></div>");
    }

    fn figures(&self, page: &mut String) {
        let several = self.runs.len() > 1;
        page.push_str("<div class=\"scroll\"><table id=\"figures\"><thead><tr><th>figure</th>");
        match several {
            true => page.push_str("<th class=\"number\">mean</th><th class=\"number\">worst</th><th class=\"number\">in seed</th>"),
            false => page.push_str("<th class=\"number\">value</th>"),
        }
        page.push_str("<th>unit</th><th>what it is</th></tr></thead><tbody>");
        for spread in metrics::spread(&self.outcomes()) {
            put!(page, "<tr><td>{}</td><td class=\"number\">{}</td>", escape(spread.name), svg::plain(spread.mean));
            match spread.worst {
                _ if !several => {}
                Some((worst, seed)) => put!(page, "<td class=\"number\">{}</td><td class=\"number\">{seed}</td>", svg::plain(worst)),
                None => page.push_str("<td></td><td></td>"),
            }
            let about = figure_of(spread.name).about;
            put!(page, "<td>{}</td><td class=\"about\">{}</td></tr>", escape(spread.unit), escape(about));
        }
        page.push_str("</tbody></table></div>");
    }

    fn seeds(&self, page: &mut String) {
        page.push_str("<div class=\"scroll\"><table id=\"runs\"><thead><tr><th class=\"number\">seed</th><th>verdict</th><th class=\"number\">events</th>");
        page.push_str("<th class=\"number\">virtual s</th><th>digest</th></tr></thead><tbody>");
        for run in self.runs.iter().take(SEEDS_MAX) {
            let Outcome { seed, events, virtual_s, digest, ok, .. } = run.outcome;
            let verdict = if *ok { "<td class=\"good\">ok</td>" } else { "<td class=\"bad\">FAILED</td>" };
            put!(page, "<tr><td class=\"number\">{seed}</td>{verdict}<td class=\"number\">{events}</td>");
            put!(page, "<td class=\"number\">{}</td><td><code>{}</code></td></tr>", svg::plain(*virtual_s), escape(digest));
        }
        page.push_str("</tbody></table></div>");
        if self.runs.len() > SEEDS_MAX {
            put!(page, "<p>The first {SEEDS_MAX} of {} seeds.</p>", self.runs.len());
        }
    }

    fn plots(&self) -> Vec<Plot> {
        let plots = vec![
            self.delivery(),
            self.latency(),
            self.last_hop(),
            self.redundancy(),
            self.copies(),
            self.degree(),
            self.paths(),
            self.node_bytes(),
            self.traffic(),
        ];
        // What was not measured is left out, but not of a run that broke before there was anything.
        let is_any = plots.iter().any(|plot| !plot.is_empty());
        plots.into_iter().filter(|plot| !is_any || !plot.is_empty()).collect()
    }

    fn delivery(&self) -> Plot {
        let shown = self.shown("delivery_1s");
        let mut series = Vec::new();
        for Shown { run, suffix, is_worst } in &shown {
            let mut by_second = vec![(0_u64, 0_u64, 0_u64); run.results.seconds.len() + 1];
            for message in &run.results.messages {
                let sum = &mut by_second[(message.sent_at / SECOND) as usize];
                sum.0 += u64::from(message.expected);
                sum.1 += u64::from(message.delivered);
                sum.2 += u64::from(message.in_time.unwrap_or(0));
            }
            let owed = || by_second.iter().enumerate().filter(|(_, sum)| sum.0 > 0);
            let points = |part: fn(&(u64, u64, u64)) -> u64| {
                owed().map(|(second, sum)| (second as f64 + 0.5, part(sum) as f64 / sum.0 as f64)).collect::<Vec<_>>()
            };
            series.push(line(format!("in the end{suffix}"), 'c', *is_worst, Mark::Line, points(|sum| sum.1)));
            if run.results.messages.iter().any(|message| message.in_time.is_some()) {
                series.push(line(format!("within a second{suffix}"), 'a', *is_worst, Mark::Dots, points(|sum| sum.2)));
            }
        }
        Plot {
            id: "plot-delivery".to_owned(),
            title: "Delivery over time".to_owned(),
            about: "Of the deliveries owed to nodes that survived, the share that was made, by the second in which the message was sent."
                .to_owned(),
            x: time_axis(&shown),
            y: Axis::linear("share of owed deliveries", 1.0, svg::percent),
            bands: bands(&shown),
            series,
        }
    }

    fn latency(&self) -> Plot {
        let shown = self.shown("latency_p99");
        let all = || shown.iter().flat_map(|shown| &shown.run.results.latencies).map(|micros| *micros as f64 / 1e3);
        let series = shown
            .iter()
            .map(|Shown { run, suffix, is_worst }| {
                let latencies = &run.results.latencies;
                let share = |index: usize| (index + 1) as f64 / latencies.len() as f64;
                let points = latencies.iter().enumerate().map(|(index, micros)| (*micros as f64 / 1e3, share(index))).collect();
                line(format!("deliveries{suffix}"), 'a', *is_worst, Mark::Line, points)
            })
            .collect();
        Plot {
            id: "plot-latency".to_owned(),
            title: "Latency of deliveries".to_owned(),
            about: "The share of deliveries that took no longer than this from sending. The axis of time is logarithmic.".to_owned(),
            x: Axis::log("from sending to delivery", all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max), svg::millis),
            y: Axis::linear("share of deliveries", 1.0, svg::percent),
            bands: Vec::new(),
            series,
        }
    }

    fn last_hop(&self) -> Plot {
        let shown = self.shown("ldh_mean");
        let most = shown.iter().flat_map(|shown| shown.run.results.last_hops()).max().unwrap_or(1);
        let series = shown
            .iter()
            .map(|Shown { run, suffix, is_worst }| {
                let hops = run.results.last_hops();
                let points = (0..=most).map(|hop| (hop as f64, hops.partition_point(|other| *other <= hop) as f64 / hops.len() as f64));
                let points = if hops.is_empty() { Vec::new() } else { points.collect() };
                line(format!("messages{suffix}"), 'a', *is_worst, Mark::Steps, points)
            })
            .collect();
        Plot {
            id: "plot-hops".to_owned(),
            title: "Last hop of messages".to_owned(),
            about: "The share of messages whose farthest delivery crossed no more links than this.".to_owned(),
            x: Axis::whole("links", 0, most),
            y: Axis::linear("share of messages", 1.0, svg::percent),
            bands: Vec::new(),
            series,
        }
    }

    /// Nodes count the copies that they receive, without a word of which message: so by time, and not by message. Nodes of a kind that does
    /// not count them have their traffic shown instead.
    fn redundancy(&self) -> Plot {
        let knows = self.runs.iter().any(|run| run.results.seconds.iter().any(|second| second.moved.payloads > 0));
        let shown = self.shown(if knows { "rmr" } else { "bytes_per_delivery" });
        let mut series = Vec::new();
        for Shown { run, suffix, is_worst } in &shown {
            let points: Vec<(f64, f64)> = run
                .results
                .seconds
                .iter()
                .enumerate()
                .map(|(second, row)| match knows {
                    true => (second, row.moved.copies, row.moved.payloads.saturating_sub(row.moved.copies)),
                    false => (second, row.moved.bytes, row.delivered),
                })
                .filter(|(_, _, delivered)| *delivered > 0)
                .map(|(second, more, delivered)| (second as f64 + 0.5, more as f64 / delivered as f64))
                .collect();
            let name = if knows { "copies" } else { "bytes" };
            series.push(line(format!("{name} per delivery{suffix}"), if *is_worst { 'b' } else { 'a' }, *is_worst, Mark::Dots, points));
        }
        let most = series.iter().flat_map(|series| &series.points).map(|(_, value)| *value).fold(0.0, f64::max);
        let (title, about, y) = match knows {
            true => (
                "Redundancy over time",
                "Copies of a payload that nodes received beyond the first, per first copy, in each second. 0 is a perfect tree.",
                Axis::linear("copies per delivery", most, svg::plain),
            ),
            false => (
                "Traffic per delivery",
                "Bytes sent for whatever reason per delivery, in each second; these nodes do not count copies of messages.",
                Axis::linear("bytes per delivery", most, svg::bytes),
            ),
        };
        Plot {
            id: "plot-redundancy".to_owned(),
            title: title.to_owned(),
            about: about.to_owned(),
            x: time_axis(&shown),
            y,
            bands: bands(&shown),
            series,
        }
    }

    /// What the field calls relative message redundancy (Leitão, Pereira and Rodrigues, SRDS 2007), of each message by itself.
    fn copies(&self) -> Plot {
        let shown = self.shown("rmr");
        let mut series = Vec::new();
        for Shown { run, suffix, is_worst } in &shown {
            let known = run.results.messages.iter().filter_map(|message| Some((message.sent_at as f64 / 1e6, message.redundancy()?)));
            let all: Vec<(f64, f64)> = known.collect();
            let mean = all.iter().map(|(_, redundancy)| redundancy).sum::<f64>() / all.len() as f64;
            let ends = all.first().into_iter().chain(all.last()).map(|(at, _)| (*at, mean)).collect();
            let every = all.len().div_ceil(COPIES_MAX).max(1);
            let color = if *is_worst { 'b' } else { 'a' };
            series.push(line(format!("messages{suffix}"), color, *is_worst, Mark::Points, all.into_iter().step_by(every).collect()));
            series.push(line(format!("their mean{suffix}"), color, *is_worst, Mark::Line, ends));
        }
        let most = series.iter().flat_map(|series| &series.points).map(|(_, value)| *value).fold(0.0, f64::max);
        Plot {
            id: "plot-copies".to_owned(),
            title: "Redundancy of each message".to_owned(),
            about: "Payloads of a message that nodes received beyond the first, per delivery of it, by when it was sent (relative message \
                    redundancy)."
                .to_owned(),
            x: time_axis(&shown),
            y: Axis::linear("copies per delivery", most, svg::plain),
            bands: bands(&shown),
            series,
        }
    }

    fn by_region(&self, page: &mut String) {
        let Some(Shown { run, suffix, .. }) = self.shown("latency_p99").into_iter().next() else { return };
        let Some(regions) = &run.results.regions else { return };
        put!(page, "<h2>From region to region{}</h2>", escape(&suffix));
        page.push_str("<p>Bold: the median from sending to delivery. Below it the 99th percentile; and the way, which is what the network takes in one direction");
        page.push_str(" between the same nodes, in the median. A broadcast reaches most nodes over others.</p>");
        regions.table(page);
    }

    fn degree(&self) -> Plot {
        let shown = self.shown("degree_min");
        let counts = |results: &Results| {
            let degrees = results.degrees();
            let mut counts = vec![0_u64; degrees.last().map_or(0, |most| *most as usize + 1)];
            degrees.iter().for_each(|degree| counts[*degree as usize] += 1);
            counts
        };
        let about = "The share of living nodes that have this many neighbors when the run is over.".to_owned();
        let text = Text { id: "plot-degree", title: "Neighbors at the end", about, x: "neighbors", y: "share of nodes" };
        histogram(&shown, counts, text)
    }

    fn paths(&self) -> Plot {
        let shown = self.shown("avg_path");
        let results = shown.last().map(|shown| shown.run.results);
        let sampled = match results {
            Some(results) if results.sources < results.degrees().len() => {
                format!(" Counted from {} of {} nodes.", results.sources, results.degrees().len())
            }
            _ => String::new(),
        };
        let apart: u64 = shown.iter().map(|shown| shown.run.results.unreachable).sum();
        let apart = if apart > 0 { format!(" {apart} pairs have no path.") } else { String::new() };
        let about =
            format!("The share of pairs of living nodes whose shortest path has this many links when the run is over.{sampled}{apart}");
        let text = Text { id: "plot-paths", title: "Length of paths at the end", about, x: "links", y: "share of pairs" };
        histogram(&shown, |results| results.paths.clone(), text)
    }

    fn node_bytes(&self) -> Plot {
        let shown = self.shown("node_sent_max");
        let mut series = Vec::new();
        for Shown { run, suffix, is_worst } in &shown {
            let sent = run.results.of_nodes(|node| Some(node.moved?.sent));
            let received = run.results.of_nodes(|node| Some(node.moved?.received));
            for (name, color, values) in [("sent", 'a', sent), ("received", 'b', received)] {
                let len = values.len() as f64;
                let mut points: Vec<(f64, f64)> = vec![];
                points.extend(values.first().map(|value| (*value as f64, 0.0)));
                points.extend(values.iter().enumerate().map(|(index, value)| (*value as f64, (index + 1) as f64 / len)));
                series.push(line(format!("{name}{suffix}"), color, *is_worst, Mark::Steps, points));
            }
        }
        let most = series.iter().flat_map(|series| &series.points).map(|(bytes, _)| *bytes).fold(0.0, f64::max);
        Plot {
            id: "plot-bytes".to_owned(),
            title: "Bytes per node".to_owned(),
            about: "The share of nodes that sent, or received, no more bytes than this over the whole run.".to_owned(),
            x: Axis::linear("bytes over the run", most, svg::bytes),
            y: Axis::linear("share of nodes", 1.0, svg::percent),
            bands: Vec::new(),
            series,
        }
    }

    fn traffic(&self) -> Plot {
        let shown = self.shown("bytes_per_node");
        let mut series = Vec::new();
        for Shown { run, suffix, is_worst } in &shown {
            // Where nothing is encoded there are no bytes at all.
            let all: u64 = run.results.seconds.iter().map(|row| row.moved.bytes).sum();
            let rows = run.results.seconds.iter().enumerate().filter(|(_, row)| row.alive > 0 && all > 0);
            let points = rows.map(|(second, row)| (second as f64 + 0.5, row.moved.bytes as f64 / row.alive as f64)).collect();
            series.push(line(format!("bytes sent{suffix}"), if *is_worst { 'b' } else { 'a' }, *is_worst, Mark::Line, points));
        }
        let most = series.iter().flat_map(|series| &series.points).map(|(_, value)| *value).fold(0.0, f64::max);
        Plot {
            id: "plot-traffic".to_owned(),
            title: "Traffic over time".to_owned(),
            about: "Bytes that a living node sent in each second, mean over nodes.".to_owned(),
            x: time_axis(&shown),
            y: Axis::linear("bytes per node and second", most, svg::bytes),
            bands: bands(&shown),
            series,
        }
    }

    fn overlay(&self, page: &mut String) {
        let Some(Shown { run, .. }) = self.shown("avg_path").pop() else { return };
        let Picture { nodes, links, of } = &run.results.picture;
        let dot = |node: &u32| {
            let row = &run.results.nodes[*node as usize];
            Dot { node: *node, is_up: row.state == State::Alive, degree: row.degree }
        };
        let dots: Vec<Dot> = nodes.iter().map(dot).collect();
        let down = dots.iter().filter(|dot| !dot.is_up).count();
        let seed = if self.runs.len() > 1 { format!(" Seed {}, the one with the longest paths.", run.outcome.seed) } else { String::new() };
        let about = match nodes.len() == *of {
            true => format!("All {of} nodes and the links between them when the run was over; {down} are down.{seed}"),
            false => format!(
                "A sample: {} of {of} nodes, the living ones around the first of them and their share of those that are down ({down}), with the \
                 links between them when the run was over.{seed}",
                nodes.len()
            ),
        };
        page.push_str("<h2>The overlay at the end</h2><figure class=\"wide\">");
        page.push_str(&svg::drawing("plot-overlay", "The overlay at the end", &about, &dots, links));
        page.push_str("<ul class=\"key\"><li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\"><circle class=\"up\" cx=\"13\" cy=\"6\" r=\"5\"/></svg>alive</li>");
        page.push_str("<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\"><circle class=\"down\" cx=\"13\" cy=\"6\" r=\"5\"/><path class=\"cross\" d=\"M9.5 2.5l7 7M16.5 2.5l-7 7\"/></svg>down: crashed or left</li></ul>");
        put!(page, "<figcaption>{}</figcaption></figure>", escape(&about));
    }
}

fn line(name: String, color: char, is_dashed: bool, mark: Mark, points: Vec<(f64, f64)>) -> Series {
    Series { name, color, is_dashed, mark, points }
}

/// From the start to the end of the longest run shown.
fn time_axis(shown: &[Shown<'_>]) -> Axis {
    Axis::up_to("virtual time", shown.iter().map(|shown| shown.run.outcome.virtual_s).fold(0.0, f64::max), svg::seconds)
}

/// The faults of the last run shown.
fn bands(shown: &[Shown<'_>]) -> Vec<Band> {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let faults = shown.last().map_or(&[][..], |shown| &shown.run.results.faults[..]);
    faults.iter().map(|fault| Band { name: fault.name, from: seconds(fault.from), to: seconds(fault.until) }).collect()
}

/// The words of a histogram.
struct Text {
    id: &'static str,
    title: &'static str,
    about: String,
    x: &'static str,
    y: &'static str,
}

/// The shares of whole numbers, by their counts: bars, and dots for the worst.
fn histogram(shown: &[Shown<'_>], counts: impl Fn(&Results) -> Vec<u64>, text: Text) -> Plot {
    let mut series = Vec::new();
    for Shown { run, suffix, is_worst } in shown {
        let counts = counts(run.results);
        let all = counts.iter().sum::<u64>() as f64;
        let some = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let points = some.map(|(value, count)| (value as f64, *count as f64 / all)).collect();
        let (color, mark) = if *is_worst { ('b', Mark::Dots) } else { ('a', Mark::Bars) };
        series.push(line(format!("{}{suffix}", text.y), color, *is_worst, mark, points));
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let (least, most) = points().fold((u64::MAX, 0), |(least, most), (value, _)| (least.min(*value as u64), most.max(*value as u64)));
    let share = points().map(|(_, share)| *share).fold(0.0, f64::max);
    Plot {
        id: text.id.to_owned(),
        title: text.title.to_owned(),
        about: text.about,
        // One bar alone would fill the plot.
        x: Axis::whole(text.x, least.min(most).saturating_sub(1), most + 1),
        y: Axis::linear(text.y, share, svg::percent),
        bands: Vec::new(),
        series,
    }
}
