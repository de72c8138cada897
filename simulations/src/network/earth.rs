//! Cities of the earth, and how long light in a fiber takes between them on the ways that there are.
//!
//! The way between two cities takes their great circle at 200 km/ms, times how far the real way is longer. That factor is drawn once for each pair of cities; its
//! quantiles at 10, 50 and 90 % are what 21 regions of a public cloud show when their round trips are compared with the great circles between them
//! (1.42, 1.79 and 2.73). The ends of the distribution are guesses. Because factors are drawn for each pair, a way over a third city can be shorter than the
//! direct one, as on the Internet.

use meshwork_channels::random::hash;

use super::WAY;
use super::latency::{running_sums, weighted};

/// Name, latitude and longitude in hundredths of a degree, and people of the city and what has grown together with it, in millions, rounded.
pub const CITIES: [(&str, i32, i32, u64); 66] = [
    ("New York", 4_071, -7_401, 19),
    ("Los Angeles", 3_405, -11_824, 13),
    ("Chicago", 4_188, -8_763, 9),
    ("Dallas", 3_278, -9_680, 8),
    ("Miami", 2_576, -8_019, 6),
    ("Atlanta", 3_375, -8_439, 6),
    ("Washington", 3_891, -7_704, 6),
    ("San Francisco", 3_777, -12_242, 5),
    ("Seattle", 4_761, -12_233, 4),
    ("Toronto", 4_365, -7_938, 6),
    ("Montreal", 4_550, -7_357, 4),
    ("Mexico City", 1_943, -9_913, 22),
    ("Guadalajara", 2_067, -10_335, 5),
    ("Bogota", 471, -7_407, 11),
    ("Lima", -1_205, -7_704, 11),
    ("Santiago", -3_345, -7_067, 7),
    ("Buenos Aires", -3_460, -5_838, 15),
    ("Sao Paulo", -2_355, -4_663, 22),
    ("Rio de Janeiro", -2_291, -4_317, 13),
    ("Recife", -805, -3_488, 4),
    ("London", 5_151, -13, 14),
    ("Paris", 4_886, 235, 11),
    ("Madrid", 4_042, -370, 7),
    ("Barcelona", 4_139, 217, 5),
    ("Lisbon", 3_872, -914, 3),
    ("Amsterdam", 5_237, 490, 3),
    ("Frankfurt", 5_011, 868, 3),
    ("Berlin", 5_252, 1_340, 4),
    ("Milan", 4_546, 919, 4),
    ("Rome", 4_190, 1_250, 4),
    ("Vienna", 4_821, 1_637, 2),
    ("Warsaw", 5_223, 2_101, 2),
    ("Stockholm", 5_933, 1_806, 2),
    ("Kyiv", 5_045, 3_052, 3),
    ("Moscow", 5_576, 3_762, 13),
    ("Istanbul", 4_101, 2_898, 15),
    ("Cairo", 3_004, 3_124, 21),
    ("Lagos", 652, 338, 15),
    ("Accra", 560, -19, 3),
    ("Nairobi", -129, 3_682, 5),
    ("Johannesburg", -2_620, 2_805, 10),
    ("Cape Town", -3_393, 1_842, 5),
    ("Casablanca", 3_357, -759, 4),
    ("Riyadh", 2_471, 4_668, 7),
    ("Dubai", 2_520, 5_527, 3),
    ("Tehran", 3_569, 5_139, 9),
    ("Karachi", 2_486, 6_700, 16),
    ("Delhi", 2_861, 7_721, 31),
    ("Mumbai", 1_908, 7_288, 20),
    ("Bangalore", 1_297, 7_759, 13),
    ("Dhaka", 2_381, 9_041, 22),
    ("Bangkok", 1_376, 10_050, 11),
    ("Singapore", 135, 10_382, 6),
    ("Jakarta", -621, 10_685, 11),
    ("Manila", 1_460, 12_098, 14),
    ("Ho Chi Minh City", 1_082, 10_663, 9),
    ("Hong Kong", 2_232, 11_417, 7),
    ("Shanghai", 3_123, 12_147, 28),
    ("Beijing", 3_990, 11_641, 21),
    ("Seoul", 3_757, 12_698, 10),
    ("Tokyo", 3_569, 13_969, 37),
    ("Osaka", 3_469, 13_550, 19),
    ("Taipei", 2_503, 12_157, 7),
    ("Sydney", -3_387, 15_121, 5),
    ("Melbourne", -3_781, 14_496, 5),
    ("Auckland", -3_685, 17_476, 2),
];

/// Parts of the earth, in the order in which their cities stand in [`CITIES`].
pub const PARTS: [&str; 9] =
    ["north america", "latin america", "europe", "africa", "west asia", "south asia", "south-east asia", "east asia", "oceania"];
/// The first city after each part.
const PART_ENDS: [usize; 9] = [11, 20, 36, 43, 46, 51, 56, 63, 66];

const LEN: usize = CITIES.len();
/// Running sums of the people.
const PEOPLE: [u64; LEN] = {
    let mut people = [0; LEN];
    let mut index = 0;
    while index < LEN {
        people[index] = CITIES[index].3;
        index += 1;
    }
    running_sums(people)
};
/// The mean radius of the earth in meters.
const RADIUS: f64 = 6_371_008.8;
/// By how many thousandths a way is as long as the great circle: quantiles in thousandths, and the values there, with straight lines between.
const FACTORS: [(u64, u64); 5] = [(0, 1_200), (100, 1_420), (500, 1_790), (900, 2_730), (1_000, 3_500)];

/// The ways between the cities under a seed.
#[derive(Clone, Debug)]
pub struct Earth {
    /// In microseconds, by both cities.
    ways: Vec<u32>,
}

impl Earth {
    /// Draws the ways.
    pub fn new(seed: u64) -> Self {
        let units: Vec<[f64; 3]> = CITIES.iter().map(|(_, latitude, longitude, _)| unit_vector(*latitude, *longitude)).collect();
        let mut ways = vec![0; LEN * LEN];
        for a in 0..LEN {
            for b in a + 1..LEN {
                let factor = factor(hash(&[seed, WAY, a as u64, b as u64]));
                // Meters at 200 m/us, times thousandths.
                let way = (u128::from(great_circle(&units[a], &units[b])) * u128::from(factor) / 200_000) as u32;
                ways[a * LEN + b] = way;
                ways[b * LEN + a] = way;
            }
        }
        Earth { ways }
    }

    /// One way between two cities, in microseconds; 0 within one.
    pub fn way(&self, a: usize, b: usize) -> u64 {
        u64::from(self.ways[a * LEN + b])
    }
}

/// The city for a draw, by people.
pub fn city(draw: u64) -> usize {
    weighted(&PEOPLE, draw)
}

/// In which of the [`PARTS`] a city lies.
pub fn part(city: usize) -> usize {
    PART_ENDS.partition_point(|end| *end <= city)
}

/// How much longer than the great circle a way is, in thousandths.
fn factor(draw: u64) -> u64 {
    // A position among a million, so that the rests of the division stay small beside it.
    let position = draw % 1_000_000;
    let index = FACTORS.partition_point(|(quantile, _)| quantile * 1_000 <= position);
    let ((from, low), (to, high)) = (FACTORS[index - 1], FACTORS[index]);
    low + (high - low) * (position - from * 1_000) / ((to - from) * 1_000)
}

/// The point of the unit sphere at a latitude and a longitude, in hundredths of a degree.
fn unit_vector(latitude: i32, longitude: i32) -> [f64; 3] {
    let radians = |hundredths: i32| f64::from(hundredths) * (std::f64::consts::PI / 18_000.0);
    let (latitude, longitude) = (radians(latitude), radians(longitude));
    let [(up, out), (east, ahead)] = [latitude, longitude].map(sine_and_cosine);
    [out * ahead, out * east, up]
}

/// Meters along the great circle between two points of the unit sphere.
fn great_circle(a: &[f64; 3], b: &[f64; 3]) -> u64 {
    let square: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    // Half the chord is the sine of half the angle. Each halving of the angle brings it nearer to where the series is exact after few terms.
    let mut sine = (square.sqrt() / 2.0).min(1.0);
    let mut angles = 2.0;
    for _ in 0..4 {
        sine /= (2.0 * (1.0 + (1.0 - sine * sine).sqrt())).sqrt();
        angles *= 2.0;
    }
    let x = sine * sine;
    let arc = sine * (1.0 + x * (1.0 / 6.0 + x * (3.0 / 40.0 + x * (15.0 / 336.0 + x * (105.0 / 3_456.0)))));
    (RADIUS * angles * arc) as u64
}

/// The sine and the cosine from multiplications alone: those of the standard library differ from platform to platform.
fn sine_and_cosine(angle: f64) -> (f64, f64) {
    let (mut sine, mut cosine, mut term) = (0.0, 0.0, 1.0);
    for power in 0..32_u32 {
        // The terms of the exponential series of i times the angle: the even ones are the cosine's, the odd ones the sine's.
        let signed = if power & 2 == 0 { term } else { -term };
        if power & 1 == 0 {
            cosine += signed
        } else {
            sine += signed
        }
        term *= angle / f64::from(power + 1);
    }
    (sine, cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> usize {
        CITIES.iter().position(|city| city.0 == name).unwrap()
    }

    #[test]
    fn great_circles_are_those_of_a_globe() {
        // In meters, by the haversine formula.
        for (a, b, meters) in [
            ("London", "New York", 5_570_452),
            ("Sydney", "London", 16_994_092),
            ("Paris", "Frankfurt", 477_749),
            ("Tokyo", "Singapore", 5_315_170),
            ("Auckland", "Madrid", 19_596_238),
            ("Los Angeles", "Shanghai", 10_435_002),
        ] {
            let [from, to] = [a, b].map(|name| unit_vector(CITIES[named(name)].1, CITIES[named(name)].2));
            assert!(great_circle(&from, &to).abs_diff(meters) <= 1, "{a} to {b}: {}", great_circle(&from, &to));
        }
    }

    #[test]
    fn cities_lie_in_their_parts() {
        for (city, part_of) in [
            ("New York", "north america"),
            ("Montreal", "north america"),
            ("Mexico City", "latin america"),
            ("Recife", "latin america"),
            ("London", "europe"),
            ("Istanbul", "europe"),
            ("Cairo", "africa"),
            ("Casablanca", "africa"),
            ("Tehran", "west asia"),
            ("Dhaka", "south asia"),
            ("Bangkok", "south-east asia"),
            ("Ho Chi Minh City", "south-east asia"),
            ("Hong Kong", "east asia"),
            ("Taipei", "east asia"),
            ("Auckland", "oceania"),
        ] {
            assert_eq!(PARTS[part(named(city))], part_of, "{city}");
        }
    }

    #[test]
    fn ways_are_longer_than_great_circles_as_configured() {
        let mut factors: Vec<u64> = (0..100_000).map(|number| factor(hash(&[1, number]))).collect();
        factors.sort_unstable();
        for (quantile, expected) in [(10, 1_420.0), (50, 1_790.0), (90, 2_730.0)] {
            let found = factors[quantile * 1_000] as f64;
            assert!((found / expected - 1.0).abs() < 0.02, "{found} at {quantile} %");
        }
    }

    #[test]
    fn people_decide_who_lives_where() {
        let mut lives = [0_u32; LEN];
        (0..100_000).for_each(|number| lives[city(hash(&[1, number]))] += 1);
        let people: u64 = CITIES.iter().map(|city| city.3).sum();
        assert!(lives.iter().all(|count| *count > 0));
        let share = f64::from(lives[named("Tokyo")]) / 100_000.0;
        assert!((share / (37.0 / people as f64) - 1.0).abs() < 0.05, "{share} live in Tokyo");
    }

    #[test]
    fn a_way_is_the_same_in_both_directions_and_some_detours_are_shorter() {
        let earth = Earth::new(1);
        let (mut shorter, mut all) = (0, 0);
        for a in 0..LEN {
            assert_eq!(earth.way(a, a), 0);
            for b in 0..LEN {
                assert_eq!(earth.way(a, b), earth.way(b, a));
                all += u32::from(a < b);
                shorter += u32::from(
                    a < b && (0..LEN).any(|over| over != a && over != b && earth.way(a, over) + earth.way(over, b) < earth.way(a, b)),
                );
            }
        }
        assert!(shorter > all / 20, "{shorter} of {all} pairs have a shorter way over a third city");
    }
}
