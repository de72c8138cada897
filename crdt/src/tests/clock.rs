//! The hybrid logical clock; sections are of Kulkarni et al.

use super::*;

const AHEAD_MAX: Duration = limits::STAMP_AHEAD_MAX;

#[test]
fn stamps_order_by_time_and_then_by_counter() {
    assert_eq!(Stamp::from_parts(5, 6).millis(), 5);
    assert_eq!(Stamp::from_parts(5, 6).counter(), 6);
    assert!(Stamp::from_parts(5, u16::MAX) < Stamp::from_parts(6, 0));
    assert_eq!(Stamp::from_parts(u64::MAX, u16::MAX), Stamp::MAX);
    assert_eq!(Stamp::from_parts(5, 6).to_string(), "5.6");
    assert_eq!(encode(&Stamp::from_parts(0x0102_0304_0506, 0x0708))[..], [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Section 3, local events: the wall clock if it is ahead, else the counter.
#[test]
fn a_local_event_takes_the_wall_clock_or_counts() {
    let mut clock = Clock::new();
    assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(10, 0));
    assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(10, 1));
    assert_eq!(clock.tick(WallTime::from_millis(12)), Stamp::from_parts(12, 0));
}

/// Section 3, receive events: what is written after is after, although our own clock is behind.
#[test]
fn a_slow_clock_heals_by_what_it_hears() {
    let mut clock = Clock::new();
    clock.tick(WallTime::from_millis(10));
    assert_eq!(clock.observe(Stamp::from_parts(400, 9), WallTime::from_millis(10), AHEAD_MAX), Ok(()));
    assert_eq!(clock.tick(WallTime::from_millis(11)), Stamp::from_parts(400, 10));
    assert_eq!(clock.tick(WallTime::from_millis(401)), Stamp::from_parts(401, 0));
}

#[test]
fn never_goes_back() {
    let mut clock = Clock::new();
    let before = clock.tick(WallTime::from_millis(10 * 3_600_000));
    assert_eq!(clock.tick(WallTime::from_millis(9 * 3_600_000)), Stamp::from_bits(before.to_bits() + 1));
    assert_eq!(clock.tick(WallTime::from_millis(0)), Stamp::from_bits(before.to_bits() + 2));
}

#[test]
fn an_overflowing_counter_carries_into_the_milliseconds() {
    let mut clock = Clock::new();
    let mut last = Stamp::ZERO;
    for _ in 0..=u16::MAX {
        let stamp = clock.tick(WallTime::from_millis(10));
        assert!(stamp > last);
        last = stamp;
    }
    assert_eq!(last, Stamp::from_parts(10, u16::MAX));
    assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(11, 0));
}

#[test]
fn too_far_ahead_is_refused_without_effect() {
    let mut clock = Clock::new();
    let wall = WallTime::from_millis(1_000);
    assert_eq!(clock.observe(Stamp::from_parts(1_500, u16::MAX), wall, AHEAD_MAX), Ok(()));
    let before = clock.last();
    let refused = clock.observe(Stamp::from_parts(1_501, 0), wall, AHEAD_MAX).unwrap_err();
    assert_eq!(refused.by, Duration::from_millis(501));
    assert!(clock.observe(Stamp::MAX, wall, AHEAD_MAX).is_err());
    assert_eq!(clock.last(), before);
}

#[test]
fn absurd_wall_clocks_leave_room_to_count() {
    let mut clock = Clock::new();
    let first = clock.tick(WallTime::from_micros(u64::MAX));
    assert!(clock.tick(WallTime::from_micros(u64::MAX)) > first);
    assert!(clock.tick(WallTime::from_micros(0)) > first);
}
