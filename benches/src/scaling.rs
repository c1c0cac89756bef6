//! How long a step takes on many processes, and what fits: a model on paper.
//!
//! A step has `shares`, each a gradient of its own. In a round every process makes one and sends to each other process
//! the piece that this one owns, which adds them in the order of shares; after the last round it updates its piece and
//! sends the new weights to all. Nothing of that overlaps here: the sum of the parts is the most that it takes.

/// What is trained, by the numbers that the model asks for.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// As tables show it.
    pub name: &'static str,
    /// Weights, all of which are trained.
    pub parameters: f64,
    /// Layers and their width, for activations.
    pub layers: f64,
    /// See `layers`.
    pub width: f64,
}

/// Models by size, of the shapes of Llama 3 and Qwen 2.5 and 3.
pub const MODELS: [Model; 5] = [
    Model { name: "1B", parameters: 1.24e9, layers: 16.0, width: 2048.0 },
    Model { name: "8B", parameters: 8.03e9, layers: 32.0, width: 4096.0 },
    Model { name: "14B", parameters: 14.8e9, layers: 40.0, width: 5120.0 },
    Model { name: "32B", parameters: 32.8e9, layers: 64.0, width: 5120.0 },
    Model { name: "70B", parameters: 70.6e9, layers: 80.0, width: 8192.0 },
];

/// A kind of process, and what joins it to others.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// As tables show it.
    pub name: &'static str,
    /// Processes of a node.
    pub per_node: usize,
    /// Operations a second in a step, counted as 6 a weight and token.
    pub flops: f64,
    /// Bytes of memory of a process.
    pub memory: f64,
    /// Bytes of a weight; sums, masters and moments have 4.
    pub weight: f64,
    /// Tokens of a share, and of a micro-batch, whose activations exist together.
    pub tokens: [f64; 2],
    /// Bytes a second out of a process: to its own node, to others.
    pub links: [f64; 2],
    /// Seconds that a message costs who sends it.
    pub message: f64,
    /// Bytes a second between host and device, in each direction; none where the host computes.
    pub bus: Option<f64>,
    /// Bytes a second of the host's memory, for a process.
    pub host: f64,
}

/// Share of a link's or a memory's nominal rate that programs get: an assumption.
pub const SHARE: f64 = 0.8;

/// A GPU of a node of eight.
///
/// - 499 TFLOP/s: measured, a step of DPO of Llama-3.2-1B of 8 pairs in 0.168 s
///   (`benches/results/gpu-2026-11-26-h100.json`), by 6 operations a weight and token of its 11,264.
/// - 450 GB/s over NVLink and 400 Gb/s a GPU over the network, in each direction: NVIDIA, "H100 Tensor Core GPU" and
///   "DGX H100" data sheets. 64 GB/s over PCIe 5.0 x16: PCI-SIG.
/// - 614 GB/s of the host's memory, 16 channels of DDR5-4800, for eight processes.
/// - 5 µs a message: an assumption.
pub const GPU: Machine = Machine {
    name: "H100",
    per_node: 8,
    flops: 6.0 * 1.24e9 * 11_264.0 / 0.168,
    memory: 85.0e9,
    weight: 2.0,
    tokens: [16_384.0, 4096.0],
    links: [450e9 * SHARE, 50e9 * SHARE],
    message: 5e-6,
    bus: Some(64e9 * SHARE),
    host: 614e9 / 8.0 * SHARE,
};

/// A node of processors, one process on it.
///
/// - 64 virtual cores of 168 GFLOP/s: measured in float32 on two of Zen 5, a step of SmolLM2-135M
///   (`benches/results/2026-11-23-amd-epyc-2-cores.json`). That 64 are 32 times as fast as two is an assumption.
/// - 100 Gb/s of network, 20 µs a message, 512 GB of memory at 400 GB/s: assumptions.
pub const CPU: Machine = Machine {
    name: "CPU node",
    per_node: 1,
    flops: 64.0 * 168e9,
    memory: 512e9,
    weight: 4.0,
    tokens: [8192.0, 4096.0],
    links: [f64::INFINITY, 12.5e9 * SHARE],
    message: 20e-6,
    bus: None,
    host: 400e9 * SHARE,
};

/// Elements that a process sends another at a time (`SENT` of the trainer).
const SENT: f64 = (1 << 18) as f64;
/// Bytes of a sum of gradients, of a moment, of a master.
const SUM: f64 = 4.0;
/// Bytes that an update reads and writes for a weight: two moments and itself twice, the sum once.
const UPDATED: f64 = 7.0 * SUM;
/// Bytes that adding a gradient reads and writes for a weight: itself, and a sum twice.
const ADDED: f64 = 3.0 * SUM;
/// Bytes that copying a number on the host reads and writes.
const COPIED: f64 = 2.0 * SUM;
/// Bytes that a token's activations take, a layer and element of its width: 8.6 GB of the 1B model's measured peak of
/// 30.8 GB are those of 11,264 tokens.
const ACTIVATION: f64 = 23.0;
/// Share of a device's memory that can be planned with.
const USABLE: f64 = 0.9;

/// What each process has of the state of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharding {
    /// ZeRO-1: masters and moments in pieces; weights and the gradient of a share whole. What duel does of several
    /// passes.
    Optimizer,
    /// ZeRO-2: a gradient leaves layer by layer, and is never there as a whole. What duel does where a share is a
    /// single pass.
    Gradients,
    /// ZeRO-3, or tensor parallelism: weights in pieces too, a layer's together when it is computed.
    Weights,
}

impl Sharding {
    /// From the least to the most that is cut.
    pub const ALL: [Sharding; 3] = [Sharding::Optimizer, Sharding::Gradients, Sharding::Weights];

    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Sharding::Optimizer => "ZeRO-1",
            Sharding::Gradients => "ZeRO-2",
            Sharding::Weights => "ZeRO-3",
        }
    }
}

/// Where the seconds of a step go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Forward, backward, and the update of the own piece.
    pub compute: f64,
    /// Bytes through links.
    pub wire: f64,
    /// Messages, whatever is in them.
    pub messages: f64,
    /// Bytes to the host and back, and what it adds there.
    pub host: f64,
}

impl Step {
    /// All of it.
    pub fn seconds(self) -> f64 {
        self.compute + self.wire + self.messages + self.host
    }

    /// The part in which something is learned.
    pub fn efficiency(self) -> f64 {
        self.compute / self.seconds()
    }
}

/// A run of a model on so many processes.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What is trained.
    pub model: Model,
    /// On what.
    pub machine: Machine,
    /// How many.
    pub processes: f64,
    /// Shares of a step, at least as many.
    pub shares: f64,
}

impl Run {
    /// Bytes that a process sends in a step: gradients in every round, new weights once.
    pub fn sent(&self) -> f64 {
        let (n, own) = (self.processes, self.model.parameters / self.processes);
        let rounds = (self.shares / n).ceil();
        rounds * (self.model.parameters - own) * SUM + own * self.machine.weight * (n - 1.0)
    }

    /// Seconds of a step. `staged`: messages of a GPU go through the memory of the host, where gradients are added.
    pub fn step(&self, staged: bool) -> Step {
        let Run { model: Model { parameters: p, .. }, machine, processes: n, shares } = *self;
        let rounds = (shares / n).ceil();
        let update = p / n * UPDATED / if machine.bus.is_some() { 3e12 } else { machine.host };
        let compute = rounds * 6.0 * p * machine.tokens[0] / machine.flops + update;
        if n < 2.0 {
            return Step { compute, ..Step::default() };
        }
        // Each other process gets as much as any.
        let near = ((machine.per_node as f64).min(n) - 1.0) / (n - 1.0);
        let wire = self.sent() * (near / machine.links[0]).max((1.0 - near) / machine.links[1]);
        // A piece to each other process, in parts, and before each of them where both are: gradients layer by layer,
        // with what lies before the layers and after them.
        let parts = |of: f64| (of / shares.max(n) / SENT).ceil() * (shares / n).ceil();
        let groups = self.model.layers + 2.0;
        let parts = rounds * groups * parts(p / groups) + parts(p);
        let messages = parts * 2.0 * (n - 1.0) * machine.message;
        let added = rounds * p * ADDED / machine.host;
        let host = match machine.bus {
            None => added + copied(p, [shares, rounds, n]) * COPIED / machine.host,
            Some(_) if !staged => 0.0,
            // Down: from the trainer, to the host once more from where it was received; weights likewise.
            Some(bus) => added + 2.0 * p * (rounds * SUM + machine.weight) / bus,
        };
        Step { compute, wire, messages, host }
    }

    /// Bytes of a process.
    pub fn bytes(&self, sharding: Sharding) -> f64 {
        let Run { model, machine, processes: n, .. } = *self;
        let weights = model.parameters * machine.weight;
        // Two moments and the sum of the shares; a master and the new weights beside it where weights are narrow.
        let masters = if machine.weight < SUM { SUM + machine.weight } else { 0.0 };
        let own = model.parameters * (3.0 * SUM + masters) / n;
        let layer = (weights + model.parameters * SUM) / model.layers;
        let whole = match sharding {
            Sharding::Optimizer => weights + model.parameters * SUM,
            Sharding::Gradients => weights + layer,
            Sharding::Weights => weights / n + 2.0 * layer,
        };
        whole + own + ACTIVATION * model.layers * model.width * machine.tokens[1]
    }

    /// The least that has to be cut for it to fit; none: more processes, or activations in pieces too.
    pub fn needs(&self) -> Option<Sharding> {
        Sharding::ALL.into_iter().find(|sharding| self.bytes(*sharding) <= USABLE * self.machine.memory)
    }
}

/// Numbers that a process of `n` copies on the host in a step of `shares`, of which `rounds` are its own: it puts each
/// gradient together for all, then into messages or to its own; takes its pieces out of the others' messages; puts its
/// new weights together, for itself and into messages, takes those of the others, and puts all in their places.
fn copied(parameters: f64, [shares, rounds, n]: [f64; 3]) -> f64 {
    let own = parameters * rounds / shares;
    2.0 * rounds * parameters + own * (shares - rounds) + own * n + 2.0 * parameters
}

/// Processes of one thread on a machine that may have fewer cores: the plan's parts, with what was measured apart from
/// the runs that it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// How many.
    pub cores: f64,
    /// Weights of the model.
    pub parameters: f64,
    /// Shares of a step.
    pub shares: f64,
    /// Seconds of a step of one process.
    pub alone: f64,
    /// How much longer processes take that share cores than their number says.
    pub crowding: f64,
    /// Bytes a second of adding, copying and updating.
    pub host: f64,
    /// Bytes a second out of each of 2, 3 and 4 processes that all send to all, a mebibyte a message.
    pub links: [f64; 3],
}

/// Two virtual cores of an Intel Xeon with AVX-512 and AMX, 2026-11-28, float32, all other processes stopped;
/// SmolLM2-135M, SFT, four equal rows in four shares. Three runs of one process at once took 10.9 s a step, and four
/// 14.7 s. Links and the host are those of a small program of MPI (means of four); Open MPI 4.1.4, shared memory.
pub const HERE: Cores = Cores {
    cores: 2.0,
    parameters: 134.515e6,
    shares: 4.0,
    alone: 7.00,
    crowding: 10.9 / 7.00 / 1.5,
    host: 19.1e9,
    links: [4.05e9, 2.17e9, 2.34e9],
};

/// Seconds of a step there with 1 to 4 processes: means of the third and fourth step, of two runs or (2, 4) four.
pub const MEASURED: [f64; 4] = [7.00, 3.94, 5.48, 4.60];

impl Cores {
    /// Seconds of a step of so many processes, as the first of them has it, which has most.
    pub fn step(&self, processes: usize) -> Step {
        let Cores { cores, parameters: p, shares, crowding, .. } = *self;
        let n = processes as f64;
        let rounds = (shares / n).ceil();
        // Those that have a share in this round.
        let at_once = |round: usize| (shares - round as f64 * n).min(n);
        let slower = |at_once: f64| if at_once > cores { at_once / cores * crowding } else { 1.0 };
        let share = (self.alone - self.updating(1).iter().sum::<f64>()) / shares;
        let computing: f64 = (0..rounds as usize).map(|round| share * slower(at_once(round))).sum();
        let [update, host] = self.updating(processes);
        // Pieces are as many as shares.
        let own = p * rounds / shares;
        let sent = rounds * (p - own) * SUM + own * SUM * (n - 1.0);
        let wire = processes.checked_sub(2).map_or(0.0, |i| sent / self.links[i.min(2)]);
        Step { compute: computing + update, wire, messages: 0.0, host }
    }

    /// Seconds of updating, and of adding and copying: as long as the first process takes, or as all take that share
    /// the cores.
    fn updating(&self, processes: usize) -> [f64; 2] {
        let Cores { cores, parameters: p, shares, crowding, host, .. } = *self;
        let n = processes as f64;
        let of = |process: usize| {
            let rounds = ((shares - process as f64) / n).ceil();
            let own = p * rounds / shares;
            [own * UPDATED, own * shares * ADDED + copied(p, [shares, rounds, n]) * COPIED]
        };
        std::array::from_fn(|i| {
            let all: f64 = (0..processes).map(|process| of(process)[i]).sum();
            let crowded = if n > cores { crowding } else { 1.0 };
            of(0)[i].max(all / cores) / host * crowded
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_here_is_within_a_tenth() {
        for (processes, measured) in (1..).zip(MEASURED) {
            let planned = HERE.step(processes).seconds();
            assert!((planned / measured - 1.0).abs() < 0.1, "{processes}: {planned}, {measured}");
        }
    }

    /// Counted by hand, in parameters.
    #[test]
    fn copies_are_those_of_the_trainer() {
        for (n, rounds, want) in [(1.0, 4.0, 11.0), (2.0, 2.0, 8.0), (3.0, 2.0, 8.5), (4.0, 1.0, 5.75)] {
            assert_eq!(copied(1.0, [4.0, rounds, n]), want, "{n} processes");
        }
    }

    fn run(model: usize, machine: Machine, processes: f64) -> Run {
        Run { model: MODELS[model], machine, processes, shares: processes }
    }

    /// As `Cut::sent` of the trainer counts it, where everything is even.
    #[test]
    fn bytes_are_a_gradient_and_the_weights() {
        let one = run(0, GPU, 8.0);
        let p = one.model.parameters;
        assert!((one.sent() / (p * 6.0 * 7.0 / 8.0) - 1.0).abs() < 1e-12);
        let rounds = Run { shares: 32.0, ..one };
        assert!((rounds.sent() / (p * (4.0 * 4.0 + 2.0) * 7.0 / 8.0) - 1.0).abs() < 1e-12);
        assert!(run(0, GPU, 1.0).sent() == 0.0);
    }

    #[test]
    fn alone_nothing_is_sent_and_the_measured_step_comes_out() {
        let mut one = run(0, GPU, 1.0);
        one.machine.tokens[0] = 11_264.0;
        // The update of the measured step is in its rate, and here once more.
        assert!((one.step(true).seconds() / 0.168 - 1.0).abs() < 0.1, "{:?}", one.step(true));
        assert!(one.step(true).efficiency() == 1.0);
        // 30.8 GB were measured: 16 bytes of state a parameter, activations of all 11,264 tokens.
        one.machine.tokens[1] = 11_264.0;
        let bytes = one.bytes(Sharding::Optimizer) - one.model.parameters * (SUM + 2.0);
        assert!((bytes / 30.8e9 - 1.0).abs() < 0.1, "{bytes}");
    }

    #[test]
    fn memory_falls_with_processes_and_with_what_is_cut() {
        for model in 0..MODELS.len() {
            for [few, many] in [[8.0, 64.0], [64.0, 512.0]] {
                let [few, many] = [few, many].map(|n| run(model, GPU, n));
                for pair in Sharding::ALL.windows(2) {
                    assert!(few.bytes(pair[0]) > few.bytes(pair[1]));
                }
                assert!(Sharding::ALL.iter().all(|s| few.bytes(*s) > many.bytes(*s)));
            }
        }
        assert_eq!(run(0, GPU, 8.0).needs(), Some(Sharding::Optimizer));
        assert_eq!(run(4, GPU, 8.0).needs(), None, "70B has more state than eight GPUs have memory");
        assert_eq!(run(4, GPU, 512.0).needs(), Some(Sharding::Weights));
    }
}
