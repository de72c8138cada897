//! Files of a journal: what is written is read, and of what is broken is told whether a crash did it.

use super::*;
use crate::journal::{
    Damage, End, Ended, Fault, HEAD_BYTES, Head, HeadError, Image, Kind, RECORD_BYTES_MAX, Record, Records, Reserved, Writer, crc32c,
};
use crate::signed::Signed;
use crate::value::{self, Actor, Step, Typed};

const LOG: Head = Head { kind: Kind::Log, number: 3, salt: 0x0123_4567_89ab_cdef };
const SNAPSHOT: Head = Head { kind: Kind::Snapshot, ..LOG };

fn entry(name: &str, counter: u16, body: Body) -> Record {
    Record::Entry(wire::Entry { key: key(name), stamp: Stamp::from_parts(5, counter), origin: peer(9), body })
}

fn set() -> Typed {
    decode(&[1, 1, 6, 2, 1, b'a', 1, b'b']).unwrap()
}

fn random_record(generator: &mut Generator) -> Record {
    let name = format!("k{}", generator.random_range(0..12));
    match generator.random_range(0..10) {
        8 => Record::Begun,
        9 => Record::Ended(Ended { actor: Actor(generator.random()), clock: Stamp::from_bits(generator.random()) }),
        0 => Record::Clock(Stamp::from_bits(generator.random_range(0..1 << 20))),
        1 => Record::Reserved(Reserved { incarnation: generator.random_range(0..3), sequence: generator.random() }),
        2 => Record::Forgotten(key(&name)),
        3 => entry(&name, generator.random(), Body::Removed),
        4 => entry(&name, generator.random(), Body::Step(Box::new(Step::Whole(set())))),
        _ => {
            let len = generator.random_range(0..40);
            entry(&name, generator.random(), Body::Register((0..len).map(|_| generator.random()).collect()))
        }
    }
}

/// A log that was synced after every `group` records, the bytes that each mark calls synced, and where each record ends.
fn log(records: &[Record], group: usize) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let mut writer = Writer::begin(LOG, &mut bytes);
    for (index, record) in records.iter().enumerate() {
        if index > 0 && index % group == 0 {
            let offset = writer.offset();
            writer.mark_synced(offset, &mut bytes);
        }
        writer.push(record, &mut bytes);
        assert_eq!(writer.offset(), bytes.len() as u64);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn snapshot(records: impl IntoIterator<Item = Record>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(SNAPSHOT, &mut bytes);
    records.into_iter().for_each(|record| writer.push(&record, &mut bytes));
    writer.end(&mut bytes);
    bytes
}

fn read(bytes: &[u8]) -> (Vec<Record>, Result<End, Damage>) {
    let mut records = Records::new(bytes).unwrap();
    (records.by_ref().collect(), records.finish())
}

#[test]
fn the_files_are_what_they_were() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (bytes, _) = log(&[entry("a", 6, Body::Register(bytes("v"))), Record::Forgotten(key("a")), Record::Clock(Stamp::from_bits(7))], 2);
    let records = snapshot([Record::Reserved(Reserved { incarnation: 1, sequence: 300 })]);
    let ended = Ended { actor: Actor(0x0102_0304_0506_0708), clock: Stamp::from_bits(9) };
    assert_eq!(hex(&encode(&Record::Begun)), "04");
    assert_eq!(hex(&encode(&Record::Ended(ended))), "0501020304050607080000000000000009");
    assert_eq!(
        hex(&bytes),
        "6d657368776a01010300000000000000efcdab89674523013db692212e00000075735d60dc3bd57600016100000000000500060909090909090909090909090909090909090909090909090909090909090909010176030000000e807d6f8893b99901016102000080ab0526484cde1cbd006509000000bff4bbe06ced0d77020000000000000007",
        "log"
    );
    assert_eq!(
        hex(&records),
        "6d657368776a01000300000000000000efcdab8967452301626a767e0400000099275bfe3f39af0a0301ac0202000080a666929377c348ba0101",
        "snapshot"
    );
}

/// The check value of the algorithm, in one piece and in two.
#[test]
fn the_checksum_is_crc_32c() {
    assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    for cut in 0..=9 {
        assert_eq!(crc32c(crc32c(0, &b"123456789"[..cut]), &b"123456789"[cut..]), 0xe306_9283);
    }
}

#[test]
fn what_is_written_is_read_and_written_the_same_again() {
    let mut generator = generator(1, "journal", 0);
    for _ in 0..200 {
        let records: Vec<Record> = (0..generator.random_range(0..30)).map(|_| random_record(&mut generator)).collect();
        let (bytes, _) = log(&records, 4);
        assert_eq!(read(&bytes), (records.clone(), Ok(End::Whole)));
        assert_eq!(log(&read(&bytes).0, 4).0, bytes);
        let bytes = snapshot(records.clone());
        assert_eq!(read(&bytes), (records, Ok(End::Whole)));
        assert_eq!(Records::new(&bytes).unwrap().head(), SNAPSHOT);
    }
}

#[test]
fn an_image_is_what_its_records_amount_to_and_no_record_is_longer_than_it_says() {
    let mut generator = generator(2, "journal", 0);
    for _ in 0..200 {
        let (mut image, mut again) = (Image::default(), Image::default());
        for _ in 0..60 {
            let record = random_record(&mut generator);
            let (bytes, _) = log(std::slice::from_ref(&record), 1);
            assert!(bytes.len() <= HEAD_BYTES + record.bytes_max());
            image.apply(record);
        }
        image.records().for_each(|record| again.apply(record));
        assert_eq!(image, again);
        let entries = image.records().filter(|record| matches!(record, Record::Entry(_)));
        assert_eq!(image.bytes(), entries.map(|entry| entry.bytes_max()).sum::<usize>());
    }
}

/// A set of one member of so many bytes, encoded.
fn set_of(len: usize) -> Bytes {
    encode(&vec![(Bytes::from(vec![7; len]), ())])
}

#[test]
fn the_largest_entry_fits_and_a_larger_one_does_not() {
    let name = "k".repeat(limits::KEY_BYTES_MAX);
    let largest = |len| entry(&name, 1, Body::Signed(Box::new(Signed { value: Some(vec![7; len].into()), signature: [7; 64] })));
    let record = largest(limits::VALUE_BYTES_MAX);
    assert!(record.fits() && !largest(limits::VALUE_BYTES_MAX + 1).fits());
    // Of another kind as well: as long as the store lets it be.
    let one = |len| Typed { length: 1, state: Some(value::State::GSet(decode(&set_of(len)).unwrap())) };
    let overhead = encode(&one(40_000)).len() - 40_000;
    let whole = one(limits::VALUE_BYTES_MAX - overhead);
    assert_eq!(encode(&whole).len(), limits::VALUE_BYTES_MAX);
    let typed = entry(&name, 1, Body::Step(Box::new(Step::Whole(whole))));
    assert!(typed.fits());
    assert_eq!(read(&log(std::slice::from_ref(&typed), 1).0), (vec![typed], Ok(End::Whole)));
    let (bytes, _) = log(std::slice::from_ref(&record), 1);
    assert!(bytes.len() <= HEAD_BYTES + 12 + RECORD_BYTES_MAX);
    assert_eq!(read(&bytes), (vec![record], Ok(End::Whole)));
}

#[test]
fn a_part_of_what_a_key_holds_is_no_record() {
    let record = |step| entry("k", 1, Body::Step(Box::new(step)));
    assert!(record(Step::Whole(set())).fits());
    // A step of some actor that changes nothing.
    let part = decode::<Step>(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(!record(part.unwrap()).fits());
}

#[test]
fn a_log_that_is_cut_keeps_what_is_before_the_cut() {
    let mut generator = generator(3, "journal", 0);
    let records: Vec<Record> = (0..20).map(|_| random_record(&mut generator)).collect();
    let (bytes, ends) = log(&records, 3);
    for cut in 0..bytes.len() {
        if cut < HEAD_BYTES {
            assert_eq!(Records::new(&bytes[..cut]).err(), Some(HeadError::Truncated));
            continue;
        }
        let (read, end) = read(&bytes[..cut]);
        assert_eq!(read, records[..ends.iter().filter(|end| **end <= cut).count()]);
        // A cut takes away the marks behind it as well, so it always looks as a crash does.
        assert!(matches!(end, Ok(End::Whole | End::Torn { why: Fault::Truncated, behind: 0, .. })), "{end:?}");
    }
}

#[test]
fn a_flipped_bit_where_a_log_was_synced_is_damage_and_behind_it_a_torn_tail() {
    let records: Vec<Record> = (0..12).map(|number| entry(&format!("k{number}"), 1, Body::Removed)).collect();
    let (bytes, ends) = log(&records, 4);
    // The last mark stands behind the eighth record.
    let synced = ends[7];
    let (mut damaged, mut torn) = (0, 0);
    for at in HEAD_BYTES..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let whole = ends.iter().filter(|end| **end <= at).count();
        let (read, end) = read(&bytes);
        assert_eq!(read, records[..whole], "at {at}");
        match end {
            Err(damage) => {
                // A mark was hit, or the first record that is not read.
                let is_counted = (11 - whole..=12 - whole).contains(&(damage.behind as usize));
                assert!(at < synced && damage.at <= at as u64 && is_counted, "at {at}: {damage:?}");
                damaged += 1;
            }
            Ok(End::Torn { at: begin, .. }) => {
                assert!(at >= synced && begin <= at as u64);
                torn += 1;
            }
            Ok(End::Whole) => panic!("the flip at {at} was not seen"),
        }
    }
    assert!(damaged > 300 && torn > 150, "{damaged} and {torn}");
}

#[test]
fn a_hole_in_what_was_not_synced_is_a_torn_tail_that_counts_what_is_behind() {
    let records: Vec<Record> = (0..12).map(|number| entry(&format!("k{number}"), 1, Body::Removed)).collect();
    let (mut bytes, ends) = log(&records, 100);
    bytes[ends[2]..ends[5]].fill(0);
    assert_eq!(read(&bytes), (records[..3].to_vec(), Ok(End::Torn { at: ends[2] as u64, why: Fault::Length, behind: 6 })));
}

#[test]
fn a_snapshot_that_is_not_complete_is_damaged() {
    let records: Vec<Record> = (0..5).map(|number| entry(&format!("k{number}"), 1, Body::Removed)).collect();
    let bytes = snapshot(records.clone());
    for cut in HEAD_BYTES..bytes.len() {
        read(&bytes[..cut]).1.unwrap_err();
        let mut flipped = bytes.clone();
        flipped[cut] ^= 0x10;
        read(&flipped).1.unwrap_err();
    }
    // Whole frames of another order or number are found by the end mark, and by the place that each checksum covers.
    let mut longer = bytes.clone();
    longer.extend_from_slice(&bytes[HEAD_BYTES..]);
    read(&longer).1.unwrap_err();
}

#[test]
fn a_value_that_looks_like_records_is_none() {
    let inner = log(&[entry("planted", 9, Body::Removed)], 1).0;
    let mut planted = inner[HEAD_BYTES..].to_vec();
    planted.extend_from_slice(&inner);
    let (bytes, _) = log(&[entry("a", 1, Body::Register(planted.into()))], 1);
    // A torn record of which only its last byte is wrong.
    let mut torn = bytes.clone();
    *torn.last_mut().unwrap() ^= 1;
    assert_eq!(read(&torn), (vec![], Ok(End::Torn { at: HEAD_BYTES as u64, why: Fault::Content, behind: 0 })));
    // Even with a length that is no use for finding the next frame.
    torn[HEAD_BYTES] ^= 1;
    assert_eq!(read(&torn), (vec![], Ok(End::Torn { at: HEAD_BYTES as u64, why: Fault::Length, behind: 0 })));
}

#[test]
fn any_bytes_are_read_without_harm() {
    let mut generator = generator(4, "journal", 0);
    let records: Vec<Record> = (0..10).map(|_| random_record(&mut generator)).collect();
    for round in 0..3_000 {
        let mut bytes = if round % 2 == 0 { log(&records, 3).0 } else { snapshot(records.clone()) };
        for _ in 0..generator.random_range(1..6) {
            let at = generator.random_range(0..bytes.len());
            match generator.random_range(0..3) {
                0 => bytes[at] = generator.random(),
                1 => bytes.truncate(at.max(1)),
                _ => drop(bytes.splice(at..at, (0..9).map(|_| generator.random::<u8>()))),
            }
        }
        if let Ok(mut file) = Records::new(&bytes) {
            let read: Vec<Record> = file.by_ref().collect();
            assert_eq!(read, records[..read.len()]);
            let _ = file.finish();
        }
    }
}

#[test]
fn a_file_of_another_version_is_refused_by_name() {
    let (mut bytes, _) = log(&[], 1);
    assert_eq!(Records::new(b"not a journal, but long enough for a head").err(), Some(HeadError::Invalid));
    bytes[6] = 9;
    assert_eq!(Records::new(&bytes).err(), Some(HeadError::Invalid), "without its checksum the version is not believed");
    let sum = crc32c(0, &bytes[..24]);
    bytes.splice(24..28, sum.to_le_bytes());
    assert_eq!(Records::new(&bytes).err(), Some(HeadError::Incompatible { ours: 1, theirs: 9 }));
}
