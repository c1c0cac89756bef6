//! `cargo xtask kernels`: compiles every CUDA kernel and shows what the compiler made of it; runs the conformance suite
//! under a sanitizer. Needs no GPU.

use duel_kernels::{KERNELS, Kernel, SOURCES, Source, Target};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const HELP: &str = "cargo xtask kernels [--install DIR | --asan | --race [--quick]]

  without arguments  compile all kernels for every target and print the table; fails on a spill in a hot kernel or a
                     missing instruction
  --install DIR      put nvcc and nvdisasm there, from PyPI (pip)
  --asan, --race     run the kernels' tests under AddressSanitizer, or as a race checker under ThreadSanitizer
  --quick            of these tests those of attention and of products, which are what has the most threads and memory

nvcc and nvdisasm are taken from DUEL_CUDA_ROOT (a CUDA toolkit, or a folder of `--install`), from CUDA_HOME, or from the
PATH, in this order.";

/// The compiler's parts must be of one version; the disassembler reads the output of older ones.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-nvdisasm==13.2.78",
];

/// What `kernels` was told to do.
pub fn run(args: &[String]) -> Result<(), String> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => gate(),
        ["--install", dir] => install(Path::new(dir)),
        ["--asan"] => sanitize(&ADDRESS, &[]),
        ["--asan", "--quick"] => sanitize(&ADDRESS, QUICK),
        ["--race"] => sanitize(&THREAD, &[]),
        ["--race", "--quick"] => sanitize(&THREAD, QUICK),
        ["--help"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(HELP.into()),
    }
}

fn install(dir: &Path) -> Result<(), String> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--no-deps", "--upgrade", "--target"]).arg(dir).args(WHEELS);
    succeed(&mut pip)?;
    println!("use it with DUEL_CUDA_ROOT={}", dir.display());
    Ok(())
}

/// # Errors
/// It cannot be started, or fails.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name} cannot be started: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {status}")) }
}

// ---- sanitizers ----------------------------------------------------------------------------------------------------

struct Sanitizer {
    /// What `DUEL_SIMT_SANITIZE` is set to.
    name: &'static str,
    /// The runtime, which must be loaded before everything else: the tests are Rust programs.
    library: &'static str,
    /// Variable and value of its options.
    options: (&'static str, &'static str),
    /// Which tests, for cargo, and how many at once.
    tests: &'static [&'static str],
    at_once: &'static str,
}

/// Names of tests: of kernels, and of mistakes that a sanitizer has to report.
const QUICK: &[&str] = &["attention", "gemm", "is_reported"];

const ADDRESS: Sanitizer = Sanitizer {
    name: "address",
    library: "libasan.so",
    // A launch that ends in an error leaves its threads' stacks as they are, with what these own.
    options: ("ASAN_OPTIONS", "detect_leaks=0"),
    tests: &["--tests"],
    at_once: "2",
};

const THREAD: Sanitizer = Sanitizer {
    name: "thread",
    library: "libtsan.so",
    options: (
        "TSAN_OPTIONS",
        concat!("suppressions=", env!("CARGO_MANIFEST_DIR"), "/../tests/kernels/tsan.supp"),
    ),
    tests: &["--test", "emulation", "--test", "sanitizers"],
    at_once: "1",
};

/// All of a sanitizer's tests, or those with one of these names.
fn sanitize(sanitizer: &Sanitizer, names: &[&str]) -> Result<(), String> {
    let output = Command::new("gcc").arg(format!("-print-file-name={}", sanitizer.library)).output();
    let output = output.map_err(|e| format!("gcc cannot be started: {e}"))?;
    let library = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !library.is_absolute() {
        return Err(format!("gcc has no {}", sanitizer.library));
    }
    // Through a runner: cargo itself must not have the runtime loaded.
    let (variable, value) = sanitizer.options;
    let runner = format!("env LD_PRELOAD={} {variable}={value}", library.display());
    let mut cargo = crate::command(&["test", "--package", "duel-kernel-tests"], &[]);
    cargo.args(sanitizer.tests).args(["--", "--test-threads", sanitizer.at_once]).args(names);
    // Reports name lines by debug information, whatever the user's environment says of it.
    cargo
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("DUEL_SIMT_SANITIZE", sanitizer.name)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    succeed(&mut cargo)
}

// ---- tools ---------------------------------------------------------------------------------------------------------

struct Tools {
    nvcc: PathBuf,
    nvdisasm: PathBuf,
}

impl Tools {
    fn find() -> Result<Self, String> {
        let roots =
            ["DUEL_CUDA_ROOT", "CUDA_HOME"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let mut folders: Vec<_> = roots.flat_map(|r| [r.join("bin"), r.join("nvidia/cu13/bin")]).collect();
        folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let find = |name: &str| {
            let found = folders.iter().map(|f| f.join(name)).find(|tool| tool.is_file());
            found.ok_or_else(|| {
                format!("no {name} in DUEL_CUDA_ROOT, CUDA_HOME or PATH; `cargo xtask kernels --install DIR` gets one")
            })
        };
        Ok(Tools { nvcc: find("nvcc")?, nvdisasm: find("nvdisasm")? })
    }

    /// Runs a tool; its output, standard error included.
    fn output(tool: &Path, args: &[String]) -> Result<String, String> {
        let output = Command::new(tool).args(args).output();
        let output = output.map_err(|e| format!("{} cannot be started: {e}", tool.display()))?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{} {}:\n{text}", tool.display(), args.join(" ")))
        }
    }
}

// ---- targets -------------------------------------------------------------------------------------------------------

/// A device to compile for, with what limits the blocks that fit on one multiprocessor (CUDA C++ Programming Guide,
/// "Technical Specifications per Compute Capability").
struct Device {
    name: &'static str,
    warps: u32,
    blocks: u32,
    shared: u32,
    /// Whether the instructions of the table of kernels are asked for: the newer ones are only compiled.
    checked: bool,
}

const DEVICES: [Device; 4] = [
    Device { name: "80", warps: 64, blocks: 32, shared: 164 << 10, checked: true },
    Device { name: "90a", warps: 64, blocks: 32, shared: 228 << 10, checked: true },
    Device { name: "100a", warps: 64, blocks: 32, shared: 228 << 10, checked: false },
    Device { name: "120a", warps: 48, blocks: 24, shared: 100 << 10, checked: false },
];

const REGISTERS_A_MULTIPROCESSOR: u32 = 65536;
/// Registers are given to a warp in portions of this many.
const REGISTER_PORTION: u32 = 256;
/// Shared memory that the system takes for itself from each block.
const SYSTEM_SHARED: u32 = 1024;

impl Device {
    /// Blocks that fit on a multiprocessor.
    fn occupancy(&self, kernel: &Kernel, usage: &Usage) -> u32 {
        let warps = kernel.threads.div_ceil(32);
        let registers = (usage.registers * 32).next_multiple_of(REGISTER_PORTION) * warps;
        let shared = kernel.shared + usage.shared + SYSTEM_SHARED;
        let limits =
            [self.warps / warps, self.blocks, REGISTERS_A_MULTIPROCESSOR / registers, self.shared / shared];
        limits.into_iter().min().unwrap_or(0)
    }

    fn runs(&self, target: Target) -> bool {
        target == Target::Sm80 || self.name == "90a"
    }
}

// ---- what the compiler says ----------------------------------------------------------------------------------------

/// Resources of a kernel, as ptxas reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Usage {
    registers: u32,
    /// Static shared memory, in bytes.
    shared: u32,
    spill_stores: u32,
    spill_loads: u32,
}

/// The number before `what` in a line of a report.
fn number_before(line: &str, what: &str) -> Option<u32> {
    line[..line.find(what)?].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Resources of each kernel in a report of `ptxas -v`.
fn parse_report(report: &str) -> HashMap<String, Usage> {
    let mut all: HashMap<String, Usage> = HashMap::new();
    let mut name = "";
    for line in report.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            name = rest.split('\'').next().unwrap_or_default();
        }
        let usage = all.entry(name.into()).or_default();
        let numbers = [
            (" bytes spill stores", &mut usage.spill_stores),
            (" bytes spill loads", &mut usage.spill_loads),
            (" registers", &mut usage.registers),
            (" bytes smem", &mut usage.shared),
        ];
        for (what, field) in numbers {
            if let Some(number) = number_before(line, what) {
                *field = number;
            }
        }
    }
    all.remove("");
    all
}

/// Lines in which ptxas says that it had to give up an optimisation, such as overlapping wgmma.
fn complaints(report: &str) -> impl Iterator<Item = &str> {
    report.lines().filter(|line| line.contains("Potential Performance Loss"))
}

/// The opcodes of each kernel in the output of nvdisasm.
fn parse_disassembly(text: &str) -> HashMap<String, Vec<&str>> {
    let mut all: HashMap<String, Vec<&str>> = HashMap::new();
    let mut current = None;
    for line in text.lines() {
        if line.starts_with("//---") {
            current = line.split(".text.").nth(1).and_then(|rest| rest.split_whitespace().next());
        } else if let (Some(name), Some(code)) = (current, line.trim_start().strip_prefix("/*")) {
            // `/*0040*/ @!P0 LDG.E.128 R4, ... ;`
            let code = code.split("*/").nth(1).unwrap_or_default();
            if let Some(opcode) = code.split_whitespace().find(|word| !word.starts_with('@')) {
                all.entry(name.into()).or_default().push(opcode.trim_end_matches(';'));
            }
        }
    }
    all
}

// ---- the gate ------------------------------------------------------------------------------------------------------

/// One line of the table, and what is wrong with it.
struct Row {
    cells: Vec<String>,
    failures: Vec<String>,
}

struct Job<'a> {
    source: &'a Source,
    device: &'a Device,
}

impl Job<'_> {
    /// Compiles the source for the device and looks at each of its kernels.
    fn run(&self, tools: &Tools, out: &Path) -> Result<Vec<Row>, String> {
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels");
        let Device { name, .. } = self.device;
        let cubin = out.join(format!("{}.sm_{name}.cubin", self.source.name));
        let mut args: Vec<String> =
            ["-std=c++17", "-cubin", "-Xptxas", "-v", "-o"].map(String::from).to_vec();
        args.push(cubin.display().to_string());
        args.push(format!("-gencode=arch=compute_{name},code=sm_{name}"));
        args.push(kernels.join(self.source.name).display().to_string());
        let report = Tools::output(&tools.nvcc, &args)?;
        let disassembly = Tools::output(&tools.nvdisasm, &["-c".into(), cubin.display().to_string()])?;

        let usages = parse_report(&report);
        let opcodes = parse_disassembly(&disassembly);
        let mut rows = Vec::new();
        for kernel in KERNELS.iter().filter(|k| k.source == self.source.name) {
            let usage = usages.get(kernel.name).cloned().unwrap_or_default();
            let opcodes = opcodes.get(kernel.name).map_or(&[][..], Vec::as_slice);
            rows.push(self.row(kernel, &usage, opcodes));
        }
        let complaints =
            complaints(&report).map(|line| format!("{} for sm_{name}: {}", self.source.name, line.trim()));
        if let Some(row) = rows.first_mut() {
            row.failures.extend(complaints);
        }
        Ok(rows)
    }

    fn row(&self, kernel: &Kernel, usage: &Usage, opcodes: &[&str]) -> Row {
        let target = format!("sm_{}", self.device.name);
        let context = format!("{} for {target}", kernel.name);
        let mut failures = Vec::new();
        if usage.registers == 0 {
            failures.push(format!("{context}: the compiler reports nothing about it"));
        }
        if kernel.hot && usage.spill_stores + usage.spill_loads > 0 {
            failures.push(format!("{context}: a hot kernel spills"));
        }
        let count = |wanted: &str| opcodes.iter().filter(|opcode| opcode.starts_with(wanted)).count();
        let found: Vec<_> = kernel.instructions.iter().map(|&wanted| (wanted, count(wanted))).collect();
        for (wanted, _) in found.iter().filter(|(_, n)| self.device.checked && *n == 0) {
            failures.push(format!("{context}: no {wanted} in its machine code"));
        }
        let cells = vec![
            kernel.name.into(),
            target,
            kernel.threads.to_string(),
            usage.registers.to_string(),
            format!("{} + {}", usage.shared, kernel.shared),
            if usage.registers == 0 { "?".into() } else { self.device.occupancy(kernel, usage).to_string() },
            format!("{} / {}", usage.spill_stores, usage.spill_loads),
            if kernel.hot { "hot".into() } else { String::new() },
            found.iter().map(|(wanted, n)| format!("{wanted} {n}")).collect::<Vec<_>>().join(", "),
        ];
        Row { cells, failures }
    }
}

const COLUMNS: [&str; 9] = [
    "kernel",
    "target",
    "threads",
    "registers",
    "shared static + dynamic",
    "blocks/SM",
    "spill bytes st / ld",
    "",
    "instructions",
];

fn print_table(rows: &[Row]) {
    let header: Vec<String> = COLUMNS.map(String::from).to_vec();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(rows.iter().map(|r| &r.cells)).collect();
    let widths: Vec<usize> =
        (0..COLUMNS.len()).map(|c| lines.iter().map(|line| line[c].len()).max().unwrap_or(0)).collect();
    for (i, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if i == 0 {
            let rules: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
}

/// Runs the jobs on all cores; results in the order of the jobs.
fn in_parallel<T: Sync, R: Send>(jobs: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(i) else { break };
                    let result = f(job);
                    done.lock().expect("no other thread panicked").push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn gate() -> Result<(), String> {
    let tools = Tools::find()?;
    let known = Tools::output(&tools.nvcc, &["--list-gpu-code".into()])?;
    let knows = |device: &&Device| {
        device.checked || known.contains(&format!("sm_{}", device.name.trim_end_matches('a')))
    };
    let devices: Vec<&Device> = DEVICES.iter().filter(knows).collect();
    let out = std::env::temp_dir().join(format!("duel-kernels-{}", std::process::id()));
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;

    let mut jobs = Vec::new();
    for source in SOURCES {
        let target = KERNELS.iter().find(|k| k.source == source.name).map_or(Target::Sm80, |k| k.target);
        jobs.extend(devices.iter().filter(|d| d.runs(target)).map(|&device| Job { source, device }));
    }
    let results = in_parallel(&jobs, |job| job.run(&tools, &out));
    // A folder that stays behind in the system's temporary place is no reason to fail.
    drop(std::fs::remove_dir_all(&out));

    let mut rows = Vec::new();
    for result in results {
        rows.extend(result?);
    }
    print_table(&rows);
    let failures: Vec<_> = rows.into_iter().flat_map(|row| row.failures).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'swiglu_bf16' for 'sm_80'
ptxas info    : Function properties for swiglu_bf16
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 45 registers, used 0 barriers, 384 bytes cmem[0]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : Compiling entry function 'attention' for 'sm_80'
ptxas info    : Function properties for attention
    24 bytes stack frame, 20 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 254 registers, used 3 barriers, 24 bytes cumulative stack size, 2048 bytes smem";

    #[test]
    fn a_report_gives_the_resources_of_each_kernel() {
        let all = parse_report(REPORT);
        assert_eq!(all.len(), 2);
        assert_eq!(all["swiglu_bf16"], Usage { registers: 45, ..Usage::default() });
        let attention = Usage { registers: 254, shared: 2048, spill_stores: 20, spill_loads: 28 };
        assert_eq!(all["attention"], attention);
        assert_eq!(complaints(REPORT).count(), 1);
    }

    #[test]
    fn a_disassembly_gives_the_opcodes_of_each_kernel() {
        let text = "\
//--------------------- .text.one --------------------------
.text.one:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;
//--------------------- .nv.shared --------------------------
        /*0000*/                   NOT_CODE ;
//--------------------- .text.two --------------------------
        /*0000*/                   EXIT ;";
        let all = parse_disassembly(text);
        assert_eq!(all["one"], ["LDC", "LDG.E.128"]);
        assert_eq!(all["two"], ["EXIT"]);
    }

    fn kernel(hot: bool, instructions: &'static [&'static str]) -> Kernel {
        Kernel { name: "k", source: "k.cu", target: Target::Sm80, threads: 256, shared: 0, hot, instructions }
    }

    #[test]
    fn a_hot_kernel_may_not_spill_and_instructions_may_not_be_missing() {
        let source = Source { name: "k.cu", text: "" };
        let job = Job { source: &source, device: &DEVICES[0] };
        let spills = Usage { registers: 255, spill_stores: 4, ..Usage::default() };
        assert_eq!(job.row(&kernel(true, &[]), &spills, &[]).failures.len(), 1);
        assert!(job.row(&kernel(false, &[]), &spills, &[]).failures.is_empty());
        let clean = Usage { registers: 32, ..Usage::default() };
        assert_eq!(job.row(&kernel(false, &["HMMA"]), &clean, &["FFMA"]).failures.len(), 1);
        assert!(job.row(&kernel(false, &["HMMA"]), &clean, &["HMMA.16816.F32.BF16"]).failures.is_empty());
        assert_eq!(job.row(&kernel(false, &[]), &Usage::default(), &[]).failures.len(), 1);
    }

    #[test]
    fn occupancy_is_what_the_scarcest_resource_allows() {
        let usage = |registers, shared| Usage { registers, shared, ..Usage::default() };
        let a100 = &DEVICES[0];
        assert_eq!(a100.occupancy(&kernel(false, &[]), &usage(32, 0)), 8); // 64 warps
        assert_eq!(a100.occupancy(&kernel(false, &[]), &usage(65, 0)), 3); // 72 registers a thread
        assert_eq!(a100.occupancy(&kernel(false, &[]), &usage(32, 80 << 10)), 2); // 81 KiB of 164
        let one_warp = Kernel { threads: 32, ..kernel(false, &[]) };
        assert_eq!(a100.occupancy(&one_warp, &usage(16, 0)), 32);
    }
}
