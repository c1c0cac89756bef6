#!/usr/bin/env python3
"""What the GPU can do at most, and what PyTorch and Liger reach at the shapes of duel's kernel benchmarks.

`run.py` starts it. It writes its results anew after each measurement, so that nothing is lost when it is cut off. Times
are medians between CUDA events; between two runs the L2 cache is filled with something else. Inputs are random. A
backward pass runs on a fresh graph of fresh copies, because some peers overwrite what they are given.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from work import ATTENTION_TOKENS, ATTENTION_WIDTH, attention_shape, dims, work

EPS = 1e-6
BACKENDS = {
    "torch flash": SDPBackend.FLASH_ATTENTION,
    "torch cuDNN": SDPBackend.CUDNN_ATTENTION,
    "torch math": SDPBackend.MATH,
}
# Sequences that torch's math backend can hold the scores of.
MATH_LONGEST = 1024
# Rows of the step of pretraining: sequences, and tokens of each.
PRETRAINING = (16, 1024)

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
QUICK_LENGTHS = (512, 2048, 8192)
SHARED = ("512+2x256", "512+4x128")
HEADS = ("4096x4096x128256", "2048x2048x128256")
# Rows of 8 pairs with their prompts once, and the four products of a layer of Llama-3.2-1B and of GPT-2 124M.
PRODUCTS = tuple(
    f"8192x{n}x{k}"
    for n, k in (
        *((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192)),
        *((2304, 768), (768, 768), (3072, 768), (768, 3072)),
    )
)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("part", choices=("ceilings", "peers"))
    p.add_argument("--json", required=True, help="where the results go")
    p.add_argument("--ours", help="results of duel's kernels: peers are measured at these shapes as well")
    p.add_argument("--quick", action="store_true", help="fewer shapes, fewer repetitions")
    return p.parse_args()


# ---- timing ----------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, seconds):
        self.seconds = seconds
        # Several times the L2 cache; writing it also keeps the GPU busy until the host has queued the next run.
        self.filler = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")

    def once(self, run, before):
        state = before()
        self.filler.random_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(*state)
        end.record()
        return start, end

    def median(self, run, before=lambda: ()):
        """Seconds of `run` on what `before` makes, which is not timed."""
        for _ in range(3):
            events = self.once(run, before)
        torch.cuda.synchronize()
        last = events[0].elapsed_time(events[1]) * 1e-3
        count = min(max(int(self.seconds / last), 5), 100)
        events = [self.once(run, before) for _ in range(count)]
        torch.cuda.synchronize()
        return statistics.median(start.elapsed_time(end) for start, end in events) * 1e-3


class Results:
    def __init__(self, path):
        self.path = Path(path)
        self.data = {"peers": [], "failures": []}

    def write(self):
        self.path.write_text(json.dumps(self.data))

    def row(self, kernel, shape, who, seconds, unit, amount):
        row = {"kernel": kernel, "shape": shape, "who": who, "seconds": seconds, unit: amount}
        self.data["peers"].append({**row, "per_second": amount / seconds})
        self.write()
        print(f"{kernel:14} {shape:18} {who:18} {seconds * 1e3:9.3f} ms", flush=True)

    def failed(self, what, error):
        message = str(error).strip().split("\n")[0]
        self.data["failures"].append({"stage": "peers", "what": f"{what}: {type(error).__name__}: {message}"})
        self.write()
        print(f"{what}: {type(error).__name__}: {message}", flush=True)


# ---- ceilings --------------------------------------------------------------------------------------------------------


def ceilings(results):
    clock = Clock(0.3)
    source = torch.empty(1 << 29, dtype=torch.int64, device="cuda").random_()
    target = torch.empty_like(source)
    copy = clock.median(lambda: target.copy_(source))
    a, b = (normal(8192, 8192) for _ in range(2))
    product = clock.median(lambda: a @ b)
    results.data = {
        "copy_bytes_per_second": 2 * source.numel() * source.element_size() / copy,
        "matmul_flop_per_second": 2 * 8192**3 / product,
    }
    results.write()


# ---- kernels ---------------------------------------------------------------------------------------------------------


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def gradient(forward, inputs):
    """A backward pass: what is timed, and what makes its graph."""
    with torch.no_grad():
        dy = torch.randn_like(forward(*inputs))

    def before():
        fresh = [x.clone().requires_grad_() for x in inputs]
        return forward(*fresh), fresh, dy.clone()

    return torch.autograd.grad, before


def inference(forward, inputs):
    """A forward pass on its own."""

    @torch.no_grad()
    def run():
        forward(*inputs)

    return run, lambda: ()


def attention(kernel, shape):
    head_dim, prompt, count, length = attention_shape(shape)
    groups = ATTENTION_TOKENS // (prompt + count * length)
    # Nothing is shared here: every response is a sequence with a prompt of its own.
    rows = (groups * count, prompt + length, ATTENTION_WIDTH // head_dim, head_dim)
    inputs = [normal(*rows).transpose(1, 2) for _ in range(3)]
    for who, backend in BACKENDS.items():
        if backend == SDPBackend.MATH and prompt + length > MATH_LONGEST:
            continue

        def forward(q, k, v, backend=backend):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        yield who, lambda forward=forward: (inference if kernel == "attention" else gradient)(forward, inputs)


def product(kernel, shape):
    m, n, k = dims(shape)
    x, w, dy = normal(m, k), normal(n, k), normal(m, n)
    run = {"gemm": lambda: x @ w.T, "gemm_dx": lambda: dy @ w, "gemm_dw": lambda: dy.T @ x}[kernel]
    yield "torch", lambda: (run, lambda: ())


def head(_, shape):
    rows, width, vocab = dims(shape)
    x = normal(rows, width).requires_grad_()
    w = (normal(vocab, width) * width**-0.5).requires_grad_()
    targets = torch.randint(vocab, (rows,), device="cuda")

    def gradients(loss):
        return lambda: (lambda: torch.autograd.grad(loss(), (x, w)), lambda: ())

    yield "torch", gradients(lambda: F.cross_entropy(x @ w.T, targets))

    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    cross_entropy = LigerFusedLinearCrossEntropyLoss()
    yield "Liger CE", gradients(lambda: cross_entropy(w, x, targets))
    # Four pairs; the reference's log-probabilities count as computed before.
    sequences = (8, rows // 8)
    dpo = LigerFusedLinearDPOLoss(use_ref_model=False)
    yield "Liger DPO", gradients(lambda: dpo(w, x.view(*sequences, width), targets.view(sequences))[0])


def norm(kernel, shape):
    rows, width = dims(shape)
    rms = kernel.startswith("rmsnorm")
    inputs = [normal(rows, width), normal(width)] if rms else [normal(rows, width), normal(width), normal(width)]
    prepare = gradient if kernel.endswith("_bw") else inference

    def of_torch(x, w, b=None):
        return F.rms_norm(x, (width,), w, EPS) if rms else F.layer_norm(x, (width,), w, b, EPS)

    yield "torch", lambda: prepare(of_torch, inputs)

    from liger_kernel.ops import LigerLayerNormFunction, LigerRMSNormFunction

    function = LigerRMSNormFunction if rms else LigerLayerNormFunction
    yield "Liger", lambda: prepare(lambda *inputs: function.apply(*inputs, EPS), inputs)


def swiglu(kernel, shape):
    inputs = [normal(*dims(shape)) for _ in range(2)]
    prepare = gradient if kernel.endswith("_bw") else inference
    yield "torch", lambda: prepare(lambda a, b: F.silu(a) * b, inputs)

    from liger_kernel.ops import LigerSiLUMulFunction

    yield "Liger", lambda: prepare(LigerSiLUMulFunction.apply, inputs)


def adamw(_, shape):
    parameter = torch.randn(int(shape), device="cuda").requires_grad_()
    parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW([parameter], lr=1e-6, fused=True)
    yield "torch fused", lambda: (optimizer.step, lambda: ())


# In the order in which they are measured: what comes last may be cut off.
PEERS = {
    "attention": attention,
    "attention_bw": attention,
    "gemm": product,
    "gemm_dx": product,
    "gemm_dw": product,
    "rmsnorm": norm,
    "rmsnorm_bw": norm,
    "layernorm": norm,
    "layernorm_bw": norm,
    "swiglu": swiglu,
    "swiglu_bw": swiglu,
    "adamw": adamw,
    "head": head,
}


def shapes(quick, ours):
    """Shapes of each kernel: those of the papers and models, and those at which duel was measured."""
    rows = [*map(str, QUICK_LENGTHS if quick else LENGTHS), *SHARED]
    attentions = [f"hd{head_dim} {row}" for head_dim in (64, 128) for row in rows]
    own = {
        "attention": attentions,
        "attention_bw": attentions,
        "head": HEADS[1:] if quick else HEADS,
        "swiglu": ("16384x8192",),
        "swiglu_bw": ("16384x8192",),
        "adamw": (str(1 << 28),),
    }
    for kernel in PEERS:
        default = PRODUCTS[:4] if quick else PRODUCTS
        wanted = list(own.get(kernel, default if PEERS[kernel] is product else ("16384x2048",)))
        wanted += [row["shape"] for row in ours if row["kernel"] == kernel and row["shape"] not in wanted]
        yield from ((kernel, shape) for shape in wanted)


def kernels(results, quick, ours):
    clock = Clock(0.03 if quick else 0.1)
    for kernel, shape in shapes(quick, ours):
        try:
            unit, amount = work(kernel, shape)
            for who, prepare in PEERS[kernel](kernel, shape):
                try:
                    results.row(kernel, shape, who, clock.median(*prepare()), unit, amount)
                except Exception as error:  # one peer that cannot do a shape says so, and the others go on
                    results.failed(f"{kernel} {shape} {who}", error)
        except Exception as error:  # nor does a shape that does not fit stop the rest
            results.failed(f"{kernel} {shape}", error)
        torch.cuda.empty_cache()


# ---- a step of pretraining -------------------------------------------------------------------------------------------


def pretraining(results, compiled):
    """A step of GPT-2 124M on plain text, as llm.c has it: bf16 products, float32 weights, fused AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa", use_cache=False)
    with torch.device("cuda"):
        model = GPT2LMHeadModel(config)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    ids = torch.randint(config.vocab_size, PRETRAINING, device="cuda")

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    who = "torch compiled" if compiled else "torch"
    try:
        seconds = Clock(1.0).median(step)
        results.row("gpt2 step", "x".join(map(str, PRETRAINING)), who, seconds, "tokens", ids.numel())
    except Exception as error:  # the results so far count all the same
        results.failed(f"gpt2 step {who}", error)


def main():
    a = options()
    if not torch.cuda.is_available():
        sys.exit("error: PyTorch sees no GPU")
    torch.manual_seed(0)
    results = Results(a.json)
    if a.part == "ceilings":
        return ceilings(results)
    ours = json.loads(Path(a.ours).read_text()) if a.ours else []
    kernels(results, a.quick, ours)
    pretraining(results, compiled=False)
    if not a.quick:
        pretraining(results, compiled=True)


if __name__ == "__main__":
    main()
