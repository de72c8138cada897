//! The wire and the digests are what they were: a change here breaks running clusters.

use super::*;
use crate::signed::Signed;
use crate::value::{self, Step, Typed};

pub(super) fn every_message() -> Vec<Message> {
    let range = Range { first: KeyHash(0x0100_0000_0000_0000), last: KeyHash(0x01ff_ffff_ffff_ffff) };
    let row = Row { key: KeyHash(0x0101_0101_0101_0101), stamp: Stamp::from_parts(5, 6), entry: 0x0202_0202_0202_0202 };
    let expiring = wire::Entry { key: key("d"), stamp: Stamp::from_parts(5, 7), origin: peer(9), body: Body::Until(300, bytes("u")) };
    let expired = wire::Entry { key: key("e"), body: Body::Expired(300, 7), ..expiring.clone() };
    let entries = [
        wire::Entry { key: key("ab"), stamp: Stamp::from_parts(5, 6), origin: peer(9), body: Body::Removed },
        wire::Entry { key: key("c"), stamp: Stamp::from_parts(5, 7), origin: peer(9), body: Body::Register(bytes("xyz")) },
        expiring,
        expired,
    ];
    let signed = |value: Option<&str>| {
        let signed = Signed { value: value.map(bytes), signature: std::array::from_fn(|index| index as u8) };
        wire::Entry { key: key("f"), stamp: Stamp::from_parts(5, 6), origin: peer(9), body: Body::Signed(Box::new(signed)) }
    };
    vec![
        Message::Probe { digest: Digest { keys: 300, sum: 0xabcd }, wall: WallTime::from_micros(1) },
        Message::Equal { wall: WallTime::from_micros(300) },
        Message::Shards { keys: 2, wall: WallTime::from_micros(1), sums: Bounded::first_of([ShardSum(3), ShardSum(u64::MAX)]) },
        Message::Lead { ranges: Bounded::first_of([range]) },
        Message::Compare { round: 4, ranges: Bounded::first_of([range]), rows: Bounded::first_of([row]) },
        Message::Entries { entries: Bounded::first_of(entries.clone()) },
        Message::Compared { round: 4, through: KeyHash(7), want: Bounded::first_of([KeyHash(6)]) },
        Message::Differs {
            keys: 300,
            wall: WallTime::from_micros(1),
            version: 8,
            glimpse: Bounded::first_of([0x12, 0x34]),
            cells: Sketch::of([0x0303_0303_0404_0404], 32).cells(0..1),
        },
        Message::AskCells { version: 8, first: 32, end: 300 },
        Message::Cells { version: 8, cells: Sketch::of([0x0303_0303_0404_0404], 32).cells(0..1) },
        Message::AskShards,
        Message::Want { round: 4, names: Bounded::first_of([Named { name: Name(0x0505_0505), stamp: Stamp::from_parts(5, 6) }]) },
        Message::Floor { floor: 300 },
        Message::AskMembers,
        Message::Members {
            frames: 7,
            table: Bounded::first_of([wire::Known { member: peer(9), heard: 1, left: 2, back: 5, through: 3, complete: 300 }]),
            is_last: true,
        },
        Message::AskFrames,
        Message::Frames { frames: 300 },
        Message::Away { floor: 300, table: Bounded::new() },
        Message::Back { back: 300 },
        Message::Hold { id: 9, entries: Bounded::first_of(entries[..1].iter().cloned()) },
        Message::Held { id: 9 },
        Message::Ask { id: 9, key: key("ab") },
        Message::Answer { id: 9, entries: Bounded::new() },
        Message::Declined { id: 9, why: Decline::Busy },
        Message::Declined { id: 9, why: Decline::Expired },
        Message::Declined { id: 9, why: Decline::Signature },
        Message::Entries { entries: Bounded::first_of([signed(Some("v")), signed(None)]) },
    ]
}

#[test]
fn the_wire_is_what_it_was() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (nine, signature) = ("09".repeat(32), (0..64).map(|byte| format!("{byte:02x}")).collect::<String>());
    let expected = [
        "00ac020000000000000000000000000000abcd01".to_owned(),
        "01ac02".to_owned(),
        "020201020000000000000003ffffffffffffffff".to_owned(),
        "0301010000000000000001ffffffffffffff".to_owned(),
        "040401010000000000000001ffffffffffffff01010101010101010100000000000500060202020202020202".to_owned(),
        format!(
            "05 0000000000050006 01{nine} 04 026162 00 00 00 0163 01 00 010378797a 0164 01 00 03ac020175 0165 01 00 04ac020000000000000007"
        )
        .replace(' ', ""),
        "060400000000000000070100000000 00000006".replace(' ', ""),
        "07ac0201 0000000000000008 021234 00 01 0303030304040404 6c47".replace(' ', ""),
        "08 0000000000000008 20 ac02".replace(' ', ""),
        "09 0000000000000008 00 01 0303030304040404 6c47".replace(' ', ""),
        "0a".to_owned(),
        "0b 04 01 05050505 0000000000050006".replace(' ', ""),
        "0cac02".to_owned(),
        "0d".to_owned(),
        format!("0e 07 01 {nine} 01 02 05 03 ac02 01").replace(' ', ""),
        "0f".to_owned(),
        "10ac02".to_owned(),
        "11ac0200".to_owned(),
        "12ac02".to_owned(),
        format!("13 0000000000000009 0000000000050006 01{nine} 01 026162 00 00 00").replace(' ', ""),
        "14 0000000000000009".replace(' ', ""),
        "15 0000000000000009 026162".replace(' ', ""),
        "16 0000000000000009 0000000000000000 00 00".replace(' ', ""),
        "17 0000000000000009 03".replace(' ', ""),
        "17 0000000000000009 04".replace(' ', ""),
        "17 0000000000000009 05".replace(' ', ""),
        format!("05 0000000000050006 01{nine} 02 0166 00 00 05 010176 {signature} 0166 00 00 05 00 {signature}").replace(' ', ""),
    ];
    assert_eq!(every_message().len(), expected.len());
    for (message, expected) in every_message().iter().zip(expected) {
        assert_eq!(hex(&encode(message)), expected, "{}", message.name());
        assert_eq!(decode::<Message>(&encode(message)).as_ref(), Ok(message));
    }
    let delta = delta([("a", Stamp::from_parts(1, 2), Some("v")), ("b", Stamp::from_parts(1, 3), None)]);
    assert_eq!(hex(&delta), "000201610000000000010002010176016200000000000100 0300".replace(' ', ""));
}

#[test]
fn entries_that_name_no_origin_or_no_stamp_are_refused() {
    let nine = "09".repeat(32);
    let bytes = |text: &str| {
        let text = text.replace(' ', "");
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let message = |first: &str, origin: &str| bytes(&format!("05 {first} 01{nine} 01 0161 01 {origin} 00"));
    assert!(decode::<Message>(&message("0000000000050006", "00")).is_ok());
    assert!(decode::<Message>(&message("0000000000050006", "01")).is_err());
    assert!(decode::<Message>(&message("ffffffffffffffff", "00")).is_err());
}

/// As above, for a value that expires: before and after, plain and under a key that was of another kind.
#[test]
fn digests_of_what_expires_are_what_they_were() {
    for (length, expected) in [(1, "1:fc74dceb14d34348dc56975d0162dc10"), (3, "1:df42e40da309db1faf0a0d9a5be35f95")] {
        let mut state = replica(1);
        let stamp = Stamp::from_parts(EPOCH.as_millis(), 3);
        let register = Register::Until((EPOCH.as_millis() / 1_000) as u32 + 9, bytes("1"));
        let typed = |register| Typed { length, state: Some(value::State::Lww(stamp, peer(2), register)) };
        let body = if length == 1 { register.into() } else { Body::Step(Box::new(Step::Whole(typed(register)))) };
        let bytes = encode(&Delta::Writes(Bounded::first_of([Write { key: key("config/x"), stamp, body }])));
        state.handle(Input::Delta { origin: peer(2), bytes }, at_millis(0), &mut Vec::new());
        for (millis, len) in [(8_999, 1), (9_000, 0)] {
            state.handle(Input::DeadlineReached, at_millis(millis), &mut Vec::new());
            assert_eq!((state.digest().to_string().as_str(), state.len()), (expected, len));
        }
    }
}

/// The digest of one entry, so that a change of the hash or of what it covers is seen.
#[test]
fn digests_are_what_they_were() {
    let mut state = replica(1);
    let stamp = Stamp::from_parts(EPOCH.as_millis(), 3);
    let bytes = delta([("config/x", stamp, Some("1"))]);
    state.handle(Input::Delta { origin: peer(2), bytes }, at_millis(0), &mut Vec::new());
    assert_eq!(state.digest().to_string(), "1:e96e2a6f2c082fcbc8fbc6d7620b5aed");
    assert_eq!(replica(1).digest().to_string(), format!("0:{:032x}", 0));
}
