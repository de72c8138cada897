//! How long the cores of this package take: a broadcast through Plumtree, a shuffle of HyParView. `cases/` says what one operation of each is.
//!
//! All of them: `cargo bench --package meshwork-overlay --bench cores`; some: the same with `-- plumtree` behind it. Times are of this machine and
//! this moment; what can be compared across machines is counted by `cargo bench --package meshwork-benches`.

mod cases;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    for (name, make) in cases::all() {
        criterion.bench_function(name, |bencher| bencher.iter(make()));
    }
    criterion.final_summary();
}
