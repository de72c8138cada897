//! The report as one HTML page: it asks nobody for anything, follows the colors of the reader, and reads on a phone.

use std::fmt::Write;

use super::machine::Machine;
use super::samples::Samples;
use super::{Bar, Curve, Outcome};

/// The drawing area of a plot, in units of its own.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Quantiles are drawn by their distance from one: 0, 0.9, 0.99, 0.999.
const NINES: f64 = 3.5;

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--text:#1b1f24;--soft:#5c6570;--line:#d8dee4;--a:#0b62c4;--b:#c2410c;--c:#15803d;--d:#9333ea;--e:#a16207;--f:#0e7490;--g:#be185d;--h:#52525b}\
@media(prefers-color-scheme:dark){:root{--ground:#14171b;--text:#e6e9ec;--soft:#9aa4ae;--line:#323940;--a:#6cb1ff;--b:#ff9d66;--c:#5fd68b;--d:#c79bff;--e:#e2b93b;--f:#5cc8dc;--g:#ff86b8;--h:#b4b4bd}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:20px 16px 48px;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .4em;overflow-wrap:anywhere}p,figcaption{color:var(--soft);margin:.3em 0}code{font-size:.85em;overflow-wrap:anywhere}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:8px 32px}figure{margin:0;min-width:0}svg{width:100%;height:auto;display:block}\
svg text{fill:var(--soft);font:13px system-ui,sans-serif}.grid{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}\
.key{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:6px 0;font-size:.9rem}.key svg{width:26px;height:10px;display:inline-block;vertical-align:middle;margin-right:6px}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}th,td{padding:4px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\
th{color:var(--soft);font-weight:600}td.text,th.text{text-align:left}.bar{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 12px;margin:10px 0;font-size:.92rem}\
.bar i{grid-column:1/-1;height:10px;border-radius:2px;background:var(--h);min-width:2px}.bar.ours i{background:var(--a)}.bar.ours b{color:var(--a)}.bar b{font-weight:600;overflow-wrap:anywhere}";

/// The whole page.
pub(super) fn render(kind: &str, outcome: &Outcome, machine: &Machine, command: &[String]) -> String {
    let mut page = String::new();
    let title = format!("meshwork bench {kind}");
    put(
        &mut page,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
        ),
    );
    put(&mut page, format_args!("<title>{}</title><style>{STYLE}</style></head><body><h1>{}</h1>", escape(&title), escape(&title)));
    put(
        &mut page,
        format_args!(
            "<p>{} · {} cores · Linux {} · load {:.2} when it began · Meshwork {}, quinn {}, rustls {}{}</p><p><code>{}</code></p>",
            escape(&machine.cpu),
            machine.cores,
            escape(&machine.kernel),
            machine.load[0],
            machine.version,
            machine.quinn,
            machine.rustls,
            if machine.optimized {
                ""
            } else {
                " · <strong>built without optimization: the figures say nothing about the product</strong>"
            },
            escape(&command.join(" ")),
        ),
    );
    curves(&mut page, &outcome.curves);
    bars(&mut page, &outcome.bars);
    page.push_str("<h2>All rows</h2>");
    table(&mut page, &outcome.rows);
    page.push_str("<p>Both ends run in one process; figures are medians over rounds that take turns; warm-up is not counted. The JSON of the same run holds every round and the raw histograms.</p></body></html>\n");
    page
}

/// A string takes everything that is written into it.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The names of the groups, in the order in which they first appear.
fn groups<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut groups = Vec::new();
    for name in names {
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    groups
}

/// Color and dashes of the curve with this place in its group; eight colors, then the same with dashes.
fn stroke(place: usize) -> (char, &'static str) {
    let color = char::from(b'a' + (place % 8) as u8);
    (color, if place >= 8 { "stroke-dasharray=\"6 4\"" } else { "" })
}

fn curves(page: &mut String, all: &[Curve]) {
    let names = groups(all.iter().map(|curve| curve.group.as_str()));
    if names.is_empty() {
        return;
    }
    page.push_str("<h2>Latency</h2><p>The part of messages that took no longer; right is slower, and each step up has a tenth of the messages left. Both axes are logarithmic.</p><div class=\"plots\">");
    for name in names {
        let members: Vec<&Curve> = all.iter().filter(|curve| curve.group == name && curve.samples.count() > 0).collect();
        put(page, format_args!("<figure><h2>{}</h2>", escape(name)));
        plot(page, &members);
        page.push_str("<ul class=\"key\">");
        for (place, curve) in members.iter().enumerate() {
            let (color, dashes) = stroke(place);
            put(
                page,
                format_args!(
                    "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"curve\" style=\"stroke:var(--{color})\" {dashes} d=\"M0 5H26\"/></svg>{}: p99 {}</li>",
                    escape(&curve.name),
                    millis(curve.samples.quantile_ms(0.99)),
                ),
            );
        }
        page.push_str("</ul></figure>");
    }
    page.push_str("</div>");
}

/// Milliseconds for people.
fn millis(millis: f64) -> String {
    match millis {
        millis if millis < 1.0 => format!("{:.0} µs", millis * 1e3),
        millis if millis < 100.0 => format!("{millis:.1} ms"),
        millis if millis < 1_000.0 => format!("{millis:.0} ms"),
        millis => format!("{:.1} s", millis / 1e3),
    }
}

fn plot(page: &mut String, members: &[&Curve]) {
    let least = members.iter().map(|curve| curve.samples.quantile_ms(0.0).max(0.001)).fold(f64::INFINITY, f64::min);
    let most = members.iter().map(|curve| curve.samples.quantile_ms(1.0)).fold(0.001, f64::max);
    // Whole decades, so that plots of one run can be laid side by side.
    let (from, to) = (least.min(most).log10().floor(), most.log10().ceil());
    let to = if to > from { to } else { from + 1.0 };
    let x = |millis: f64| LEFT + (WIDTH - LEFT - RIGHT) * (millis.max(1e-3).log10() - from) / (to - from);
    let y = |part: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (-(1.0 - part).max(1e-12).log10()).clamp(0.0, NINES) / NINES;
    put(page, format_args!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"cumulative distribution of latencies\">"));
    for decade in 0..=(to - from) as i32 {
        let at = 10_f64.powf(from + f64::from(decade));
        put(page, format_args!("<path class=\"grid\" d=\"M{:.1} {TOP}V{:.1}\"/>", x(at), HEIGHT - BOTTOM));
        let anchor = if decade == (to - from) as i32 { "end" } else { "middle" };
        put(page, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>", x(at), HEIGHT - 12.0, short(at)));
    }
    for (part, name) in [(0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")] {
        put(page, format_args!("<path class=\"grid\" d=\"M{LEFT} {:.1}H{:.1}\"/>", y(part), WIDTH - RIGHT));
        put(page, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", LEFT - 5.0, y(part) + 4.0));
    }
    for (place, curve) in members.iter().enumerate() {
        let (color, dashes) = stroke(place);
        put(
            page,
            format_args!(
                "<path class=\"curve\" style=\"stroke:var(--{color})\" {dashes} d=\"{}\"><title>{}</title></path>",
                path(&curve.samples, x, y),
                escape(&curve.name)
            ),
        );
    }
    page.push_str("</svg>");
}

/// A decade on the axis of time.
fn short(millis: f64) -> String {
    match millis {
        millis if millis < 0.9 => format!("{:.0} µs", millis * 1e3),
        millis if millis < 900.0 => format!("{millis:.0} ms"),
        millis => format!("{:.0} s", millis / 1e3),
    }
}

fn path(samples: &Samples, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    const POINTS: i32 = 160;
    let mut path = String::new();
    for point in 0..=POINTS {
        let part = 1.0 - 10_f64.powf(-NINES * f64::from(point) / f64::from(POINTS));
        // Beyond the last message there is nothing to draw.
        if part > 1.0 - 1.0 / samples.count().max(1) as f64 {
            break;
        }
        let command = if path.is_empty() { 'M' } else { 'L' };
        put(&mut path, format_args!("{command}{:.1} {:.1}", x(samples.quantile_ms(part)), y(part)));
    }
    path
}

fn bars(page: &mut String, all: &[Bar]) {
    let names = groups(all.iter().map(|bar| bar.group.as_str()));
    if names.is_empty() {
        return;
    }
    page.push_str("<div class=\"plots\">");
    for name in names {
        put(page, format_args!("<section><h2>{}</h2>", escape(name)));
        let members: Vec<&Bar> = all.iter().filter(|bar| bar.group == name).collect();
        let most = members.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in members {
            let ours = if bar.name.starts_with("meshwork") { " ours" } else { "" };
            let digits = usize::from(bar.value < 100.0);
            put(
                page,
                format_args!(
                    "<div class=\"bar{ours}\"><b>{}</b><span>{:.digits$} {}</span><i style=\"width:{:.1}%\"></i></div>",
                    escape(&bar.name),
                    bar.value,
                    bar.unit,
                    bar.value / most * 100.0,
                ),
            );
        }
        page.push_str("</section>");
    }
    page.push_str("</div>");
}

/// The plain fields of the rows: lists and nested ones stand in the JSON.
fn table(page: &mut String, rows: &[serde_json::Value]) {
    let Some(first) = rows.first().and_then(serde_json::Value::as_object) else { return };
    let columns: Vec<&String> = first.iter().filter(|(_, value)| !value.is_array() && !value.is_object()).map(|(name, _)| name).collect();
    page.push_str("<div class=\"scroll\"><table><thead><tr>");
    for column in &columns {
        let class = if first.get(*column).is_some_and(serde_json::Value::is_string) { " class=\"text\"" } else { "" };
        put(page, format_args!("<th{class}>{}</th>", escape(column)));
    }
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        for column in &columns {
            match row.get(column.as_str()) {
                Some(serde_json::Value::String(text)) => put(page, format_args!("<td class=\"text\">{}</td>", escape(text))),
                Some(serde_json::Value::Number(number)) => put(page, format_args!("<td>{}</td>", plain(number.as_f64().unwrap_or(0.0)))),
                _ => page.push_str("<td></td>"),
            }
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

/// A number with about four digits.
fn plain(number: f64) -> String {
    match number.abs() {
        _ if number.fract() == 0.0 => format!("{number:.0}"),
        size if size >= 1_000.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::cli::text::{Align, Table};

    #[test]
    fn a_page_stands_alone_and_shows_nothing_raw() {
        let mut samples = Samples::new();
        (1..=2_000).for_each(|micros| samples.record(Duration::from_micros(micros)));
        let outcome = Outcome {
            settings: json!({}),
            rows: vec![json!({ "case": "<b>", "p99_ms": 1.5, "facts": {} })],
            rounds: Vec::new(),
            table: Table::new(&[("case", Align::Left)]),
            curves: vec![Curve { group: "loop\"back".into(), name: "meshwork & more".into(), samples }],
            bars: vec![Bar { group: "64 bytes".into(), name: "meshwork".into(), value: 7.0, unit: "k" }],
        };
        let page = render("hol", &outcome, &Machine::look(), &["meshwork".into(), "<x>".into()]);
        for foreign in ["http:", "https:", "<script", "<link", "<img", "url(", "@import", "<b><", "<x>"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for part in ["meshwork &amp; more: p99 2.0 ms", "&lt;b&gt;", "prefers-color-scheme:dark", "width=device-width", "</html>"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "every number can be drawn");
    }
}
