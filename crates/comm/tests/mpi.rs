//! Ranks that are processes under `mpirun`, on this machine: this program starts itself in every scene, with 1 to 4 of
//! them.

use duel_comm::{Comm, Exchange, Mpi};
use std::io::Write;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

/// Bytes of a part of the large exchange: in all more than 2 GiB leave a rank.
const LARGE: usize = (1 << 30) + 12_345;

fn byte(from: usize, to: usize, i: usize) -> u8 {
    (i * 31 + i / 257 + from * 7 + to * 3) as u8
}

/// What each rank does in a scene; the error is what it says where it is the one that speaks.
fn scene(name: &str, comm: &dyn Comm) -> duel_comm::Result<()> {
    let (rank, size) = (comm.rank(), comm.size());
    let exchange = |len: &dyn Fn(usize, usize) -> usize| {
        let part = |to| (0..len(rank, to)).map(|i| byte(rank, to, i)).collect::<Vec<_>>();
        let send: Vec<_> = (0..size).map(part).collect();
        let mut recv: Vec<_> = (0..size).map(|from| vec![0; len(from, rank)]).collect();
        let parts: Vec<_> = send.iter().map(|part| &part[..]).collect();
        comm.exchange(&parts, &mut recv.iter_mut().map(|room| &mut room[..]).collect::<Vec<_>>())?;
        for (from, got) in recv.iter().enumerate() {
            assert!(got.iter().enumerate().all(|(i, b)| *b == byte(from, rank, i)), "of rank {from}");
        }
        Ok(())
    };
    let is_last = rank == size - 1;
    match name {
        "whole" => {
            for round in 0..50usize {
                let of = |rank: usize| vec![round as u8; (round * 7 + rank * 13) % 40];
                assert_eq!(comm.gather(&of(rank))?, (0..size).map(of).collect::<Vec<_>>());
            }
            exchange(&|from, to| [0, 1, (1 << 20) - 24, (5 << 20) + 3][(from + 2 * to) % 4])?;
            // Begun, and given back in order, while a rank says other things.
            let len = |number: usize, from: usize, to: usize| [3, (6 << 20) + 1, 0][(number + from + to) % 3];
            for number in 0..6 {
                let part = |to| (0..len(number, rank, to)).map(|i| byte(rank, to, i + number)).collect();
                let send = (0..size).map(part).collect();
                let recv = (0..size).map(|from| vec![0; len(number, from, rank)]).collect();
                assert_eq!(comm.begin(Exchange { send, recv })?, None);
            }
            assert_eq!(comm.gather(b"between")?.len(), size);
            for number in 0..6 {
                let Some(Exchange { recv, .. }) = comm.ended(true)? else { panic!("{number} is lost") };
                for (from, got) in recv.iter().enumerate() {
                    assert_eq!(got.len(), len(number, from, rank));
                    assert!(got.iter().enumerate().all(|(i, b)| *b == byte(from, rank, i + number)));
                }
            }
            assert_eq!(comm.ended(true)?, None);
            Ok(())
        }
        "large" => exchange(&|from, to| if from == to { 0 } else { LARGE }),
        "fails" if is_last => {
            comm.gather(b"x")?;
            Err(duel_comm::Error::new("the disk is full"))
        }
        "panics" if is_last => panic!("on purpose"),
        "leaves" if is_last => Ok(()),
        "killed" | "hangs" if is_last => {
            comm.gather(b"x")?;
            let signal = if name == "killed" { "-KILL" } else { "-STOP" };
            let me = process::id().to_string();
            Command::new("kill").args([signal, &me]).status().expect("kill is there");
            Ok(())
        }
        _ => loop {
            comm.gather(b"x")?;
        },
    }
}

/// A rank of a scene, under `mpirun`.
fn rank(name: &str) -> ExitCode {
    let comm = Mpi::start().expect("MPI starts");
    comm.set_timeout(Duration::from_secs(if name == "hangs" { 2 } else { 60 }));
    let begun = Instant::now();
    match scene(name, &comm) {
        Ok(()) => {
            if comm.rank() == 0 && name == "large" {
                println!(
                    "{:.2} GB/s out of each rank",
                    LARGE as f64 * (comm.size() - 1) as f64 / begun.elapsed().as_secs_f64() / 1e9
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            comm.fail(&error.to_string());
            if comm.speaks() {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn mpirun(name: &str, ranks: usize) -> io::Result<Output> {
    let mut child = Command::new("mpirun")
        .args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()])
        .arg(env::current_exe()?)
        .args(["--rank", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill()?;
            panic!("{name} of {ranks} ranks does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output()
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [flag, name] = &args[..]
        && flag == "--rank"
    {
        return rank(name);
    }
    if Command::new("mpirun").arg("--version").output().is_err() {
        drop(writeln!(io::stderr(), "SKIPPED: there is no mpirun, so no ranks are started"));
        return ExitCode::SUCCESS;
    }
    let only = args.iter().find(|arg| !arg.starts_with('-'));
    let scenes: [(&str, &[usize], Option<&str>); 7] = [
        ("whole", &[1, 2, 3, 4], None),
        ("large", &[2, 3], None),
        ("fails", &[1, 2, 4], Some("the disk is full")),
        ("panics", &[2, 4], Some("duel itself failed")),
        ("leaves", &[2, 4], Some("is at the end, call 0 of 0 bytes")),
        ("killed", &[2, 4], None),
        ("hangs", &[2, 4], Some("did not come in 2 s")),
    ];
    for (name, sizes, says) in scenes.into_iter().filter(|(name, ..)| only.is_none_or(|only| only == name)) {
        for ranks in sizes {
            let begun = Instant::now();
            let out = mpirun(name, *ranks).expect("mpirun can be started");
            let (text, seconds) = (String::from_utf8_lossy(&out.stderr), begun.elapsed().as_secs_f64());
            let stdout = String::from_utf8_lossy(&out.stdout);
            println!("{name}, {ranks} ranks: {seconds:.1} s {}", stdout.trim());
            assert_eq!(out.status.success(), matches!(name, "whole" | "large"), "{text}");
            let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
            match says {
                Some(says) => {
                    assert!(matches!(errors[..], [error] if error.contains(says)), "{text}");
                    let named = format!("rank {}", ranks - 1);
                    assert!(*ranks == 1 || errors[0].contains(&named), "{text}");
                }
                // Of one that is killed `mpirun` tells, and ends the others at once.
                None => assert!(errors.is_empty(), "{text}"),
            }
            assert!(name != "killed" || text.contains("signal 9"), "{text}");
        }
    }
    ExitCode::SUCCESS
}
