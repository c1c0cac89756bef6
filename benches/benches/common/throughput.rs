//! Work as criterion counts it.

use criterion::Throughput;
use duel_benches::verb::Work;

/// Operations are elements.
pub fn of(work: Work) -> Throughput {
    match work {
        Work::Flops(n) => Throughput::Elements(n),
        Work::Bytes(n) => Throughput::BytesDecimal(n),
    }
}
