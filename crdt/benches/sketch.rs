//! How long the sketch takes beside a million items: an entry that is replaced, a decoding with so many keys written on one side, the
//! comparison of a shard from scratch; and how many bytes of cells a decoding takes, which is printed and is the same on every machine.
//!
//! All of them: `cargo bench --package meshwork-crdt --bench sketch`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use meshwork_channels::encode;
use meshwork_channels::random::{Generator, generator};
use meshwork_crdt::sketch::{CELLS_MAX, Decoder, Progress, Sketch};
use rand::RngExt;

const ITEMS: usize = 1_000_000;
/// About the items of one of 256 shards.
const SHARD_ITEMS: usize = 4_000;
const BYTES_RUNS: usize = 200;

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let mut generator = generator(1, "sketch", 0);
    let items: Vec<u64> = (0..ITEMS).map(|_| generator.random()).collect();
    let ours = Sketch::of(items.iter().copied(), CELLS_MAX);

    let (mut changing, mut held, mut next) = (ours.clone(), items.clone(), 0);
    criterion.bench_function("sketch/replace-1-of-1000000", |bencher| {
        bencher.iter(|| {
            let item = &mut held[next % ITEMS];
            changing.remove(*item);
            // Distinct from all others but for a chance of one in 2^44.
            *item = item.wrapping_mul(5).wrapping_add(1);
            changing.insert(*item);
            next += 1;
        });
    });
    for keys in [10, 100, 1_000] {
        let theirs = updated(&ours, &items[..keys], &mut generator);
        criterion.bench_function(&format!("sketch/decode-{keys}-keys-of-1000000"), |bencher| {
            bencher.iter(|| black_box(decode(&ours, &theirs)));
        });
        criterion.bench_function(&format!("sketch/encode-for-{keys}-keys"), |bencher| {
            let cells = decode(&ours, &theirs).0;
            bencher.iter(|| encode(&black_box(&theirs).cells(0..cells)));
        });
    }
    criterion.bench_function("sketch/shard-of-4000-from-scratch", |bencher| {
        bencher.iter_batched(
            || items[..SHARD_ITEMS].iter().copied(),
            |items| Sketch::of(items, black_box(CELLS_MAX)),
            BatchSize::SmallInput,
        );
    });
    criterion.final_summary();

    for keys in [1, 10, 100, 1_000] {
        let (mut cells, mut bytes, mut bytes_max) = (0, 0, 0);
        for _ in 0..BYTES_RUNS {
            let theirs = updated(&ours, &items[..keys], &mut generator);
            let (run_cells, run_bytes) = decode(&ours, &theirs);
            (cells, bytes, bytes_max) = (cells + run_cells, bytes + run_bytes, bytes_max.max(run_bytes));
        }
        let (cells, bytes) = (cells / BYTES_RUNS, bytes / BYTES_RUNS);
        println!("{keys} keys written on one side: {cells} cells, {bytes} bytes on average, {bytes_max} bytes at most");
    }
}

/// A sketch in which other items stand in place of these.
fn updated(sketch: &Sketch, items: &[u64], generator: &mut Generator) -> Sketch {
    let mut updated = sketch.clone();
    for item in items {
        updated.remove(*item);
        updated.insert(generator.random());
    }
    updated
}

/// Decodes in chunks that double what came, as a node would ask for them. How many cells and bytes came.
fn decode(ours: &Sketch, theirs: &Sketch) -> (usize, usize) {
    let (mut decoder, mut bytes) = (Decoder::new(ours), 0);
    loop {
        let range = decoder.wants();
        let chunk = theirs.cells(range.clone());
        bytes += encode(&chunk).len();
        match decoder.feed(&chunk) {
            Progress::NeedMore => {}
            Progress::Done(_) => return (range.end, bytes),
            Progress::Failed(failure) => unreachable!("{failure:?}: the difference is small"),
        }
    }
}
