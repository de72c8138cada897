//! What a network is like beside its links' latency, jitter and loss, and the settings that say so.

use serde::{Deserialize, Serialize};

use super::{Burst, Capacity, Classes, Link, Model, Trouble};
use crate::settings::{SettingError, Settings};

/// What a network is like. By default it is the plainest: latencies of pairs, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The latencies.
    pub model: Model,
    /// What may happen to a packet.
    pub trouble: Trouble,
    /// What the lines of the nodes carry.
    pub capacity: Capacity,
    /// Bytes of the largest datagram that passes; larger ones are lost. 0 for no limit.
    pub mtu: u64,
    /// Who can dial whom.
    pub classes: Classes,
}

/// The settings of the network that every scenario has, with their defaults.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("network", "pair"),
    ("latency", "20ms"),
    ("latency-min", "10ms"),
    ("latency-max", "50ms"),
    ("spread", "0.5"),
    ("access", "2ms"),
    ("jitter", "5ms"),
    ("loss", "0%"),
    ("burst-enter", "0%"),
    ("burst-leave", "25%"),
    ("burst-loss", "100%"),
    ("reorder", "0%"),
    ("reorder-by", "10ms"),
    ("duplicate", "0%"),
    ("up", "0"),
    ("down", "0"),
    ("queue", "64000"),
    ("mtu", "0"),
    ("cone", "0%"),
    ("symmetric", "0%"),
    ("blocked", "0%"),
];

/// Settings that only some models have.
const OF_MODELS: &[(&str, &[&str])] = &[
    ("latency", &["pair", "lognormal", "euclid"]),
    ("latency-min", &["uniform"]),
    ("latency-max", &["uniform"]),
    ("spread", &["lognormal"]),
    ("access", &["euclid", "earth"]),
];

/// Settings that say nothing unless one of others is above 0.
const NEEDS: &[(&str, &[&str])] =
    &[("burst-leave", &["burst-enter"]), ("burst-loss", &["burst-enter"]), ("reorder-by", &["reorder"]), ("queue", &["up", "down"])];

/// The least `burst-leave`: the state of a line is looked for as many packets back as a burst is long.
const LEAVE_MIN: f64 = 0.01;
/// No latency is longer, in microseconds.
const HOUR: u64 = 3_600_000_000;
/// The jitter of the model `lan` unless one is set, in microseconds.
const LAN_JITTER: u64 = 50;

impl Shape {
    /// Whether a network can have this shape, for one that comes from a file.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Trouble { reorder, reorder_by, duplicate, burst } = self.trouble;
        let Classes { cone, symmetric, blocked } = self.classes;
        let burst = burst.map_or([0.0; 3], |burst| [burst.enter, burst.leave, burst.loss]);
        let shares = [reorder, duplicate, cone, symmetric, blocked, cone + symmetric + blocked, burst[0], burst[1], burst[2]];
        let uniform = match self.model {
            Model::Uniform { min, max } => min <= max && max <= HOUR,
            Model::Euclid { access } | Model::Earth { access } => access <= HOUR,
            Model::LogNormal { spread } => (0.0..=10.0).contains(&spread),
            _ => true,
        };
        let is_burst = self.trouble.burst.is_none() || (burst[1] >= LEAVE_MIN && burst[0] + burst[1] <= 1.0);
        match shares.iter().all(|share| (0.0..=1.0).contains(share)) && uniform && is_burst && reorder_by <= HOUR {
            true => Ok(()),
            false => Err("its network has shares or times that cannot be".to_owned()),
        }
    }

    /// The links and the shape that settings say.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for settings that contradict each other, or that say something about what there is not.
    pub fn of(settings: &Settings) -> Result<(Link, Shape), SettingError> {
        let network = settings.word("network");
        for (key, models) in OF_MODELS {
            if settings.is_typed(key) && !models.contains(&network) {
                return Err(SettingError::new(format!(
                    "{key} is a setting of network={}, and network is `{network}`",
                    models.join(" or ")
                )));
            }
        }
        let is_zero = |key: &&str| settings.number(key) == 0 && settings.share(key) == 0.0;
        for (key, others) in NEEDS {
            if settings.is_typed(key) && others.iter().all(is_zero) {
                return Err(SettingError::new(format!("{key} says nothing unless {} is above 0", others.join(" or "))));
            }
        }
        let (number, share) = (|key| settings.number(key), |key| settings.share(key));
        let refuse = |is_wrong: bool, why: &str| if is_wrong { Err(SettingError::new(why)) } else { Ok(()) };
        refuse(number("latency-min") > number("latency-max"), "latency-min is above latency-max")?;
        refuse(share("reorder") > 0.0 && number("reorder-by") == 0, "reorder-by is 0, so reorder would do nothing")?;
        let enter = share("burst-enter");
        if enter > 0.0 {
            refuse(share("burst-leave") < LEAVE_MIN, "burst-leave is below 1%")?;
            refuse(
                enter + share("burst-leave") > 1.0,
                "burst-enter and burst-leave are above 100% together: losses would avoid one another",
            )?;
        }
        let classes = Classes { cone: share("cone"), symmetric: share("symmetric"), blocked: share("blocked") };
        refuse(classes.cone + classes.symmetric + classes.blocked > 1.0, "cone, symmetric and blocked are above 100% together")?;
        let model = match network {
            "lan" => Model::Lan,
            "uniform" => Model::Uniform { min: number("latency-min"), max: number("latency-max") },
            "lognormal" => Model::LogNormal { spread: share("spread") },
            "euclid" => Model::Euclid { access: number("access") },
            "earth" => Model::Earth { access: number("access") },
            "regions" => Model::Regions,
            _ => Model::Pair,
        };
        let jitter = if model == Model::Lan && !settings.is_typed("jitter") { LAN_JITTER } else { number("jitter") };
        let link = Link { latency: number("latency"), jitter, loss: share("loss") };
        let shape = Shape {
            model,
            trouble: Trouble {
                reorder: share("reorder"),
                reorder_by: number("reorder-by"),
                duplicate: share("duplicate"),
                burst: (enter > 0.0).then(|| Burst { enter, leave: share("burst-leave"), loss: share("burst-loss") }),
            },
            capacity: Capacity { up: number("up"), down: number("down"), queue: number("queue") },
            mtu: number("mtu"),
            classes,
        };
        Ok((link, shape))
    }

    /// The share of packets that are lost on the way, in the long run.
    pub fn mean_loss(&self, link: Link) -> f64 {
        let burst = self.trouble.burst.map_or(0.0, |burst| burst.mean_loss());
        1.0 - (1.0 - link.loss) * (1.0 - burst)
    }

    /// The network in a line.
    pub fn describe(&self, link: Link) -> String {
        let millis = |micros: u64| format!("{:.1} ms", micros as f64 / 1e3);
        let latency = match self.model {
            Model::Pair => millis(link.latency),
            Model::Lan => "lan".to_owned(),
            Model::Uniform { min, max } => format!("{} to {}", millis(min), millis(max)),
            Model::LogNormal { spread } => format!("log-normal {} by {spread}", millis(link.latency)),
            Model::Euclid { access } => format!("square of {}, access {}", millis(link.latency), millis(access)),
            Model::Earth { access } => format!("earth, access {}", millis(access)),
            Model::Regions => "regions".to_owned(),
        };
        let mut text = format!("{latency} + {}, {:.1} % lost", millis(link.jitter), self.mean_loss(link) * 100.0);
        let Trouble { reorder, duplicate, burst, .. } = self.trouble;
        if burst.is_some() {
            text.push_str(" in bursts");
        }
        for (share, what) in [
            (reorder, "late"),
            (duplicate, "double"),
            (self.classes.cone, "cone"),
            (self.classes.symmetric, "symmetric"),
            (self.classes.blocked, "blocked"),
        ] {
            if share > 0.0 {
                text.push_str(&format!(", {:.1} % {what}", share * 100.0));
            }
        }
        for (kilobits, what) in [(self.capacity.up, "up"), (self.capacity.down, "down")] {
            if kilobits > 0 {
                text.push_str(&format!(", {kilobits} kbit/s {what}"));
            }
        }
        if self.mtu > 0 {
            text.push_str(&format!(", datagrams up to {} B", self.mtu));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(typed: &[&str]) -> Result<(Link, Shape), String> {
        let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
        let settings = Settings::new(DEFAULTS, &typed).map_err(|error| error.to_string())?;
        Shape::of(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_plainest_network() {
        assert_eq!(of(&[]).unwrap().0, Link { latency: 20_000, jitter: 5_000, loss: 0.0 });
        let (link, mut plain) = of(&[]).unwrap();
        assert_eq!(plain.describe(link), "20.0 ms + 5.0 ms, 0.0 % lost");
        assert_eq!(plain.mean_loss(link), 0.0);
        // What says nothing while its share is 0 may have any value.
        plain.trouble.reorder_by = 0;
        assert_eq!(plain, Shape::default());
    }

    #[test]
    fn settings_say_what_the_network_is_like() {
        let (link, shape) = of(&["network=uniform", "latency-min=1ms", "latency-max=9ms", "up=1000", "mtu=1200", "cone=30%"]).unwrap();
        assert_eq!(shape.model, Model::Uniform { min: 1_000, max: 9_000 });
        assert_eq!(shape.describe(link), "1.0 ms to 9.0 ms + 5.0 ms, 0.0 % lost, 30.0 % cone, 1000 kbit/s up, datagrams up to 1200 B");
        let (link, shape) = of(&["network=lan", "burst-enter=10%", "burst-leave=40%", "burst-loss=50%", "loss=5%"]).unwrap();
        assert_eq!(link.jitter, 50);
        assert!((shape.mean_loss(link) - 0.145).abs() < 1e-9);
        assert!(shape.describe(link).starts_with("lan + 0.1 ms, 14.5 % lost in bursts"), "{}", shape.describe(link));
        for word in Model::WORDS {
            assert!(of(&[&format!("network={word}")]).is_ok(), "{word}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        for (typed, named) in [
            (&["network=earth", "latency=20ms"][..], "latency is a setting of network=pair or lognormal or euclid"),
            (&["latency-min=1ms"], "latency-min is a setting of network=uniform, and network is `pair`"),
            (&["network=uniform", "latency-min=60ms"], "latency-min is above latency-max"),
            (&["network=lan", "spread=0.2"], "spread is a setting of network=lognormal"),
            (&["access=1ms"], "access is a setting of network=euclid or earth"),
            (&["reorder-by=1ms"], "reorder-by says nothing unless reorder"),
            (&["reorder=1%", "reorder-by=0s"], "reorder-by is 0"),
            (&["burst-loss=50%"], "burst-loss says nothing unless burst-enter"),
            (&["burst-enter=1%", "burst-leave=0%"], "burst-leave is below 1%"),
            (&["burst-enter=60%", "burst-leave=50%"], "burst-enter and burst-leave"),
            (&["queue=2000"], "queue says nothing unless up or down"),
            (&["cone=50%", "symmetric=30%", "blocked=30%"], "cone, symmetric and blocked"),
            (&["network=moon"], "one of pair, lan"),
        ] {
            let refused = of(typed).unwrap_err();
            assert!(refused.contains(named), "{typed:?}: {refused}");
        }
    }
}
