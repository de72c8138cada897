//! What all pages are made of.

use std::fmt::Write;

use super::Run;
use super::style::STYLE;
use super::svg::{self, Mark, Plot, escape};

/// Of the longest list of seeds so many are shown.
pub(super) const SEEDS_MAX: usize = 200;

/// The beginning of a page, up to its title.
pub(super) fn open(page: &mut String, title: &str) {
    put!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
    );
    put!(page, "<title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>", escape(title));
}

/// The end of a page.
pub(super) fn close(page: &mut String, version: &str) {
    put!(page, "<p>meshwork-sim {}. All times are virtual. The same command gives the same page.</p></body></html>\n", escape(version));
}

/// Whether all runs were as they must be, and what was wrong with those that were not.
pub(super) fn verdict(page: &mut String, runs: &[&Run<'_>], things: &str) {
    let failed: Vec<&&Run<'_>> = runs.iter().filter(|run| !run.outcome.ok).collect();
    let all = runs.len();
    match (failed.len(), all) {
        (0, 1) => page.push_str("<p class=\"verdict good\">ok: everything held</p>"),
        (0, _) => put!(page, "<p class=\"verdict good\">ok: everything held in all {all} {things}</p>"),
        (_, 1) => page.push_str("<p class=\"verdict bad\">FAILED</p>"),
        (some, _) => put!(page, "<p class=\"verdict bad\">FAILED: {some} of {all} {things}</p>"),
    }
    for run in failed.iter().take(SEEDS_MAX) {
        let Some(failure) = &run.outcome.failure else { continue };
        let node = failure.node.map_or(String::new(), |node| format!(" at node {node}"));
        put!(
            page,
            "<p class=\"bad\">Seed {}, {} <b>{}</b> at {:.3} s{node}: {}</p>",
            run.outcome.seed,
            failure.class.name(),
            escape(&failure.what),
            failure.at as f64 / 1e6,
            escape(&failure.detail)
        );
        if all > 1 {
            put!(page, "<code class=\"command\">{}</code>", escape(run.replay));
        }
    }
}

/// A plot with its title and its legend.
pub(super) fn figure(page: &mut String, plot: &Plot) {
    put!(page, "<figure><h3>{}</h3>{}<ul class=\"key\">", escape(&plot.title), plot.draw());
    for series in plot.series.iter().filter(|series| !series.points.is_empty() && !series.name.is_empty()) {
        let (color, dashed) = (series.color, if series.is_dashed { " dashed" } else { "" });
        page.push_str("<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\">");
        match series.mark {
            Mark::Bars => put!(page, "<path class=\"bars {color}\" d=\"M4 1H22V11H4Z\"/>"),
            Mark::Points => put!(page, "<path class=\"dots small {color}\" d=\"M6 6h0M13 6h0M20 6h0\"/>"),
            _ => put!(page, "<path class=\"curve {color}{dashed}\" d=\"M0 6H26\"/>"),
        }
        put!(page, "</svg>{}</li>", escape(&series.name));
    }
    let mut names: Vec<&str> = plot.bands.iter().map(|band| band.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        put!(
            page,
            "<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\"><rect class=\"band {name}\" width=\"26\" height=\"12\"/></svg>{name}</li>"
        );
    }
    put!(page, "</ul><figcaption>{}</figcaption></figure>", escape(&plot.about));
}

/// A value for people.
pub(super) fn with_unit(name: &str, value: f64, unit: &str) -> String {
    match unit {
        _ if name.starts_with("delivery") => format!("{} %", svg::plain((value * 1e4).floor() / 1e2)),
        "ms" => svg::millis((value * 10.0).round() / 10.0),
        "B" => svg::bytes(value.round()),
        "B/s" if value < 1e3 => format!("{value:.0} B/s"),
        "B/s" => format!("{}/s", svg::bytes((value / 10.0).round() * 10.0)),
        "" => svg::plain((value * 100.0).round() / 100.0),
        unit => format!("{} {unit}", svg::plain((value * 10.0).round() / 10.0)),
    }
}

/// The few words under a figure at the top.
pub(super) fn headline(name: &str) -> &str {
    match name {
        "delivery" => "of owed deliveries made",
        "delivery_1s" => "of them within a second",
        "latency_p50" => "latency, median",
        "latency_p99" => "latency, 99th percentile",
        "ldh_mean" => "links to the last delivery",
        "rmr" => "copies per delivery",
        "bytes_per_node" => "sent per node",
        "detection_max" => "to notice a crash, at most",
        "settled" => "to come to rest",
        other => other,
    }
}
