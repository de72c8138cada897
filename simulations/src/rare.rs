//! Rare behavior of our own code, as runs switch it on: which places are active in a run, and how plans and reports name them.

use meshwork_channels::buggify::{Buggify, Site, Sites};
use serde::{Deserialize, Deserializer, Serializer};

use crate::plan::Draw;

/// In how many runs of a hundred a place is active, of those that have any.
const ACTIVE: u64 = 25;

/// The places that are active in the run of a seed: each by a draw of its own, so that one more of them changes nothing of the others. None in a build without them.
pub fn drawn(seed: u64) -> Sites {
    if !Buggify::IS_BUILT {
        return Sites::NONE;
    }
    let is_active = |site: &Site| Draw::new(seed, &format!("buggify {}", site.name())).chance(ACTIVE);
    Site::ALL.into_iter().filter(is_active).fold(Sites::NONE, Sites::with)
}

/// The metric that says how often a place fired.
pub fn metric(site: Site) -> &'static str {
    match site {
        Site::GraftCut => "buggify_graft_cut",
        Site::AnnounceLate => "buggify_announce_late",
        Site::SummaryCut => "buggify_summary_cut",
        Site::EarlyForgotten => "buggify_early_forgotten",
        Site::PushTwice => "buggify_push_twice",
        Site::ShuffleSkipped => "buggify_shuffle_skipped",
        Site::NeighborRefused => "buggify_neighbor_refused",
        Site::PassiveForgotten => "buggify_passive_forgotten",
        Site::ProbeSkipped => "buggify_probe_skipped",
        Site::AnswerCut => "buggify_answer_cut",
        Site::CompareIgnored => "buggify_compare_ignored",
        Site::DeltaLate => "buggify_delta_late",
    }
}

/// What happens at a place.
pub fn about(site: Site) -> &'static str {
    match site {
        Site::GraftCut => "times that a graft was answered in part",
        Site::AnnounceLate => "times that announcements waited as long as they may",
        Site::SummaryCut => "summaries that ended after one message",
        Site::EarlyForgotten => "times that an early announcer was forgotten",
        Site::PushTwice => "payloads that went over a link twice",
        Site::ShuffleSkipped => "shuffles that were skipped",
        Site::NeighborRefused => "neighbors that were refused although there was room",
        Site::PassiveForgotten => "passive peers that were forgotten",
        Site::ProbeSkipped => "comparisons of replicas that were skipped",
        Site::AnswerCut => "answers to comparisons that carried one entry at most",
        Site::CompareIgnored => "comparisons that were not answered",
        Site::DeltaLate => "times that writes waited for a second",
    }
}

/// The place that a metric is about.
pub fn of_metric(name: &str) -> Option<Site> {
    Site::ALL.into_iter().find(|site| metric(*site) == name)
}

pub(crate) fn is_empty(sites: &Sites) -> bool {
    sites.is_empty()
}

pub(crate) fn serialize<S: Serializer>(sites: &Sites, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sites.iter().map(Site::name))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sites, D::Error> {
    let mut sites = Sites::NONE;
    for name in Vec::<String>::deserialize(deserializer)? {
        let Some(site) = Site::ALL.into_iter().find(|site| site.name() == name) else {
            let names: Vec<&str> = Site::ALL.into_iter().map(Site::name).collect();
            return Err(serde::de::Error::custom(crate::settings::unknown("place of `buggify`", &name, &names)));
        };
        sites = sites.with(site);
    }
    Ok(sites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_active_in_a_quarter_of_the_runs_each_by_itself() {
        let drawn: Vec<Sites> = (0..1_000).map(drawn).collect();
        for site in Site::ALL {
            let active = drawn.iter().filter(|sites| sites.has(site)).count();
            assert_eq!((200..300).contains(&active), Buggify::IS_BUILT, "{} in {active} of 1,000", site.name());
            assert_eq!(metric(site), format!("buggify_{}", site.name()));
            assert_eq!(of_metric(metric(site)), Some(site));
        }
    }
}
