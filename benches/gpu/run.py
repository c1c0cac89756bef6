#!/usr/bin/env python3
"""Checks and measures duel on the first NVIDIA GPU, beside PyTorch, Liger and TRL, in one run and one JSON file.

    python3 benches/gpu/run.py --quick      # five minutes
    python3 benches/gpu/run.py              # under ten

It runs from the bundle that `cargo xtask gpu-pack` makes and needs an NVIDIA driver, CUDA's NVRTC and cuBLASLt, and a
Python with PyTorch and transformers. Each stage is a process of its own with a limit of time. A stage that fails or is
cut off is recorded, the others go on, and the file is written anew after each. No setting of the GPU is touched.
"""

import argparse
import contextlib
import ctypes
import datetime
import glob
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Beside this folder in the repository and in the bundle alike.
sys.path.insert(0, str(HERE.parent / "peers"))

from contest import ending

BINARIES = {name: ROOT / "bin" / name for name in ("duel", "conformance", "bench")}

# Stages in their order, and how the seconds are shared: correctness first, then what is worth most. Time that a stage
# leaves over goes to those after it.
QUICK = {"ceilings": 10, "conformance": 65, "sanitizer": 15, "ranks": 40, "kernels": 35, "steps": 95, "peers": 30}
FULL = {"ceilings": 5, "conformance": 78, "sanitizer": 40, "ranks": 36, "kernels": 122, "steps": 184, "peers": 95}

# Tests of the conformance suite that are also run under compute-sanitizer, which slows them down a lot.
SANITIZED = {
    "memcheck": ("gelu", "head_chunk", "sumsq", "rope", "rmsnorm", "preference", "gemm_rows", "attention_rows"),
    "racecheck": ("rmsnorm", "sumsq", "attention_rows"),
}
QUICK_SANITIZED = 2
QUICK_MODELS = "Llama-3.2-1B,GPT-2-124M"

PACKAGES = ("torch", "triton", "transformers", "accelerate", "datasets", "trl", "liger_kernel")
# Models, samples and outputs of a run take about this much room.
SCRATCH_BYTES = 32 << 30


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="everything in five minutes, less of it and less sure")
    p.add_argument("--out", default="gpu-results", help="folder of the results (default: %(default)s)")
    p.add_argument("--only", help=f"some of the stages, with commas: {','.join(FULL)}")
    a = p.parse_args()
    a.stages = a.only.split(",") if a.only else list(FULL)
    for stage in a.stages:
        if stage not in FULL:
            p.error(f"there is no stage {stage}; there are {', '.join(FULL)}")
    return a


# ---- what is there ---------------------------------------------------------------------------------------------------


def roots():
    named = [os.environ[name] for name in ("DUEL_CUDA_ROOT", "CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    return [*named, *sorted(glob.glob("/usr/local/cuda*"), key=len)]


def library_folders():
    """Where CUDA's libraries may be besides the loader's path: toolkits, and the packages of this Python."""
    folders = [os.path.join(root, inside) for root in roots() for inside in ("lib64", "lib", "nvidia/cu13/lib")]
    packages = importlib.util.find_spec("nvidia")
    for location in packages.submodule_search_locations if packages else ():
        folders += sorted(glob.glob(os.path.join(location, "*", "lib")))
    return folders


def load(names, folders):
    """The first of some libraries and the folder it was found in, which is None on the loader's path."""
    for folder in (None, *folders):
        for name in names:
            with contextlib.suppress(OSError):
                return ctypes.CDLL(os.path.join(folder, name) if folder else name), folder
    looked = f", nor in {', '.join(folders)}" if folders else ""
    raise LookupError(f"not on the loader's path{looked}")


def tool(name):
    """A program of the CUDA toolkit."""
    inside = [os.path.join(root, folder) for root in roots() for folder in ("bin", "compute-sanitizer")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(inside))


def driver(machine):
    """Fills in what the driver says about the first GPU."""
    cuda, _ = load(["libcuda.so.1"], [])
    code = cuda.cuInit(0)
    if code != 0:
        raise LookupError(f"libcuda.so.1 is there, but it cannot start: error {code}")
    count, version, memory, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        raise LookupError("libcuda.so.1 is there, but it sees no GPU")
    name = ctypes.create_string_buffer(256)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    machine["gpu"] = name.value.decode()
    machine["cuda"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
    machine["memory_bytes"] = memory.value


def nvidia_smi():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LookupError(f"cannot be run ({error})") from error
    if done.returncode != 0:
        raise LookupError(f"ended with {done.returncode}: {(done.stdout + done.stderr).strip()[:200]}")
    return done.stdout.split("\n")[0].strip()


def pytorch(env):
    """Versions of the Python packages, asked of a process of its own: PyTorch is large."""
    ask = f"""
import importlib.metadata, json, torch
versions = {{}}
for name in {PACKAGES!r}:
    try: versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: pass
print(json.dumps([torch.cuda.is_available(), versions]))
"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=env, timeout=120)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise LookupError(f"{sys.executable} cannot import it: {said[-1]}")
    available, versions = json.loads(done.stdout.splitlines()[-1])
    if not available:
        raise LookupError(f"{sys.executable} has torch {versions['torch']}, which sees no GPU")
    return versions


def processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Run:
    def __init__(self, a, scratch):
        self.a, self.scratch = a, scratch
        self.out = Path(a.out).resolve()
        self.shares = {name: share for name, share in (QUICK if a.quick else FULL).items() if name in a.stages}
        self.end = time.monotonic() + sum((QUICK if a.quick else FULL).values())
        commit = ROOT / "VERSION"
        self.data = {
            "kind": "gpu",
            "date": datetime.date.today().isoformat(),
            "quick": a.quick,
            "commit": " ".join(commit.read_text().split()) if commit.is_file() else "unknown",
            "machine": {"cpu": processor(), "cores": os.cpu_count()},
            "versions": {"python": platform.python_version()},
            "ceilings": {},
            "conformance": {},
            "sanitizer": [],
            "ranks": [],
            "kernels": [],
            "peers": [],
            "steps": [],
            "failures": [],
        }
        site = scratch / "site"
        for wheel in sorted((ROOT / "wheels").glob("*.whl")):
            # Pure Python: unpacked is installed.
            zipfile.ZipFile(wheel).extractall(site)
        path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.python_env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        # Compiling PyTorch's and transformers' sources, where no byte code lies beside them, takes half a minute: once.
        self.python_env["PYTHONPYCACHEPREFIX"] = str(scratch / "bytecode")
        self.python_env.pop("PYTHONDONTWRITEBYTECODE", None)
        self.binary_env = dict(os.environ)

    def write(self):
        self.out.mkdir(parents=True, exist_ok=True)
        partial = self.out / "gpu.json.partial"
        partial.write_text(json.dumps(self.data, indent=1) + "\n")
        partial.rename(self.out / "gpu.json")

    def failed(self, stage, what):
        self.data["failures"].append({"stage": stage, "what": what})
        print(f"  {what.splitlines()[0]}", flush=True)

    def probe(self):
        """Finds what the stages need; all that is missing, each with where it was looked for."""
        missing = []

        def need(what, look):
            try:
                return look()
            except (LookupError, subprocess.TimeoutExpired) as error:
                missing.append(f"{what}: {error}")
            return None

        def start(name, *arguments):
            command = [BINARIES[name], *arguments]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.binary_env)
            except OSError as error:
                raise LookupError(f"cannot be started ({error})") from error
            if done.returncode != 0:
                raise LookupError(f"cannot be started: {done.stderr.strip()[:300]}")

        machine, versions = self.data["machine"], self.data["versions"]
        need("the NVIDIA driver", lambda: driver(machine))
        machine["driver"] = need("nvidia-smi, which comes with the driver", nvidia_smi)
        folders = library_folders()
        found = {}
        for name in ("libnvrtc", "libcublasLt"):
            files = [f"{name}.so.{version}" for version in (13, 12)]
            found[name] = need(" or ".join(files), lambda files=files: load(files, folders))
        found["libnccl"] = need("libnccl.so.2", lambda: load(["libnccl.so.2"], folders))
        # Our programs ask the loader for these by name.
        extra = [folder for _, folder in filter(None, found.values()) if folder]
        path = [*dict.fromkeys(extra), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        if path:
            self.binary_env["LD_LIBRARY_PATH"] = os.pathsep.join(path)
        if found["libnvrtc"]:
            major, minor = ctypes.c_int(), ctypes.c_int()
            found["libnvrtc"][0].nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
            versions["nvrtc"] = f"{major.value}.{minor.value}"
        if found["libcublasLt"]:
            version = found["libcublasLt"][0].cublasLtGetVersion
            version.restype = ctypes.c_size_t
            versions["cublaslt"] = str(version())
        if found["libnccl"]:
            version = ctypes.c_int()
            found["libnccl"][0].ncclGetVersion(ctypes.byref(version))
            versions["nccl"] = str(version.value)
        versions.update(need("PyTorch", lambda: pytorch(self.python_env)) or {})
        for name, argument in (("duel", "--version"), ("conformance", "--list"), ("bench", "--help")):
            need(f"the bundle's {name}", lambda name=name, argument=argument: start(name, argument))
        return missing

    # ---- stages ------------------------------------------------------------------------------------------------------

    def limit(self, stage):
        """Seconds that a stage may take: its share of what is left."""
        later = list(self.shares)[list(self.shares).index(stage) :]
        return (self.end - time.monotonic()) * self.shares[stage] / sum(self.shares[name] for name in later)

    def process(self, stage, command, env, seconds, log):
        """Runs a process group to its end or its limit. Its output; whether it succeeded is recorded."""
        with open(log, "w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, start_new_session=True
            )
            try:
                code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                # What a stage started must not disturb the next one's times.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output = Path(log).read_text(errors="replace")
        if code != 0:
            self.failed(stage, ending(code, seconds, output))
        return output

    def script(self, stage, seconds, name, *arguments):
        """Runs one of the scripts beside this one; the results that it wrote, be it cut off or not."""
        result = self.scratch / f"{stage}.json"
        result.write_text("{}")
        command = [sys.executable, str(HERE / name), *arguments, "--json", str(result)]
        self.process(stage, command, self.python_env, seconds, self.out / f"{stage}.log")
        return json.loads(result.read_text())

    def ceilings(self, seconds):
        self.data["ceilings"] = self.script("ceilings", seconds, "peers.py", "ceilings")

    def conformance(self, seconds):
        env = {**self.binary_env, "REQUIRE_CUDA": "1", "REQUIRE_NVRTC": "1"}
        # Compiling for devices that are not here is tested where there is no GPU.
        command = [str(BINARIES["conformance"]), "--skip", "nvrtc_compiles_every_kernel"]
        output = self.process("conformance", command, env, seconds, self.out / "conformance.log")
        self.data["conformance"] = conformance_results(output)

    def sanitizer(self, seconds):
        program = tool("compute-sanitizer")
        if not program:
            looked = "".join(f", nor in {root}" for root in roots())
            return self.failed("sanitizer", f"compute-sanitizer is not on the PATH{looked}")
        # Our own kernels are checked, not NVIDIA's.
        env = {**self.binary_env, "REQUIRE_CUDA": "1", "DUEL_CUBLASLT": "0"}
        log = self.out / "sanitizer.log"
        end = time.monotonic() + seconds
        outputs = []
        for number, (name, tests) in enumerate(SANITIZED.items()):
            tests = tests[:QUICK_SANITIZED] if self.a.quick else tests
            command = [program, "--tool", name, str(BINARIES["conformance"]), "--exact", "--test-threads=1", *tests]
            # What one tool leaves over is the next one's.
            left = (end - time.monotonic()) / (len(SANITIZED) - number)
            outputs.append(self.process("sanitizer", command, env, left, log))
            done = conformance_results(outputs[-1])
            if done["passed"] != len(tests):
                self.failed("sanitizer", f"{name}: {done['passed']} of {len(tests)} tests passed")
            errors = sanitizer_errors(outputs[-1])
            if errors is None:
                self.failed("sanitizer", f"{name} printed no summary")
            elif errors > 0:
                self.failed("sanitizer", f"{name}: {errors} errors")
            self.data["sanitizer"].append({"tool": name, "tests": done["passed"], "errors": errors})
        log.write_text("\n".join(outputs))

    def duel_runs(self, stage, seconds, *how):
        """One of the scripts that start duel, in a folder for its models and outputs."""
        work = self.scratch / stage
        work.mkdir()
        # It ends itself in good order a little before its limit.
        how = ["--duel", str(BINARIES["duel"]), "--work", str(work), "--seconds", str(seconds - 5), *how]
        how += ["--library-path", self.binary_env.get("LD_LIBRARY_PATH", "")]
        self.add(self.script(stage, seconds, f"{stage}.py", *how))
        shutil.rmtree(work)

    def ranks(self, seconds):
        self.duel_runs("ranks", seconds)

    def kernels(self, seconds):
        home = self.scratch / "criterion"
        how = ["--quick"] if self.a.quick else []
        command = [str(BINARIES["bench"]), "--bench", "--noplot", *how]
        env = {**self.binary_env, "CRITERION_HOME": str(home)}
        self.process("kernels", command, env, seconds, self.out / "kernels.log")
        self.data["kernels"] = criterion_results(home, self.data["ceilings"])

    def peers(self, seconds):
        ours = self.scratch / "ours.json"
        ours.write_text(json.dumps(self.data["kernels"]))
        quick = ["--quick"] if self.a.quick else []
        self.add(self.script("peers", seconds, "peers.py", "peers", "--ours", str(ours), *quick))

    def steps(self, seconds):
        how = ["--steps", "4", "--models", QUICK_MODELS] if self.a.quick else ["--steps", "8"]
        self.duel_runs("steps", seconds, *how)

    def add(self, results):
        """Takes over what a script found."""
        for key in ("ranks", "steps", "peers", "failures"):
            self.data[key] += results.get(key, [])
        for key in ("hung_rank", "curve"):
            if key in results:
                self.data[key] = results[key]

    def run(self):
        for stage in self.shares:
            seconds = self.limit(stage)
            print(f"{stage} (up to {seconds:.0f} s)", flush=True)
            start = time.monotonic()
            try:
                getattr(self, stage)(seconds)
            except Exception as error:  # whatever a stage trips over, the others go on and the file is written
                self.failed(stage, f"{type(error).__name__}: {error}")
            self.data.setdefault("stage_seconds", {})[stage] = time.monotonic() - start
            self.write()


# ---- reading results -------------------------------------------------------------------------------------------------


def conformance_results(output):
    """Tests passed and failed, from the closing line of Rust's test harness, or counted where it was cut off."""
    closing = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed;.* finished in ([\d.]+)s", output)
    if closing:
        return {"passed": int(closing[1]), "failed": int(closing[2]), "seconds": float(closing[3])}
    passed, failed = (len(re.findall(rf"^test .* \.\.\. {end}$", output, re.M)) for end in ("ok", "FAILED"))
    return {"passed": passed, "failed": failed, "seconds": None}


def sanitizer_errors(output):
    """The number of errors in a summary of compute-sanitizer; None without one."""
    hazards = re.search(r"RACECHECK SUMMARY: .*\((\d+) errors?, \d+ warnings?\)", output)
    summary = hazards or re.search(r"ERROR SUMMARY: (\d+) errors?", output)
    return int(summary[1]) if summary else None


def criterion_results(home, ceilings):
    """The rows of criterion's files, each as a share of its ceiling where that was measured."""
    rows = []
    for estimates in sorted(Path(home).glob("**/new/estimates.json")):
        benchmark = json.loads(estimates.with_name("benchmark.json").read_text())
        median = json.loads(estimates.read_text())["median"]
        bounds = median["confidence_interval"]
        seconds = median["point_estimate"] * 1e-9
        work = benchmark["throughput"]
        unit, ceiling = ("flop", "matmul_flop_per_second") if "Elements" in work else ("bytes", "copy_bytes_per_second")
        amount = work["Elements" if unit == "flop" else "BytesDecimal"]
        row = {
            "group": benchmark["group_id"],
            "kernel": benchmark["function_id"],
            "shape": benchmark["value_str"],
            "seconds": seconds,
            "interval": [bounds["lower_bound"] * 1e-9, bounds["upper_bound"] * 1e-9],
            unit: amount,
            "per_second": amount / seconds,
        }
        if ceiling in ceilings:
            row["share"] = row["per_second"] / ceilings[ceiling]
        rows.append(row)
    return rows


# ---- the table -------------------------------------------------------------------------------------------------------


def rate(row):
    """The rate of a row as text."""
    if "flop" in row:
        return f"{row['per_second'] / 1e12:8.1f} TFLOP/s"
    if "bytes" in row:
        return f"{row['per_second'] / 1e12:8.3f} TB/s   "
    return f"{row['per_second']:8.0f} tokens/s"


def kernel_lines(kernels, peers):
    """A line for each kernel, with the fastest peer at the same shape."""
    for row in kernels:
        rivals = [p for p in peers if (p["kernel"], p["shape"]) == (row["kernel"], row["shape"])]
        line = f"{row['kernel']:14} {row['shape']:20} {row['seconds'] * 1e6:9.1f} us {rate(row)}"
        line += f" {row['share']:6.1%}" if "share" in row else ""
        if rivals:
            best = min(rivals, key=lambda p: p["seconds"])
            line += f"   {best['seconds'] / row['seconds']:5.2f} x {best['who']}"
        yield line


def step_lines(steps):
    """A line for each contestant, with how many times as fast duel is; against TRL as it comes with the reference."""
    ours = {row["model"]: row for row in steps if row["who"] == "duel"}
    for row in steps:
        line = f"{row['model']:14} {row['who']:12} {row['seconds'] * 1e3:9.1f} ms"
        line += f" {row['pairs_per_second']:8.2f} pairs/s"
        line += f" {row['peak_bytes'] / 1e9:7.2f} GB" if "peak_bytes" in row else ""
        duel = ours.get(row["model"])
        if duel and row is not duel:
            seconds = duel["seconds"] + (duel["reference_seconds_per_step"] if row["who"] == "TRL default" else 0.0)
            line += f"   duel {row['seconds'] / seconds:5.2f} x"
            line += "" if row["comparable"] else "  NOT COMPARABLE"
        yield line


def table(data):
    machine, ceilings = data["machine"], data["ceilings"]
    lines = [f"{machine['gpu']}, driver {machine['driver']}, commit {data['commit']}"]
    if ceilings:
        copy, product = ceilings["copy_bytes_per_second"] / 1e12, ceilings["matmul_flop_per_second"] / 1e12
        lines.append(f"ceilings: copy {copy:.2f} TB/s, bf16 product {product:.0f} TFLOP/s")
    if data["conformance"]:
        lines.append(f"conformance: {data['conformance']['passed']} passed, {data['conformance']['failed']} failed")
    lines += [f"{row['tool']}: {row['tests']} tests, {row['errors']} errors" for row in data["sanitizer"]]
    for row in data["ranks"]:
        bits = "the same" if row["same"] else "OTHER"
        lines.append(f"{row['method']} of {row['processes']} over NCCL: {row['seconds']:.1f} s, {bits} bits")
    lines += kernel_lines(data["kernels"], data["peers"])
    lines += [
        f"{row['kernel']:14} {row['shape']:20} {row['seconds'] * 1e3:9.2f} ms {rate(row)}   {row['who']}"
        for row in data["peers"]
        if "tokens" in row
    ]
    lines += step_lines(data["steps"])
    lines += [f"FAILED {failure['stage']}: {failure['what'].splitlines()[0]}" for failure in data["failures"]]
    return "\n".join(lines)


def scratch_folder():
    """A folder in memory where there is room: models and checkpoints of gigabytes are written."""
    memory = "/dev/shm"
    if os.path.isdir(memory) and shutil.disk_usage(memory).free > SCRATCH_BYTES:
        return memory
    return None


def main():
    a = options()
    if not all(path.is_file() for path in BINARIES.values()):
        sys.exit(f"error: {ROOT} has no programs in bin; run this from the bundle that `cargo xtask gpu-pack` makes")
    with tempfile.TemporaryDirectory(prefix="duel-gpu-", dir=scratch_folder()) as folder:
        run = Run(a, Path(folder))
        missing = run.probe()
        if missing:
            sys.exit("error: this machine lacks what the bundle needs:\n" + "\n".join(f"  {line}" for line in missing))
        run.write()
        run.run()
    print("\n" + table(run.data) + f"\n\nwritten to {run.out / 'gpu.json'}")
    sys.exit(1 if run.data["failures"] else 0)


if __name__ == "__main__":
    main()
