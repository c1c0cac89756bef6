//! A row number outside its table is an error of the device, not a read or write of someone else's memory.

use duel_backend::{Acc, Attention, Decode, Gather, Heads, Index, Logits, Sample, Storage};
use duel_cuda::Cuda;
use duel_kernel_tests::{Copies, Emulation, Order, Schedule};

type Device = Cuda<Emulation, f32>;
const WIDTH: usize = 8;

/// Runs `verb` with a table of 5 rows and the row numbers 0, 4 and 5, and checks its error.
fn check(verb: impl FnOnce(&Device, &mut Acc<Device>, &Index<Device>)) {
    let b = Device::new(Emulation::new(Schedule::new(Order::Forward, Copies::Lazy)));
    let mut table = b.alloc(5 * WIDTH).expect("room for a test");
    let mut index = b.alloc(3).expect("room for a test");
    b.upload(&mut index, 0, &[0, 4, 5]);
    verb(&b, &mut table, &index);
    let error = b.finish().expect_err("row 5 is not there").to_string();
    assert!(error.contains("row 5 of a table of 5 rows"), "{error}");
}

#[test]
fn gather() {
    check(|b, table, index| {
        let mut y = b.alloc(3 * WIDTH).expect("room for a test");
        b.gather(&mut y, table, index, 3, WIDTH);
    });
}

#[test]
fn scatter_add() {
    check(|b, table, index| {
        let dy = b.alloc(3 * WIDTH).expect("room for a test");
        b.scatter_add(table, &dy, index, 3, WIDTH);
    });
}

#[test]
fn kv_store() {
    check(|b, keys, slots| {
        let heads = Heads { heads: 1, kv_heads: 1, head_dim: WIDTH };
        let mut values = b.alloc(5 * WIDTH).expect("room for a test");
        let qkv = b.alloc(3 * heads.qkv_width()).expect("room for a test");
        b.kv_store(keys, &mut values, &qkv, slots, 3, heads);
    });
}

/// Of a run: where it begins, or where it ends, is outside.
#[test]
fn attention_cached() {
    for runs in [[5, 1, 0, 1], [0, 1, 5, 1], [0, 0, 4, 2], [1, u32::MAX, 0, 0], [0, 6, 0, 0]] {
        let b = Device::new(Emulation::new(Schedule::new(Order::Forward, Copies::Lazy)));
        let heads = Heads { heads: 1, kv_heads: 1, head_dim: WIDTH };
        let floats = |n| b.alloc::<f32>(n).expect("room for a test");
        let (mut o, qkv) = (floats(2 * WIDTH), floats(2 * heads.qkv_width()));
        let (keys, values) = (floats(5 * WIDTH), floats(5 * WIDTH));
        let mut index = b.alloc(8).expect("room for a test");
        b.upload(&mut index, 0, &[[0, 5, 4, 1], runs].concat());
        b.attention_cached(&mut o, &qkv, &keys, &values, &index, 2, heads, heads.scores());
        let error = b.finish().expect_err("not all rows are there").to_string();
        assert!(error.contains("rows"), "{runs:?}: {error}");
    }
}

#[test]
fn penalise() {
    for (pair, message) in [([5, 0], "row 5 of a table of 5 rows"), ([0, 8], "row 8 of a table of 8 rows")] {
        let b = Device::new(Emulation::new(Schedule::new(Order::Forward, Copies::Lazy)));
        let mut logits = b.alloc(5 * WIDTH).expect("room for a test");
        let mut seen = b.alloc(4).expect("room for a test");
        b.upload(&mut seen, 0, &[[4, 7], pair].concat());
        b.penalise(&mut logits, &seen, 2, 1.2, Logits::dense(5, WIDTH));
        let error = b.finish().expect_err("it is not there").to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn rope() {
    check(|b, table, index| {
        let heads = Heads { heads: 1, kv_heads: 1, head_dim: WIDTH };
        let mut qkv = b.alloc(3 * heads.qkv_width()).expect("room for a test");
        b.rope(&mut qkv, table, index, 3, false, heads);
    });
}
