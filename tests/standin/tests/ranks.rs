//! Ranks that are processes with a GPU each: the real `Nccl`, on the stand-in.

mod common;

use common::on_the_stand_in;
use duel_comm::{Comm, Launch, Nccl, Result};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

const SIZE: usize = 3;
/// Longer than anything takes on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(60);

/// What each rank says at its end, `!` first if it speaks: processes that start this test again, with these variables,
/// in which `RANK` is its number.
fn ranks(test: &str, variables: &[(&str, &str)], body: impl Fn(&dyn Comm) -> Result<()>) -> Vec<String> {
    let launch = Launch::of(|name| env::var(name).ok()).expect("the variables below");
    if let Some(launch) = launch {
        let comm = match Nccl::start(&launch, 0) {
            Ok(comm) => comm,
            Err(error) => {
                println!("\nsaid: {error}");
                return Vec::new();
            }
        };
        comm.set_timeout(LONG);
        let error = body(&comm).err();
        if let Some(error) = &error {
            comm.fail(&error.to_string());
        }
        let speaks = error.is_some() && comm.speaks();
        drop(comm);
        println!(
            "\nsaid: {}{}",
            if speaks { "!" } else { "" },
            error.map_or("done".into(), |e| e.to_string())
        );
        return Vec::new();
    }
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port();
    let start = |rank: usize| {
        Command::new(env::current_exe().expect("this program is a file"))
            .args([test, "--exact", "--nocapture"])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port.to_string())])
            .envs([("WORLD_SIZE", &SIZE.to_string()), ("RANK", &rank.to_string())])
            // They all have the one GPU: NCCL takes that where they are of different machines.
            .env("NCCL_HOSTID", rank.to_string())
            .envs(variables.iter().map(|(name, value)| (name, value.replace("RANK", &rank.to_string()))))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started again")
    };
    let all: Vec<_> = (0..SIZE).map(start).collect();
    let said = all.into_iter().map(|rank| {
        let output = rank.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.lines().find_map(|line| line.strip_prefix("said: "));
        said.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_string()
    });
    said.collect()
}

fn bytes(from: usize, to: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + from * 7 + to * 3 + i / 251) as u8).collect()
}

/// # Errors
/// Those of the exchange.
fn exchange(comm: &dyn Comm, len: impl Fn(usize, usize) -> usize) -> Result<()> {
    let me = comm.rank();
    let send: Vec<_> = (0..SIZE).map(|to| bytes(me, to, len(me, to))).collect();
    let mut recv: Vec<_> = (0..SIZE).map(|from| vec![0; len(from, me)]).collect();
    let parts: Vec<_> = send.iter().map(|part| &part[..]).collect();
    comm.exchange(&parts, &mut recv.iter_mut().map(|room| &mut room[..]).collect::<Vec<_>>())?;
    for (from, got) in recv.iter().enumerate() {
        assert!(*got == bytes(from, me, len(from, me)), "rank {me} of rank {from}");
    }
    Ok(())
}

#[test]
fn everyone_gets_what_is_for_it() {
    let test = "everyone_gets_what_is_for_it";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[], |comm| {
            let of = |rank: usize| bytes(rank, 0, [0, 5, 3 << 20][rank]);
            assert_eq!(comm.gather(&of(comm.rank()))?, (0..SIZE).map(of).collect::<Vec<_>>());
            // None, one, and more than there is room for at a time, so that the rooms are used again.
            exchange(comm, |from, to| if (from, to) == (0, 1) { (50 << 20) + 3 } else { (from + to) % 3 })?;
            (0..20).try_for_each(|i| exchange(comm, |from, to| i * 1000 + from * 10 + to))
        });
        assert!(said.is_empty() || said == ["done"; SIZE], "{said:?}");
    });
}

#[test]
fn calls_are_grouped_and_on_one_stream() {
    let test = "calls_are_grouped_and_on_one_stream";
    on_the_stand_in(test, &[], || {
        let path = env::temp_dir().join(format!("duel-calls-{}", std::process::id())).display().to_string();
        let said = ranks(test, &[("DUEL_STANDIN_CALLS", &format!("{path}-RANK"))], |comm| {
            exchange(comm, |from, to| 100 * from + to)
        });
        if said.is_empty() {
            return;
        }
        assert_eq!(said, ["done"; SIZE]);
        let texts: Vec<_> = (0..SIZE).map(|rank| fs::read_to_string(format!("{path}-{rank}"))).collect();
        (0..SIZE).for_each(|rank| drop(fs::remove_file(format!("{path}-{rank}"))));
        let text = texts[1].as_ref().expect("rank 1 made calls");
        let calls: Vec<_> = text.lines().map(|line| line.split(" on ").collect::<Vec<_>>()).collect();
        let names: Vec<_> = calls.iter().map(|call| call[0]).collect();
        let sent = ["ncclGroupStart", "ncclSend 0 100", "ncclSend 2 102"];
        let received = ["ncclRecv 0 1", "ncclRecv 2 201", "ncclGroupEnd"];
        let expected =
            [&["ncclCommInitRankConfig 1 of 3"], &sent[..], &received, &["ncclCommDestroy"]].concat();
        assert_eq!(names, expected);
        let streams: Vec<_> = calls.iter().filter_map(|call| call.get(1)).collect();
        assert!(
            streams.len() == 4 && streams.iter().all(|s| *s == streams[0] && **s != "0x0"),
            "{streams:?}"
        );
    });
}

#[test]
fn a_rank_that_fails_is_everyones_error() {
    let test = "a_rank_that_fails_is_everyones_error";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[], |comm| match comm.gather(b"here").map(|_| comm.rank())? {
            1 => Err(duel_comm::Error::new("the disk is full")),
            _ => exchange(comm, |_, _| 10),
        });
        let heard = "rank 1: the disk is full";
        assert!(said.is_empty() || said == [&format!("!{heard}"), "the disk is full", heard], "{said:?}");
    });
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let test = "a_rank_that_does_not_come_is_named";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[], |comm| {
            exchange(comm, |_, _| 10)?;
            comm.set_timeout(Duration::from_secs(1));
            if comm.rank() == 0 {
                thread::sleep(Duration::from_secs(2));
            }
            // What was sent to it before is there for it; then it hears.
            (0..2).try_for_each(|_| exchange(comm, |_, _| 10))
        });
        let late = "rank 0 did not come in 1 s (exchange 2)";
        assert!(said.is_empty() || said.iter().all(|s| s.contains(late)), "{said:?}");
        assert!(said.is_empty() || said[1].starts_with('!') && !said[2].starts_with('!'), "{said:?}");
    });
}

#[test]
fn what_hangs_in_nccl_is_given_up() {
    let test = "what_hangs_in_nccl_is_given_up";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[("DUEL_STANDIN_LOST", "1")], |comm| {
            if comm.rank() != 1 {
                comm.set_timeout(Duration::from_secs(1)); // that one lacks nothing, and hears of the others
            }
            exchange(comm, |_, _| 10)?;
            comm.gather(b"x").map(drop)
        });
        let hangs = "an exchange over NCCL did not end in 1 s, to which all ranks had come";
        assert!(said.is_empty() || said.iter().all(|s| s.contains(hangs)), "{said:?}");
        assert!(said.is_empty() || said[0].starts_with('!'), "{said:?}");
    });
}

#[test]
fn ranks_do_not_share_a_gpu() {
    let test = "ranks_do_not_share_a_gpu";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[("NCCL_HOSTID", "the same")], |_| Ok(()));
        let what = "ranks 0 and 1 have the same GPU";
        assert!(said.is_empty() || said.iter().all(|s| s.contains(what)), "{said:?}");
    });
}

#[test]
fn other_lengths_are_an_error_and_no_exchange() {
    let test = "other_lengths_are_an_error_and_no_exchange";
    on_the_stand_in(test, &[], || {
        let said = ranks(test, &[], |comm| exchange(comm, |from, to| 10 + comm.rank() * (from + to)));
        assert!(said.is_empty() || said.iter().all(|s| s.contains("they do not do the same")), "{said:?}");
    });
}
