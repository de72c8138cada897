//! Plots and drawings as SVG elements that stand in a page: a few shapes, axes with round numbers, and names for those who do not see them.
//!
//! Colors and fonts are classes that the page styles, so that a plot follows the colors of the reader.

use std::fmt::Write;

use meshwork_channels::random::{hash, unit};

/// The area of a plot, in units of its own; small, so that its text can be read on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// About so many numbers stand at an axis.
const TICKS: f64 = 5.0;
/// Letters of the longest word at an axis.
const WORD_MAX: usize = 14;
/// The side of a drawing.
const SIDE: f64 = 640.0;
/// Up to this many nodes of a drawing have their number in them.
const NUMBERED_MAX: usize = 60;
/// How often the nodes of a drawing move.
const MOVES: u32 = 250;

/// Makes text stand for itself in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with at most three digits behind the point and none that say nothing.
pub fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A share.
pub fn percent(value: f64) -> String {
    format!("{} %", plain(value * 100.0))
}

/// Seconds.
pub fn seconds(value: f64) -> String {
    format!("{} s", plain(value))
}

/// A time in milliseconds.
pub fn millis(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        _ if value < 1.0 => format!("{} µs", plain(value * 1e3)),
        _ if value < 1e3 => format!("{} ms", plain(value)),
        _ => format!("{} s", plain(value / 1e3)),
    }
}

/// A count of bytes.
pub fn bytes(value: f64) -> String {
    match value {
        _ if value < 1e3 => format!("{} B", plain(value)),
        _ if value < 1e6 => format!("{} kB", plain(value / 1e3)),
        _ if value < 1e9 => format!("{} MB", plain(value / 1e6)),
        _ => format!("{} GB", plain(value / 1e9)),
    }
}

/// One axis of a plot.
#[derive(Clone, Debug)]
pub struct Axis {
    label: String,
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below a number.
fn round_up(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least * 0.999_999).unwrap_or(least)
}

impl Axis {
    /// From 0 to a round number that is not below `most`.
    pub fn linear(label: &str, most: f64, format: fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_up(most / TICKS);
        Self::stepped(label, step * (most / step * 0.999_999).ceil(), step, format)
    }

    /// From 0 to `most` exactly.
    pub fn up_to(label: &str, most: f64, format: fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        Self::stepped(label, most, round_up(most / TICKS), format)
    }

    fn stepped(label: &str, to: f64, step: f64, format: fn(f64) -> String) -> Self {
        let count = (to / step * 1.000_001).floor() as u32;
        let ticks = (0..=count).map(|tick| f64::from(tick) * step).map(|at| (at, format(at))).collect();
        Axis { label: label.to_owned(), from: 0.0, to, is_log: false, ticks }
    }

    /// Whole numbers from `least` to `most`, with room for a bar at each.
    pub fn whole(label: &str, least: u64, most: u64) -> Self {
        let step = round_up(((most - least) as f64 / (2.0 * TICKS)).max(1.0)) as u64;
        let ticks = (least..=most).filter(|at| at.is_multiple_of(step)).map(|at| (at as f64, at.to_string())).collect();
        Axis { label: label.to_owned(), from: least as f64 - 0.6, to: most as f64 + 0.6, is_log: false, ticks }
    }

    /// Words, each at a whole number from 0 on. Long ones are cut, and of many some are left out.
    pub fn words(label: &str, words: &[String]) -> Self {
        let longest = words.iter().map(|word| word.chars().count().min(WORD_MAX)).max().unwrap_or(1).max(1);
        let room = ((WIDTH - LEFT - RIGHT) / (longest as f64 * 8.0 + 8.0)).max(1.0) as usize;
        let step = words.len().div_ceil(room).max(1);
        let short = |word: &String| match word.chars().count() {
            0..=WORD_MAX => word.clone(),
            _ => word.chars().take(WORD_MAX - 1).chain(['…']).collect(),
        };
        let ticks = words.iter().enumerate().step_by(step).map(|(at, word)| (at as f64, short(word))).collect();
        Axis { label: label.to_owned(), from: -0.5, to: words.len().max(1) as f64 - 0.5, is_log: false, ticks }
    }

    /// Shares from a round one that is not above `least` to all of them.
    pub fn share(label: &str, least: f64) -> Self {
        let from = [0.999, 0.99, 0.9, 0.5].into_iter().find(|from| least >= *from).unwrap_or(0.0);
        let ticks = (0..=5).map(|tick| from + (1.0 - from) * f64::from(tick) / 5.0).map(|at| (at, percent(at))).collect();
        Axis { label: label.to_owned(), from, to: 1.0, is_log: false, ticks }
    }

    /// Logarithmic, between round numbers around `least` and `most`.
    pub fn log(label: &str, least: f64, most: f64, format: fn(f64) -> String) -> Self {
        let least = if least > 0.0 && least.is_finite() { least } else { 1e-3 };
        let most = most.max(least);
        let to = round_up(most * 1.000_01);
        // The next below, which is the inverse of the next above the inverse.
        let from = (1.0 / round_up(1.0 / least)).min(to / 2.0);
        let factors: &[f64] = if to / from <= 200.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
        let ticks = (first..=last)
            .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)))
            .filter(|at| (from * 0.999..=to * 1.001).contains(at))
            .map(|at| (at, format(at)))
            .collect();
        Axis { label: label.to_owned(), from, to, is_log: true, ticks }
    }

    /// Where a value lies between the ends, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let part = match self.is_log {
            true => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        part.clamp(0.0, 1.0)
    }
}

/// How the values of a series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line through its points.
    Line,
    /// A line with a dot at each point.
    Dots,
    /// A dot at each point.
    Points,
    /// A line that keeps its height until the next point.
    Steps,
    /// A bar at each point, the width of a whole number.
    Bars,
    /// From each second point to the one after it a line upwards or downwards, with an end.
    Spans,
}

/// One thing in a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// The class of its color: a letter.
    pub color: char,
    /// Whether its line is broken.
    pub is_dashed: bool,
    /// How it is drawn.
    pub mark: Mark,
    /// Its values, in the order of the x axis.
    pub points: Vec<(f64, f64)>,
}

/// A part of the x axis in which something went on.
#[derive(Clone, Debug)]
pub struct Band {
    /// What, in the legend and as the class of its color.
    pub name: &'static str,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Its identifier in the page.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// The same for those who do not see it.
    pub about: String,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards.
    pub y: Axis,
    /// Behind everything.
    pub bands: Vec<Band>,
    /// From the back to the front.
    pub series: Vec<Series>,
}

/// The beginning of an element with the names that programs read aloud.
fn open(id: &str, title: &str, about: &str, width: f64, height: f64) -> String {
    format!(
        "<svg id=\"{id}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\
         <title id=\"{id}-title\">{}</title><desc id=\"{id}-about\">{}</desc>",
        escape(title),
        escape(about)
    )
}

impl Plot {
    /// Whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The element.
    pub fn draw(&self) -> String {
        let mut svg = open(&self.id, &self.title, &self.about, WIDTH, HEIGHT);
        let floor = HEIGHT - BOTTOM;
        if self.is_empty() {
            put!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nothing of the kind happened</text></svg>",
                WIDTH / 2.0,
                HEIGHT / 2.0
            );
            return svg;
        }
        let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * self.x.at(value);
        let y = |value: f64| floor - (floor - TOP) * self.y.at(value);
        for band in &self.bands {
            let (left, right) = (x(band.from), x(band.to));
            let width = (right - left).max(1.5);
            put!(svg, "<rect class=\"band {}\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\"/>", band.name, floor - TOP);
        }
        for (at, label) in &self.y.ticks {
            put!(svg, "<path class=\"grid\" d=\"M{LEFT} {:.1}H{}\"/>", y(*at), WIDTH - RIGHT);
            put!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, y(*at) + 4.0, escape(label));
        }
        for (at, label) in &self.x.ticks {
            put!(svg, "<path class=\"grid\" d=\"M{:.1} {floor}v4\"/>", x(*at));
            // At the edge a word in the middle of its tick would be cut off.
            let (place, anchor) = if x(*at) > WIDTH - RIGHT - 1.0 { (WIDTH - 2.0, "end") } else { (x(*at), "middle") };
            put!(svg, "<text x=\"{place:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>", floor + 18.0, escape(label));
        }
        put!(svg, "<text class=\"label\" x=\"4\" y=\"16\">{}</text>", escape(&self.y.label));
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        put!(svg, "<text class=\"label\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 8.0, escape(&self.x.label));
        for series in self.series.iter().filter(|series| !series.points.is_empty()) {
            series.draw(&mut svg, x, y);
        }
        svg.push_str("</svg>");
        svg
    }
}

impl Series {
    fn draw(&self, svg: &mut String, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
        let (color, name) = (self.color, escape(&self.name));
        let dashed = if self.is_dashed { " dashed" } else { "" };
        let mut path = String::new();
        if self.mark == Mark::Bars {
            for (at, value) in &self.points {
                put!(path, "M{:.1} {:.1}H{:.1}V{:.1}H{:.1}Z", x(at - 0.4), y(0.0), x(at + 0.4), y(*value), x(at - 0.4));
            }
            put!(svg, "<path class=\"bars {color}\" d=\"{path}\"><title>{name}</title></path>");
            return;
        }
        if self.mark == Mark::Spans {
            for pair in self.points.chunks_exact(2) {
                let (across, foot, end) = (x(pair[0].0), y(pair[0].1), y(pair[1].1));
                put!(path, "M{across:.1} {foot:.1}V{end:.1}M{:.1} {end:.1}h8", across - 4.0);
            }
            put!(svg, "<path class=\"spans {color}\" d=\"{path}\"><title>{name}</title></path>");
            return;
        }
        if self.mark == Mark::Points {
            let dots: String = self.points.iter().map(|(at, value)| format!("M{:.1} {:.1}h0", x(*at), y(*value))).collect();
            put!(svg, "<path class=\"dots small {color}\" d=\"{dots}\"><title>{name}</title></path>");
            return;
        }
        let mut last = None;
        for (at, value) in &self.points {
            let (right, up) = (x(*at), y(*value));
            // What would be drawn over itself is left out.
            if last.is_some_and(|(x, y): (f64, f64)| (x - right).abs() < 0.05 && (y - up).abs() < 0.05) {
                continue;
            }
            match (last, self.mark) {
                (None, _) => put!(path, "M{right:.1} {up:.1}"),
                (Some(_), Mark::Steps) => put!(path, "H{right:.1}V{up:.1}"),
                (Some(_), _) => put!(path, "L{right:.1} {up:.1}"),
            }
            last = Some((right, up));
        }
        put!(svg, "<path class=\"curve {color}{dashed}\" d=\"{path}\"><title>{name}</title></path>");
        if self.mark == Mark::Dots {
            let dots: String = self.points.iter().map(|(at, value)| format!("M{:.1} {:.1}h0", x(*at), y(*value))).collect();
            put!(svg, "<path class=\"dots {color}\" d=\"{dots}\"/>");
        }
    }
}

/// A node of a drawing.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Its number.
    pub node: u32,
    /// Whether it is alive.
    pub is_up: bool,
    /// How many neighbors it has, drawn or not.
    pub degree: u32,
}

/// Draws nodes and the links between them, given as pairs of places in `dots`.
pub fn drawing(id: &str, title: &str, about: &str, dots: &[Dot], links: &[(u32, u32)]) -> String {
    let mut svg = open(id, title, about, SIDE, SIDE);
    let is_numbered = dots.len() <= NUMBERED_MAX;
    let radius = if is_numbered { 12.0 } else { 5.5 };
    let places = arrange(dots.len(), links, radius);
    let mut path = String::new();
    for (one, other) in links {
        let ((x, y), (to_x, to_y)) = (places[*one as usize], places[*other as usize]);
        put!(path, "M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}");
    }
    put!(svg, "<path class=\"links\" d=\"{path}\"/>");
    for (dot, (x, y)) in dots.iter().zip(&places) {
        let (class, what) = match dot.is_up {
            true => ("up", format!("{} neighbors", dot.degree)),
            false => ("down", "down".to_owned()),
        };
        put!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>node {}: {what}</title></circle>", dot.node);
        if !dot.is_up {
            let arm = radius * 0.7;
            put!(svg, "<path class=\"cross\" d=\"M{:.1} {:.1}l{:.1} {:.1}", x - arm, y - arm, 2.0 * arm, 2.0 * arm);
            put!(svg, "M{:.1} {:.1}l{:.1} {:.1}\"/>", x + arm, y - arm, -2.0 * arm, 2.0 * arm);
        }
        if is_numbered {
            put!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", y + 4.0, dot.node);
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Places for nodes in a drawing. Those without a link stand in rows at its foot, where they take no room from the others.
fn arrange(len: usize, links: &[(u32, u32)], radius: f64) -> Vec<(f64, f64)> {
    let mut place = vec![None; len];
    let mut linked = 0;
    for end in links.iter().flat_map(|(one, other)| [*one, *other]) {
        place[end as usize].get_or_insert_with(|| {
            linked += 1;
            linked - 1
        });
    }
    let moved = |end: u32| place[end as usize].unwrap_or(0) as u32;
    let links: Vec<(u32, u32)> = links.iter().map(|(one, other)| (moved(*one), moved(*other))).collect();
    let (edge, step) = (radius + 4.0, 2.5 * radius);
    let in_row = ((SIDE - 2.0 * edge) / step) as usize;
    let alone = len - linked;
    let foot = alone.div_ceil(in_row) as f64 * step;
    let places = layout(linked, &links);
    let mut next = 0;
    let spot = |place: &Option<usize>| match place {
        Some(index) => {
            let (x, y) = places[*index];
            (edge + x * (SIDE - 2.0 * edge), edge + y * (SIDE - 2.0 * edge - foot))
        }
        None => {
            let (row, column) = (next / in_row, next % in_row);
            next += 1;
            (edge + column as f64 * step, SIDE - foot + step / 2.0 + row as f64 * step)
        }
    };
    place.iter().map(spot).collect()
}

/// Places for nodes in a square of side 1: links pull, nodes push each other away and all are drawn to the middle (Fruchterman and Reingold,
/// Software: Practice and Experience, 1991). It uses what every machine computes alike, so that a drawing is the same everywhere.
fn layout(len: usize, links: &[(u32, u32)]) -> Vec<(f64, f64)> {
    let start = |index: u64, side: u64| unit(hash(&[index, side])) - 0.5;
    let mut places: Vec<(f64, f64)> = (0..len as u64).map(|index| (start(index, 1), start(index, 2))).collect();
    let wish = (1.0 / len.max(1) as f64).sqrt();
    let mut pull = vec![(0.0, 0.0); len];
    for round in 0..MOVES {
        pull.fill((0.0, 0.0));
        for one in 0..len {
            for other in one + 1..len {
                let (x, y) = (places[one].0 - places[other].0, places[one].1 - places[other].1);
                let force = wish * wish / (x * x + y * y).max(1e-6);
                pull[one] = (pull[one].0 + x * force, pull[one].1 + y * force);
                pull[other] = (pull[other].0 - x * force, pull[other].1 - y * force);
            }
        }
        for (one, other) in links {
            let (one, other) = (*one as usize, *other as usize);
            let (x, y) = (places[other].0 - places[one].0, places[other].1 - places[one].1);
            let force = (x * x + y * y).sqrt() / wish * 0.5;
            pull[one] = (pull[one].0 + x * force, pull[one].1 + y * force);
            pull[other] = (pull[other].0 - x * force, pull[other].1 - y * force);
        }
        let longest = 0.1 * f64::from(MOVES - round) / f64::from(MOVES);
        for (place, pull) in places.iter_mut().zip(&pull) {
            let (x, y) = (pull.0 - place.0 * 1.5, pull.1 - place.1 * 1.5);
            let length = (x * x + y * y).sqrt().max(1e-9);
            let step = length.min(longest) / length;
            *place = (place.0 + x * step, place.1 + y * step);
        }
    }
    // To all four sides, where there is more than one place.
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (x, y) = (ends(&mut places.iter().map(|place| place.0)), ends(&mut places.iter().map(|place| place.1)));
    let part = |value: f64, (least, most): (f64, f64)| if most > least { (value - least) / (most - least) } else { 0.5 };
    places.iter().map(|place| (part(place.0, x), part(place.1, y))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(labels(&Axis::linear("", 0.93, percent)), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(&Axis::linear("", 1.0, percent)), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(&Axis::linear("", 0.0, plain)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&Axis::linear("", 2_345.0, bytes)), ["0 B", "500 B", "1 kB", "1.5 kB", "2 kB", "2.5 kB"]);
        assert_eq!(labels(&Axis::up_to("", 73.0, seconds)), ["0 s", "20 s", "40 s", "60 s"]);
        assert_eq!(labels(&Axis::log("", 12.0, 310.0, millis)), ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms", "500 ms"]);
        assert_eq!(labels(&Axis::log("", 0.3, 40_000.0, millis)), ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert_eq!(labels(&Axis::whole("", 3, 6)), ["3", "4", "5", "6"]);
        assert_eq!(labels(&Axis::share("", 0.993)), ["99 %", "99.2 %", "99.4 %", "99.6 %", "99.8 %", "100 %"]);
        assert_eq!(labels(&Axis::share("", 0.2))[..2], ["0 %", "20 %"]);
        let words: Vec<String> = ["4", "five", "a rather long word"].map(str::to_owned).to_vec();
        assert_eq!(labels(&Axis::words("", &words)), ["4", "five", "a rather long…"]);
        assert!(labels(&Axis::words("", &vec![words[2].clone(); 40])).len() < 5);
        assert_eq!(labels(&Axis::whole("", 0, 60)), ["0", "10", "20", "30", "40", "50", "60"]);
    }

    #[test]
    fn every_value_lies_within_its_axis() {
        for most in [0.0, 1e-9, 0.1, 1.0, 3.0, 9.99, 1e12] {
            for axis in [Axis::linear("", most, plain), Axis::up_to("", most, plain), Axis::log("", most / 7.0, most, plain)] {
                assert!(axis.to >= most && axis.from < axis.to, "{axis:?}");
                assert!(axis.at(most).is_finite() && axis.at(0.0).is_finite(), "{axis:?}");
                assert!(axis.ticks.len() < 20, "{axis:?}");
            }
        }
    }

    #[test]
    fn nodes_without_a_link_stand_at_the_foot() {
        let places = arrange(100, &[(3, 7), (7, 9)], 12.0);
        let lowest = [3, 7, 9].map(|node: usize| places[node].1).into_iter().fold(0.0, f64::max);
        for (node, (x, y)) in places.iter().enumerate() {
            assert!((12.0..=SIDE - 12.0).contains(x) && (12.0..=SIDE - 12.0).contains(y), "{node}: {x} {y}");
            assert!([3, 7, 9].contains(&node) || *y > lowest + 12.0, "{node}: {y}");
        }
        assert!(arrange(0, &[], 5.0).is_empty());
        assert_eq!(arrange(2, &[], 5.0).len(), 2);
    }

    #[test]
    fn a_layout_stays_in_its_square_and_keeps_linked_nodes_together() {
        // Two rings without a link between them.
        let links: Vec<(u32, u32)> = (0..10).map(|index| (index, (index + 1) % 10)).flat_map(|(a, b)| [(a, b), (a + 10, b + 10)]).collect();
        let places = layout(20, &links);
        assert!(places.iter().all(|(x, y)| (0.0..=1.0).contains(x) && (0.0..=1.0).contains(y)));
        let middle = |ring: &[(f64, f64)]| {
            let sum = ring.iter().fold((0.0, 0.0), |sum, place| (sum.0 + place.0, sum.1 + place.1));
            (sum.0 / 10.0, sum.1 / 10.0)
        };
        let (one, other) = (middle(&places[..10]), middle(&places[10..]));
        assert!((one.0 - other.0).abs() + (one.1 - other.1).abs() > 0.1, "the rings lie apart");
        assert_eq!(places, layout(20, &links));
    }
}
