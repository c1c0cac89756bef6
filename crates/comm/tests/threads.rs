//! Ranks that are threads: what they get, in which order, and what becomes of the rest when one fails.

use duel_comm::{Alone, Comm, Exchange, Result, Thread, threads};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What each rank makes.
fn ranks<T: Send>(size: usize, work: impl Fn(Thread) -> T + Sync) -> Vec<thread::Result<T>> {
    let work = &work;
    thread::scope(|scope| {
        let all: Vec<_> = threads(size).into_iter().map(|comm| scope.spawn(move || work(comm))).collect();
        all.into_iter().map(thread::ScopedJoinHandle::join).collect()
    })
}

/// What each rank makes, none of which panics.
fn all<T: Send>(size: usize, work: impl Fn(Thread) -> T + Sync) -> Vec<T> {
    ranks(size, work).into_iter().map(|done| done.expect("no rank panics")).collect()
}

fn said(done: Result<Vec<Vec<u8>>>) -> String {
    done.expect_err("it cannot be done").to_string()
}

/// The bytes that one rank has for another, as many as asked for.
fn bytes(from: usize, to: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + from * 7 + to * 3 + i / 251) as u8).collect()
}

#[test]
fn everyone_gets_what_everyone_says() {
    for size in 1..=4 {
        for round in all(size, |comm| {
            // Of other lengths on each rank, none among them, and longer than a message.
            let of = |rank: usize| bytes(rank, 0, [0, 5, 1 << 20, (3 << 20) + 17][rank]);
            let got = comm.gather(&of(comm.rank())).unwrap();
            got == (0..size).map(of).collect::<Vec<_>>() && comm.gather(b"").unwrap() == vec![b""; size]
        }) {
            assert!(round, "of {size}");
        }
    }
}

#[test]
fn everyone_gets_what_is_for_it() {
    // More than fits between two ranks at a time, in both directions at once.
    let lens = |from: usize, to: usize| [0, 1, (1 << 20) - 24, (9 << 20) + 3][(from + 2 * to) % 4];
    for size in 1..=4 {
        for rank in all(size, |comm| {
            let me = comm.rank();
            let send: Vec<_> = (0..size).map(|to| bytes(me, to, lens(me, to))).collect();
            let mut recv: Vec<_> = (0..size).map(|from| vec![0; lens(from, me)]).collect();
            let parts: Vec<_> = send.iter().map(|part| &part[..]).collect();
            comm.exchange(&parts, &mut recv.iter_mut().map(|room| &mut room[..]).collect::<Vec<_>>())
                .unwrap();
            recv.iter().enumerate().all(|(from, got)| *got == bytes(from, me, lens(from, me)))
        }) {
            assert!(rank, "of {size}");
        }
    }
}

/// An exchange whose messages tell its number.
fn numbered(number: usize, rank: usize, size: usize) -> (Exchange, Vec<Vec<u8>>) {
    // None, a short one, and more than fits between two ranks at a time.
    let len = |from: usize, to: usize| [0, 3, (5 << 20) + 7][(number + from + 2 * to) % 3];
    let of = |from: usize, to: usize| bytes(from + 5 * number, to, len(from, to));
    let send = (0..size).map(|to| of(rank, to)).collect();
    let recv = (0..size).map(|from| vec![0; len(from, rank)]).collect();
    (Exchange { send, recv }, (0..size).map(|from| of(from, rank)).collect())
}

#[test]
fn what_was_begun_ends_in_order_whatever_is_called_meanwhile() {
    for size in 1..=4 {
        let done = all(size, |comm| {
            let me = comm.rank();
            let mut expected = Vec::new();
            for number in 0..7 {
                let (exchange, comes) = numbered(number, me, size);
                assert_eq!(comm.begin(exchange).unwrap(), None);
                expected.push(comes);
                // One that is late, and a call that finds what was begun before it under way.
                if number == 3 {
                    thread::sleep(Duration::from_millis(5 * me as u64));
                    assert_eq!(comm.gather(&[me as u8]).unwrap().len(), size);
                }
            }
            let ended = std::iter::from_fn(|| comm.ended(true).unwrap());
            let got: Vec<_> = ended.map(|exchange| exchange.recv).collect();
            got == expected
        });
        assert!(done.into_iter().all(|right| right), "of {size}");
    }
}

#[test]
fn what_was_begun_goes_on_by_itself() {
    let (met, waits) = (AtomicUsize::new(0), Duration::from_millis(1));
    for right in all(2, |comm| {
        let (exchange, comes) = numbered(2, comm.rank(), 2);
        comm.begin(exchange).unwrap();
        // No rank calls anything that waits, until both have what they were sent.
        let got = loop {
            match comm.ended(false).unwrap() {
                Some(exchange) => break exchange.recv,
                None => thread::sleep(waits),
            }
        };
        met.fetch_add(1, Ordering::Relaxed);
        while met.load(Ordering::Relaxed) < 2 {
            thread::sleep(waits);
        }
        got == comes && comm.ended(true).unwrap().is_none()
    }) {
        assert!(right);
    }
}

#[test]
fn a_rank_that_fails_or_does_otherwise_is_the_error_of_what_was_begun() {
    let errors = all(2, |comm| {
        let (exchange, _) = numbered(1, comm.rank(), 2);
        if comm.rank() == 1 {
            comm.fail("the disk is full");
        }
        comm.begin(exchange).and_then(|_| comm.ended(true)).unwrap_err().to_string()
    });
    assert_eq!(errors, ["rank 1: the disk is full", "the disk is full"]);
    let errors = all(2, |comm| match comm.rank() {
        0 => comm.begin(numbered(0, 0, 2).0).and_then(|_| comm.ended(true)).unwrap_err().to_string(),
        _ => said(comm.gather(b"x")),
    });
    for (error, [here, there]) in errors.iter().zip([["exchange", "gather"], ["gather", "exchange"]]) {
        let (here, there) = (format!(" at {here} 0 of "), format!(" is at {there} 0 of "));
        assert!(error.contains(&here) && error.contains(&there), "{error}");
    }
}

#[test]
fn one_that_is_ahead_does_not_mix_calls() {
    let heard = all(3, |comm| {
        let heard = (0..200u8).map(|i| {
            if usize::from(i) % 3 == comm.rank() {
                thread::yield_now();
            }
            comm.gather(&[i, comm.rank() as u8]).unwrap()
        });
        heard.collect::<Vec<_>>()
    });
    for of in heard {
        for (i, got) in of.iter().enumerate() {
            assert_eq!(*got, [[i as u8, 0], [i as u8, 1], [i as u8, 2]]);
        }
    }
}

#[test]
fn alone_is_one_of_one() {
    let mut got = [0; 2];
    Alone.exchange(&[b"ab"], &mut [&mut got]).unwrap();
    assert_eq!((&got, Alone.gather(b"c").unwrap()), (b"ab", vec![b"c".to_vec()]));
    assert_eq!((Alone.rank(), Alone.size(), Alone.speaks()), (0, 1, true));
}

#[test]
fn a_rank_that_fails_is_everyones_error_and_one_speaks() {
    for failing in 0..3 {
        let begun = Instant::now();
        let spoke = AtomicUsize::new(0);
        let errors = all(3, |comm| {
            let error = match comm.rank() == failing {
                true => "the disk is full".to_string(),
                false => said(comm.gather(b"x")),
            };
            comm.fail(&error);
            let again = said(comm.gather(b"y"));
            if comm.speaks() {
                spoke.fetch_add(comm.rank() + 1, Ordering::Relaxed);
            }
            (error, again)
        });
        for (rank, (error, again)) in errors.into_iter().enumerate() {
            assert_eq!(error, again);
            let named = if rank == failing { String::new() } else { format!("rank {failing}: ") };
            assert_eq!(error, format!("{named}the disk is full"));
        }
        assert_eq!(spoke.into_inner(), 1, "rank 0, and nobody else");
        assert!(begun.elapsed() < Duration::from_secs(5), "whoever waits hears at once");
    }
}

#[test]
fn a_rank_that_panics_or_leaves_is_named() {
    let done = ranks(3, |comm| {
        assert!(comm.rank() != 1, "on purpose");
        said(comm.gather(b"x"))
    });
    let errors: Vec<_> = done.into_iter().map(|rank| rank.ok()).collect();
    let error = Some("rank 1: duel itself failed".to_string());
    assert_eq!(errors, [error.clone(), None, error]);

    let errors = all(2, |comm| match comm.rank() {
        // What it said before it left is heard.
        0 => comm.gather(b"x").map(|_| ()).err().map(|e| e.to_string()),
        _ => comm.gather(b"x").and_then(|_| comm.gather(b"y")).err().map(|e| e.to_string()),
    });
    assert_eq!(errors, [None, Some("rank 0 has ended, while others wait for it".into())]);
}

#[test]
fn a_rank_that_does_not_come_is_named_and_the_next_one_speaks() {
    let (given_up, barrier) = (AtomicUsize::new(0), Duration::from_millis(20));
    let spoke = all(3, |comm| {
        comm.set_timeout(Duration::from_millis(200));
        // It hangs until the others have given it up.
        while comm.rank() == 0 && given_up.load(Ordering::Relaxed) < 2 {
            thread::sleep(barrier);
        }
        // What was sent to it before is there for it; then it hears.
        let error = (0..2).find_map(|_| comm.gather(b"x").err()).expect("it was given up").to_string();
        comm.fail(&error);
        given_up.fetch_add(1, Ordering::Relaxed);
        (error, comm.rank() > 0 && comm.speaks())
    });
    let error =
        "rank 0 did not come in 0.2 s (gather 0): it hangs, or its machine is gone; ddp_timeout is longer";
    for (rank, (said, speaks)) in spoke.iter().enumerate() {
        assert!(
            [&format!("rank 1: {error}")[..], &format!("rank 2: {error}"), error].contains(&&said[..]),
            "{said}"
        );
        assert_eq!(*speaks, rank == 1, "rank {rank}");
    }
}

#[test]
fn ranks_that_do_not_do_the_same_are_told_so() {
    let errors = all(2, |comm| match comm.rank() {
        0 => said(comm.gather(b"four")),
        _ => {
            let mut got = [[0; 3]; 2];
            let [a, b] = &mut got;
            comm.exchange(&[b"abc", b"abc"], &mut [a, b]).unwrap_err().to_string()
        }
    });
    assert_eq!(
        errors[0],
        "rank 1 is at exchange 0 of 3 bytes, and rank 0 at gather 0 of 3: they do not do the same"
    );
    assert_eq!(
        errors[1],
        "rank 0 is at gather 0 of 4 bytes, and rank 1 at exchange 0 of 3: they do not do the same"
    );
}
