//! A comparison for people, for programs, and as a page.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::report::{SCHEMA, pretty};
use super::{Carried, Comparison, Figures};

/// How late packets were, in microseconds: in the mean, and at most.
fn late(carried: &Carried) -> (f64, u64) {
    (carried.late as f64 / carried.arrived.max(1) as f64, carried.late_max)
}

/// The rows of the table: whose, the figures, and the distance where it stands.
fn rows(comparison: &Comparison) -> Vec<(String, &'static str, Figures, Option<f64>)> {
    let mut rows = Vec::new();
    for pair in &comparison.pairs {
        rows.push((pair.seed.to_string(), "simulated", pair.simulated.figures(), None));
        rows.push((pair.seed.to_string(), "real", pair.real.figures(), Some(pair.distance())));
    }
    if comparison.pairs.len() > 1 {
        let (simulated, real, distance) = comparison.sum();
        rows.push(("all".to_owned(), "simulated", simulated, None));
        rows.push(("all".to_owned(), "real", real, Some(distance)));
    }
    rows
}

/// For people.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = format!("{}\n\n", comparison.plan);
    let _ = writeln!(
        text,
        "  {:>5}  {:<9} {:>10} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "seed", "", "broadcasts", "delivery", "deliveries", "p50 ms", "p90 ms", "p99 ms", "last hop", "KS"
    );
    for (seed, side, figures, distance) in rows(comparison) {
        let Figures { messages, delivery, deliveries, latency_p50_ms, latency_p90_ms, latency_p99_ms, last_hop_mean } = figures;
        let distance = distance.map_or(String::new(), |distance| format!("{distance:.3}"));
        let line = format!(
            "  {seed:>5}  {side:<9} {messages:>10} {delivery:>9.4} {deliveries:>10} {latency_p50_ms:>9.1} {latency_p90_ms:>9.1} {latency_p99_ms:>9.1} \
             {last_hop_mean:>9.2} {distance:>7}"
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
    for pair in &comparison.pairs {
        let Carried { packets, bytes, lost, dropped, .. } = pair.carried;
        let (mean, most) = late(&pair.carried);
        let _ = writeln!(
            text,
            "  wire of seed {}: {packets} packets, {bytes} bytes; {lost} lost, {dropped} dropped; handed over {mean:.0} us late in the mean, {most} us at most",
            pair.seed
        );
    }
    text
}

/// For programs.
pub(super) fn json(comparison: &Comparison) -> String {
    #[derive(Serialize)]
    struct Wire {
        packets: u64,
        bytes: u64,
        lost: u64,
        dropped: u64,
        strays: u64,
        late_mean_us: f64,
        late_max_us: u64,
    }
    #[derive(Serialize)]
    struct Run {
        #[serde(skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
        simulated: Figures,
        real: Figures,
        ks: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        wire: Option<Wire>,
    }
    #[derive(Serialize)]
    struct Json<'a> {
        schema: u32,
        version: &'static str,
        command: &'a str,
        plan: &'a str,
        ok: bool,
        ks_max: Option<f64>,
        runs: Vec<Run>,
        all: Run,
    }
    let wire = |carried: &Carried| {
        let Carried { packets, bytes, lost, dropped, strays, .. } = *carried;
        let (late_mean_us, late_max_us) = late(carried);
        Wire { packets, bytes, lost, dropped, strays, late_mean_us, late_max_us }
    };
    let runs = comparison.pairs.iter().map(|pair| Run {
        seed: Some(pair.seed),
        simulated: pair.simulated.figures(),
        real: pair.real.figures(),
        ks: pair.distance(),
        wire: Some(wire(&pair.carried)),
    });
    let (simulated, real, ks) = comparison.sum();
    pretty(&Json {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        command: &comparison.command,
        plan: &comparison.plan,
        ok: comparison.failures().is_empty(),
        ks_max: comparison.ks_max,
        runs: runs.collect(),
        all: Run { seed: None, simulated, real, ks, wire: None },
    })
}

/// As a page.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut text = String::from("# Simulated nodes against real processes\n\n");
    let bound = comparison.ks_max.map_or(String::new(), |max| format!(" --ks-max {max}"));
    let page = comparison.markdown.as_ref().map_or(String::new(), |path| format!(" --markdown {path}"));
    let _ = writeln!(
        text,
        "Written by this command, and every number in it measured by it:\n\n```sh\n{}{bound}{page}\n```\n",
        comparison.command.replacen("meshwork-sim", "cargo sim", 1)
    );
    let _ = writeln!(
        text,
        "The plan: {}. The same plan is played in virtual time and carried out by as many `meshwork node` processes, over a wire with the same network; \
         [simulation.md](simulation.md#real-processes) says how. KS is the Kolmogorov-Smirnov distance of the two distributions of delivery latency.\n",
        comparison.plan
    );
    text.push_str("| seed | | broadcasts | delivery | deliveries | p50 | p90 | p99 | mean last hop | KS |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (seed, side, figures, distance) in rows(comparison) {
        let Figures { messages, delivery, deliveries, latency_p50_ms, latency_p90_ms, latency_p99_ms, last_hop_mean } = figures;
        let distance = distance.map_or(String::new(), |distance| format!("{distance:.3}"));
        let _ = writeln!(
            text,
            "| {seed} | {side} | {messages} | {delivery:.4} | {deliveries} | {latency_p50_ms:.1} ms | {latency_p90_ms:.1} ms | {latency_p99_ms:.1} ms | \
             {last_hop_mean:.2} | {distance} |"
        );
    }
    text.push_str("\n| seed | packets on the wire | lost by the model | dropped otherwise | late in the mean | late at most |\n|---|---|---|---|---|---|\n");
    for pair in &comparison.pairs {
        let Carried { packets, lost, dropped, .. } = pair.carried;
        let (mean, most) = late(&pair.carried);
        let share = lost as f64 / packets.max(1) as f64 * 100.0;
        let _ = writeln!(text, "| {} | {packets} | {lost} ({share:.2} %) | {dropped} | {mean:.0} µs | {most} µs |", pair.seed);
    }
    text
}
