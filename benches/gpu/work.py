"""Shapes as the benchmarks write them, and the least work that a call at a shape must do.

The rules are those of duel's own benchmarks: products and attention in floating-point operations, a multiply-add as
two; everything else in bytes, each matrix operand read once and each matrix result written once.
"""

# The setting of the FlashAttention papers: so many tokens in all, and heads of together this width.
ATTENTION_TOKENS = 16384
ATTENTION_WIDTH = 2048


def attention_shape(shape):
    """`hd64 2048` or, with a shared prefix, `hd64 512+2x256`: head_dim, prompt, responses, tokens of a response."""
    head_dim, rows = shape.split(" ")
    head_dim = int(head_dim.removeprefix("hd"))
    if "+" not in rows:
        return head_dim, 0, 1, int(rows)
    prompt, responses = rows.split("+")
    count, length = responses.split("x")
    return head_dim, int(prompt), int(count), int(length)


def visible_pairs(prompt, count, length):
    """Query and key rows of a group that see each other: causal, and every response sees the prompt."""

    def triangle(n):
        return n * (n + 1) // 2

    return triangle(prompt) + count * (prompt * length + triangle(length))


def dims(shape):
    """The numbers of `2048x4096`."""
    return [int(n) for n in shape.split("x")]


def work(kernel, shape):
    """The unit, `flop` or `bytes`, and how many of it a call must do, in bf16."""
    if kernel in ("attention", "attention_bw"):
        _, prompt, count, length = attention_shape(shape)
        groups = ATTENTION_TOKENS // (prompt + count * length)
        products = 4 if kernel == "attention" else 10
        return "flop", products * groups * visible_pairs(prompt, count, length) * ATTENTION_WIDTH
    if kernel in ("gemm", "gemm_dx", "gemm_dw"):
        m, n, k = dims(shape)
        return "flop", 2 * m * n * k
    if kernel == "head":
        rows, width, vocab = dims(shape)
        return "flop", 6 * rows * width * vocab
    if kernel == "adamw":
        # Weights, both moments and gradients in float32: four read, three written.
        return "bytes", 7 * 4 * int(shape)
    matrices = {"rmsnorm": 2, "rmsnorm_bw": 3, "layernorm": 2, "layernorm_bw": 3, "swiglu": 3, "swiglu_bw": 5}
    rows, width = dims(shape)
    return "bytes", matrices[kernel] * rows * width * 2
