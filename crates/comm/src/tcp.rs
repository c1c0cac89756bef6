//! Connections between all ranks, for what does not go through their GPUs: who is there, how long messages are, why
//! one ends.

use crate::wire::{Notice, Wire, pause};
use crate::{Error, Launch, Result};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// First bytes of a greeting: whoever connects by mistake does not know them.
const GREETING: &[u8; 8] = b"duel 1\r\n";
/// Bytes of a greeting: the above, rank, size, port.
const HELLO: usize = 20;
/// How long one that connects may take for its greeting.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a rank that ends waits for its last words to leave, and for others to have read them.
const PARTING: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);
/// The first of the ports that jobs of SLURM use where nobody names one, and how many there are.
const PORTS: [u64; 2] = [15_000, 10_000];

/// Kinds of frames.
const DATA: u8 = 0;
const NOTICE: u8 = 1;
/// Bytes before a frame: its kind, its length.
const HEAD: usize = 5;

// ---- meeting --------------------------------------------------------------------------------------------------------

/// Where rank 0 is to be found.
#[derive(Debug, PartialEq, Eq)]
struct Meeting {
    host: String,
    port: u16,
}

impl Meeting {
    /// What the environment says, which `variable` reads: `MASTER_ADDR` and `MASTER_PORT`, or what SLURM says of the
    /// step. `torchrun` holds its port itself: then it is the next one.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let lacks = || {
            Error::new(
                "ranks on GPUs meet at MASTER_ADDR and MASTER_PORT, which torchrun and srun say; set both",
            )
        };
        let nodes = || variable("SLURM_STEP_NODELIST").as_deref().and_then(first_node);
        let host = variable("MASTER_ADDR").or_else(nodes).ok_or_else(lacks)?;
        let Some(said) = variable("MASTER_PORT") else {
            let number = |name: &str| variable(name).and_then(|text| text.parse::<u64>().ok());
            let job = number("SLURM_JOB_ID").ok_or_else(lacks)?;
            let step = number("SLURM_STEP_ID").unwrap_or_default();
            return Ok(Meeting { host, port: (PORTS[0] + (job * 16 + step) % PORTS[1]) as u16 });
        };
        let next = u16::from(variable("TORCHELASTIC_RUN_ID").is_some());
        let port = said.parse::<u16>().ok().and_then(|port| port.checked_add(next));
        let port = port.ok_or_else(|| Error::new(format!("MASTER_PORT is {said:?}, which is no port")))?;
        Ok(Meeting { host, port })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let found = (&self.host[..], self.port).to_socket_addrs();
        found.map(Iterator::collect).map_err(|e| Error::new(format!("MASTER_ADDR {}: {e}", self.host)))
    }
}

/// The first node of a list as SLURM writes them: `gpu[007-009,12],other` begins with `gpu007`.
fn first_node(list: &str) -> Option<String> {
    let first = match list.split_once('[') {
        Some((prefix, rest)) if !prefix.contains(',') => {
            let number = rest.split([',', '-', ']']).next()?;
            format!("{prefix}{number}")
        }
        _ => list.split(',').next()?.to_string(),
    };
    (!first.is_empty()).then_some(first)
}

/// Who one that connects says it is.
struct Hello {
    rank: usize,
    size: usize,
    /// Where it listens.
    port: u16,
}

impl Hello {
    fn encode(&self) -> [u8; HELLO] {
        let mut bytes = [0; HELLO];
        bytes[..8].copy_from_slice(GREETING);
        let numbers = [self.rank as u32, self.size as u32, u32::from(self.port)];
        bytes[8..].chunks_exact_mut(4).zip(numbers).for_each(|(to, n)| to.copy_from_slice(&n.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8; HELLO]) -> Option<Self> {
        let number = |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[8 + 4 * i + byte]));
        let hello = Hello { rank: number(0) as usize, size: number(1) as usize, port: number(2) as u16 };
        bytes.starts_with(GREETING).then_some(hello)
    }
}

/// The next one that connects and knows the greeting.
///
/// # Errors
/// Nobody did before the deadline.
fn accept(listener: &TcpListener, deadline: Instant) -> Result<Option<(Hello, TcpStream)>> {
    let about = |e| Error::new(format!("listening for other ranks: {e}"));
    listener.set_nonblocking(true).map_err(about)?;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let mut bytes = [0; HELLO];
                let read =
                    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
                if read.and_then(|()| stream.read_exact(&mut bytes)).is_ok()
                    && let Some(hello) = Hello::decode(&bytes)
                {
                    return Ok(Some((hello, stream)));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(e) => return Err(about(e)),
        }
    }
    Ok(None)
}

/// Connects to the first address that answers, and says who this is.
fn connect(addresses: &[SocketAddr], hello: &Hello, deadline: Instant, to: &str) -> Result<TcpStream> {
    loop {
        let failed = match addresses.iter().map(TcpStream::connect).find_map(std::result::Result::ok) {
            Some(mut stream) => match stream.write_all(&hello.encode()) {
                Ok(()) => return Ok(stream),
                Err(e) => e.to_string(),
            },
            None => "nobody listens".into(),
        };
        if Instant::now() >= deadline {
            return Err(Error::new(format!("{to} cannot be reached at {addresses:?}: {failed}")));
        }
        thread::sleep(AGAIN);
    }
}

/// What rank 0 tells of where another one listens: nothing of the address if that is on its own machine.
fn encode_place(place: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let ip = match place.ip() {
        ip if ip.is_loopback() => [0; 16],
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    bytes[..16].copy_from_slice(&ip);
    bytes[16..].copy_from_slice(&place.port().to_le_bytes());
    bytes
}

fn decode_place(bytes: &[u8; 18], of_rank_0: IpAddr) -> SocketAddr {
    let ip: [u8; 16] = std::array::from_fn(|i| bytes[i]);
    let ip = if ip == [0; 16] { of_rank_0 } else { IpAddr::from(ip).to_canonical() };
    SocketAddr::new(ip, u16::from_le_bytes([bytes[16], bytes[17]]))
}

/// What to listen at to be reached from other machines: of these the first that this one has.
fn anywhere(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// Rank 0: waits for all, and tells each where the others are.
fn meet_all(meeting: &Meeting, size: usize, limit: Duration) -> Result<Vec<Option<TcpStream>>> {
    let deadline = Instant::now() + limit;
    let own = match (meeting.host.parse::<IpAddr>(), &meeting.host[..]) {
        (Ok(ip), _) if ip.is_loopback() => vec![SocketAddr::new(ip, meeting.port)],
        (_, "localhost") => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, meeting.port))],
        _ => anywhere(meeting.port),
    };
    let listener = TcpListener::bind(&own[..]).map_err(|e| {
        Error::new(format!(
            "rank 0 cannot listen at port {}: {e}; another MASTER_PORT may be free",
            meeting.port
        ))
    })?;
    let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    let mut places = vec![[0; 18]; size];
    while streams[1..].iter().any(Option::is_none) {
        let Some((hello, stream)) = accept(&listener, deadline)? else {
            let missing = (1..size).filter(|rank| streams[*rank].is_none()).map(|rank| rank.to_string());
            return Err(Error::new(format!(
                "rank {} did not come to {}:{} in {} s: it was not started, or cannot reach this machine",
                missing.collect::<Vec<_>>().join(", "),
                meeting.host,
                meeting.port,
                limit.as_secs_f64()
            )));
        };
        if hello.size != size || hello.rank == 0 || hello.rank >= size {
            return Err(Error::new(format!(
                "one says that it is rank {} of {}, and this is rank 0 of {size}: they are of two runs",
                hello.rank, hello.size
            )));
        }
        let peer = stream.peer_addr().map_err(|e| Error::new(format!("rank {}: {e}", hello.rank)))?;
        places[hello.rank] = encode_place(SocketAddr::new(peer.ip().to_canonical(), hello.port));
        if streams[hello.rank].replace(stream).is_some() {
            return Err(Error::new(format!("two processes say that they are rank {}", hello.rank)));
        }
    }
    for (rank, stream) in streams.iter_mut().enumerate() {
        if let Some(stream) = stream {
            stream.write_all(places.as_flattened()).map_err(|e| Error::new(format!("rank {rank}: {e}")))?;
        }
    }
    Ok(streams)
}

/// Another rank: comes to rank 0, and connects to those between.
fn meet(meeting: &Meeting, rank: usize, size: usize, limit: Duration) -> Result<Vec<Option<TcpStream>>> {
    let deadline = Instant::now() + limit;
    let about = |e| Error::new(format!("meeting rank 0: {e}"));
    let probe = meeting.addresses()?;
    let listener = TcpListener::bind(&anywhere(0)[..]).map_err(about)?;
    let port = listener.local_addr().map_err(about)?.port();
    let mut first = connect(&probe, &Hello { rank, size, port }, deadline, "rank 0")?;
    let mut places = vec![[0; 18]; size];
    first.set_read_timeout(Some(limit.max(PATIENCE))).map_err(about)?;
    first.read_exact(places.as_flattened_mut()).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::new(format!("rank 0 did not say where the others are in {} s", limit.as_secs_f64()))
        }
        _ => Error::new("rank 0 has ended before all ranks were there"),
    })?;
    let of_rank_0 = first.peer_addr().map_err(about)?.ip();
    let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    streams[0] = Some(first);
    for other in 1..rank {
        let place = decode_place(&places[other], of_rank_0);
        let hello = Hello { rank, size, port };
        streams[other] = Some(connect(&[place], &hello, deadline, &format!("rank {other}"))?);
    }
    while let Some(missing) = (rank + 1..size).find(|other| streams[*other].is_none()) {
        match accept(&listener, deadline)? {
            Some((hello, stream)) if hello.size == size && hello.rank > rank && hello.rank < size => {
                streams[hello.rank] = Some(stream);
            }
            Some(_) => {}
            None => return Err(Error::new(format!("rank {missing} did not connect to rank {rank}"))),
        }
    }
    Ok(streams)
}

// ---- lines ----------------------------------------------------------------------------------------------------------

/// The connection to one rank.
struct Peer {
    stream: TcpStream,
    /// What is to leave, and how much of it has left.
    out: Vec<u8>,
    left: usize,
    /// The beginning of a frame, and messages that were not taken yet.
    begun: Vec<u8>,
    messages: VecDeque<Vec<u8>>,
    notices: VecDeque<Notice>,
    /// Nothing comes any more.
    lost: bool,
}

impl Peer {
    fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (out, begun, messages, notices) = Default::default();
        Ok(Peer { stream, out, left: 0, begun, messages, notices, lost: false })
    }

    fn queue(&mut self, kind: u8, body: &[u8]) {
        self.out.push(kind);
        self.out.extend((body.len() as u32).to_le_bytes());
        self.out.extend_from_slice(body);
        self.flush();
    }

    /// Sends what leaves now.
    fn flush(&mut self) {
        while self.left < self.out.len() {
            match self.stream.write(&self.out[self.left..]) {
                Ok(0) => return,
                Ok(sent) => self.left += sent,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // What it has told before is still to be read, and then that it is gone.
                Err(_) => break,
            }
        }
        self.out.clear();
        self.left = 0;
    }

    /// Reads what is here.
    fn read(&mut self) {
        let mut room = [0; 1 << 16];
        while !self.lost {
            match self.stream.read(&mut room) {
                Ok(0) => self.lost = true,
                Ok(got) => self.begun.extend_from_slice(&room[..got]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.lost = true,
            }
        }
        let mut at = 0;
        while let Some(head) = self.begun.get(at..at + HEAD) {
            let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let kind = head[0];
            let Some(body) = self.begun.get(at + HEAD..at + HEAD + len) else { break };
            match kind {
                NOTICE => self.notices.push_back(Notice::decode(body)),
                _ => self.messages.push_back(body.to_vec()),
            }
            at += HEAD + len;
        }
        self.begun.drain(..at);
    }
}

/// The connections of one rank to all others.
pub(crate) struct Lines {
    rank: usize,
    /// By rank; none to itself.
    peers: Vec<Option<Peer>>,
}

impl Lines {
    /// Meets all others, within this time.
    pub(crate) fn meet(launch: &Launch, limit: Duration) -> Result<Self> {
        Self::meet_at(&Meeting::of(|name| std::env::var(name).ok())?, launch.rank, launch.size, limit)
    }

    fn meet_at(meeting: &Meeting, rank: usize, size: usize, limit: Duration) -> Result<Self> {
        let streams = match rank {
            0 => meet_all(meeting, size, limit)?,
            _ => meet(meeting, rank, size, limit)?,
        };
        let peers = streams.into_iter().map(|stream| stream.map(Peer::new).transpose());
        let peers = peers.collect::<std::io::Result<_>>();
        Ok(Lines { rank, peers: peers.map_err(|e| Error::new(format!("a connection to a rank: {e}")))? })
    }

    fn peer(&mut self, rank: usize) -> &mut Peer {
        self.peers[rank].as_mut().expect("a rank sends itself nothing")
    }

    fn others(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut().flatten()
    }
}

impl Wire for Lines {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn has_room(&mut self, to: usize) -> Result<bool> {
        let peer = self.peer(to);
        peer.flush();
        Ok(peer.out.is_empty() && !peer.lost)
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<()> {
        self.peer(to).queue(DATA, &message);
        Ok(())
    }

    fn take(&mut self, from: usize) -> Result<Option<Vec<u8>>> {
        let peer = self.peer(from);
        peer.read();
        Ok(peer.messages.pop_front())
    }

    fn give_back(&mut self, _message: Vec<u8>) {}

    fn is_gone(&mut self) -> Result<bool> {
        self.others().for_each(Peer::flush);
        Ok(self.others().all(|peer| peer.out.is_empty()))
    }

    fn notify(&mut self, notice: &Notice) {
        let bytes = notice.encode();
        self.others().for_each(|peer| peer.queue(NOTICE, &bytes));
        let begun = Instant::now();
        while begun.elapsed() < PARTING && !self.is_gone().unwrap_or(true) {
            thread::yield_now();
        }
    }

    fn notice(&mut self) -> Option<(usize, Notice)> {
        let peers = self.peers.iter_mut().enumerate();
        peers.filter_map(|(rank, peer)| Some((rank, peer.as_mut()?))).find_map(|(rank, peer)| {
            peer.read();
            peer.notices.pop_front().map(|notice| (rank, notice))
        })
    }

    fn is_lost(&self, rank: usize) -> bool {
        let of = |peer: &Peer| peer.lost && peer.messages.is_empty() && peer.notices.is_empty();
        self.peers[rank].as_ref().is_some_and(of)
    }

    fn rest(&mut self, moments: u32) {
        pause(moments);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // A connection that is closed before all of it was read takes with it what the other has not read yet.
        for peer in self.others() {
            drop(peer.stream.shutdown(Shutdown::Write));
        }
        let begun = Instant::now();
        while begun.elapsed() < PARTING && self.others().any(|peer| !peer.lost) {
            self.others().for_each(Peer::read);
            thread::sleep(AGAIN / 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Comm;
    use crate::joined::Joined;

    fn of(said: &[(&str, &str)]) -> std::result::Result<(String, u16), String> {
        let variable = |name: &str| said.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Meeting::of(variable).map(|m| (m.host, m.port)).map_err(|e| e.to_string())
    }

    #[test]
    fn where_ranks_meet() {
        let said = [("MASTER_ADDR", "gpu1"), ("MASTER_PORT", "29500")];
        assert_eq!(of(&said), Ok(("gpu1".into(), 29500)));
        // Its agent listens there itself.
        assert_eq!(of(&[&said[..], &[("TORCHELASTIC_RUN_ID", "7")]].concat()), Ok(("gpu1".into(), 29501)));
        let slurm =
            [("SLURM_STEP_NODELIST", "gpu[007-009,12],z1"), ("SLURM_JOB_ID", "4242"), ("SLURM_STEP_ID", "3")];
        assert_eq!(of(&slurm), Ok(("gpu007".into(), 22_875)));
        assert!(of(&[]).unwrap_err().contains("MASTER_ADDR and MASTER_PORT"));
        assert_eq!(first_node("a,b[1-2]"), Some("a".into()));
        assert_eq!(first_node("a-1"), Some("a-1".into()));
    }

    /// A port that nobody has.
    fn meeting() -> Meeting {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        Meeting { host: "127.0.0.1".into(), port }
    }

    /// What each of three ranks makes of its connections, while a stranger connects too.
    fn three<T: Send>(work: impl Fn(Lines) -> T + Sync) -> Vec<T> {
        let (meeting, work) = (meeting(), &work);
        let limit = Duration::from_secs(20);
        thread::scope(|scope| {
            let meeting = &meeting;
            let start = |rank| scope.spawn(move || work(Lines::meet_at(meeting, rank, 3, limit).unwrap()));
            let first = start(0);
            let addresses = meeting.addresses().unwrap();
            while TcpStream::connect(&addresses[..]).and_then(|mut s| s.write_all(&[7; HELLO])).is_err() {
                thread::sleep(AGAIN);
            }
            let all: Vec<_> = [first].into_iter().chain((1..3).map(start)).collect();
            all.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn ranks_meet_and_hear_each_other() {
        let errors = three(|lines| {
            let comm = Joined::new(lines);
            let of = |rank: usize| vec![rank as u8; [0, 10, 3 << 20][rank]];
            assert_eq!(comm.gather(&of(comm.rank())), Ok((0..3).map(of).collect()));
            let why = match comm.rank() {
                2 => "the disk is full".into(),
                _ => comm.gather(b"x").unwrap_err().to_string(),
            };
            comm.fail(&why);
            (why, comm.speaks())
        });
        for (rank, (why, speaks)) in errors.iter().enumerate() {
            assert_eq!(
                (why, *speaks),
                (&["rank 2: the disk is full", "the disk is full"][rank / 2].into(), rank == 0)
            );
        }
    }

    #[test]
    fn one_that_is_gone_is_named() {
        let errors = three(|lines| {
            if lines.rank == 0 {
                return (String::new(), false); // as if it were killed: no word of its own
            }
            let comm = Joined::new(lines);
            let error = comm.gather(b"x").unwrap_err().to_string();
            comm.fail(&error);
            (error, comm.speaks())
        });
        let gone = "rank 0 is gone without a word: it was killed, or its machine is gone";
        for (rank, (error, speaks)) in errors.iter().enumerate().skip(1) {
            assert!([gone.into(), format!("rank {}: {gone}", 3 - rank)].contains(error), "{error}");
            assert_eq!(*speaks, rank == 1, "rank {rank}");
        }
    }
}
