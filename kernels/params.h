/*
 * Parameters and geometry of every kernel, in plain C: nvcc, NVRTC, g++ and bindgen all read this file, so that the
 * launch code and the kernels cannot disagree. It includes nothing, since NVRTC has no system headers.
 *
 * A kernel takes one of these structs by value. `void *` points to weights or activations in the kernel's own
 * precision (float or bf16), `float *` to gradients, statistics and moments, `unsigned *` to ids and row numbers.
 * Matrices are dense and row-major. Sizes count elements unless a name says bytes.
 *
 * After a change, regenerate src/sys.rs: DUEL_BLESS=1 cargo test -p duel-kernels
 */
#ifndef DUEL_PARAMS_H
#define DUEL_PARAMS_H

/* ---- geometry ------------------------------------------------------------------------------------------ */

/* Dynamic shared memory, in bytes, of kernels that keep `rows` rows of HD bf16 and two stages of `step` rows of each of
 * two operands (mma); of ones that have `tiles` tiles of `rows` rows of HD floats and `weights` tables of a float for
 * each pair of rows (plain); and of ones that have their barriers, `rows` rows and `stages` stages as mma has (sm90). */
#define MMA_BYTES(HD, rows, step) (2 * (HD) * ((rows) + 2 * 2 * (step)))
#define PLAIN_BYTES(HD, rows, tiles, weights) \
    (4 * (rows) * ((tiles) * ((HD) + PLAIN_PADDING) + (weights) * ((rows) + 1)))
#define SM90_BYTES(HD, rows, stages, step) (SM90_BARRIER_BYTES + 2 * (HD) * ((rows) + 2 * (stages) * (step)))
/* Of log-sum-exp and delta of `rows` query rows. */
#define STATS_BYTES(rows) (8 * (rows))

/* What a launch must agree about with the kernel: threads of a block (THREADS), rows of a tile of its results (TILE),
 * rows of the other side that it takes at a time (STEP), dynamic shared memory (BYTES). */
enum Geometry {
    /* Kernels that go over rows or flat arrays once. */
    ROW_THREADS = 256,
    ROW_TEAM = 8,      /* threads that share a row, at least: 16 bytes each are a cache line */
    ROW_HELD = 4,      /* 16 bytes of its row each that a thread holds in registers, at most */
    ROW_SUM_BYTES = ROW_THREADS / 32 * 4,   /* a float a warp */
    BLOCK_SUM_BYTES = ROW_THREADS / 32 * 8, /* a double a warp */
    COLUMN_TILE = 32,  /* columns of a block of column_reduce, and its warps */
    COLUMN_THREADS = COLUMN_TILE * COLUMN_TILE,
    COLUMN_BYTES = COLUMN_THREADS * 4,
    /* The running sums of a norm's backward: elements of 4 bytes after each line of ROW_THREADS, over the elements of a
     * thread's pack. */
    NORM_PADDING = 32,

    /* The log-softmax of a row: a block has a row, fewer threads where it is short. */
    LOGPROB_THREADS = 512,
    LOGPROB_LEAST_THREADS = 32,
    LOGPROB_WARP_BYTES = 5 * 4, /* what each warp knows of its logits */

    PREFERENCE_THREADS = 256,

    /* The draw from a row: a block has a row; weights of a vocabulary are bisected by the next bits of the threshold. */
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / 32,
    SAMPLE_BITS = 3,
    SAMPLE_PIVOTS = (1 << SAMPLE_BITS) - 1,
    SAMPLE_BYTES = SAMPLE_WARPS * SAMPLE_PIVOTS * 4,

    /* Products: rows and columns of a tile, depth of a stage, stages. */
    LINEAR_THREADS = 256,
    LINEAR_TILE = 128,
    LINEAR_STEP = 32,
    LINEAR_STAGES = 4,
    LINEAR_PADDING = 8, /* bf16 after each row of a stage's tile, along the depth or across it */
    LINEAR_ALONG_BYTES = 2 * LINEAR_TILE * (LINEAR_STEP + LINEAR_PADDING),
    LINEAR_ACROSS_BYTES = 2 * LINEAR_STEP * (LINEAR_TILE + LINEAR_PADDING),
    LINEAR_BYTES = LINEAR_STAGES * (LINEAR_ALONG_BYTES + LINEAR_ALONG_BYTES),
    LINEAR_DX_BYTES = LINEAR_STAGES * (LINEAR_ALONG_BYTES + LINEAR_ACROSS_BYTES),
    LINEAR_DW_BYTES = LINEAR_STAGES * (LINEAR_ACROSS_BYTES + LINEAR_ACROSS_BYTES),
    LINEAR_F32_STEP = 16,
    LINEAR_F32_PADDING = 4, /* floats */
    LINEAR_F32_BYTES = 2 * 2 * 4 * LINEAR_F32_STEP * (LINEAR_TILE + LINEAR_F32_PADDING),
    LINEAR_SUM_BLOCK = 256, /* depth that float sums before it joins the rest; parts of a sum begin at a multiple */

    /* sm_90: warpgroups, of which the first loads; boxes of rows of 128 bytes. */
    SM90_WARPGROUP = 128,
    SM90_BOX = 64, /* bf16 of a row, which the swizzle spans, and rows of attention's boxes */
    LINEAR_SM90_ROWS = 128,
    LINEAR_SM90_COLUMNS = 256,
    LINEAR_SM90_STAGES = 4,
    LINEAR_SM90_THREADS = (1 + LINEAR_SM90_ROWS / 64) * SM90_WARPGROUP,
    LINEAR_SM90_STAGE_BYTES = 2 * SM90_BOX * (LINEAR_SM90_ROWS + LINEAR_SM90_COLUMNS),
    LINEAR_SM90_BYTES = LINEAR_SM90_STAGES * (LINEAR_SM90_STAGE_BYTES + 2 * 8), /* two barriers a stage */

    /* Attention. The widest head that a kernel takes; the lanes of a team that sums over a head. */
    ATTENTION_WIDEST = 256,
    ATTENTION_TEAM = 8,

    ATTENTION_STATS_THREADS = 256,

    ATTENTION_CACHED_THREADS = 128,
    ATTENTION_CACHED_TEAMS = ATTENTION_CACHED_THREADS / ATTENTION_TEAM,
    /* On mma: query heads of a group that a block has, and what its warps know of them. */
    ATTENTION_CACHED_HEADS = 16,
    ATTENTION_CACHED_HD64_BYTES = ATTENTION_CACHED_THREADS / 32 * ATTENTION_CACHED_HEADS * (2 + 64) * 4,
    ATTENTION_CACHED_HD128_BYTES = ATTENTION_CACHED_THREADS / 32 * ATTENTION_CACHED_HEADS * (2 + 128) * 4,

    /* In bf16 on mma, for heads of up to 64 and 128. */
    MMA_THREADS = 128,
    ATTENTION_BF16_HD64_TILE = 128,
    ATTENTION_BF16_HD64_STEP = 64,
    ATTENTION_BF16_HD64_BYTES = MMA_BYTES(64, ATTENTION_BF16_HD64_TILE, ATTENTION_BF16_HD64_STEP),
    ATTENTION_BF16_HD128_TILE = 128,
    ATTENTION_BF16_HD128_STEP = 32,
    ATTENTION_BF16_HD128_BYTES = MMA_BYTES(128, ATTENTION_BF16_HD128_TILE, ATTENTION_BF16_HD128_STEP),
    ATTENTION_BW_BF16_HD64_TILE = 128, /* of queries, and of keys */
    ATTENTION_BW_BF16_HD64_STEP = 32,
    ATTENTION_BW_Q_BF16_HD64_BYTES = MMA_BYTES(64, 2 * ATTENTION_BW_BF16_HD64_TILE, ATTENTION_BW_BF16_HD64_STEP),
    ATTENTION_BW_KV_BF16_HD64_BYTES =
        ATTENTION_BW_Q_BF16_HD64_BYTES + STATS_BYTES(2 * ATTENTION_BW_BF16_HD64_STEP),
    ATTENTION_BW_BF16_HD128_TILE = 64,
    ATTENTION_BW_BF16_HD128_STEP = 32,
    ATTENTION_BW_Q_BF16_HD128_BYTES = MMA_BYTES(128, 2 * ATTENTION_BW_BF16_HD128_TILE, ATTENTION_BW_BF16_HD128_STEP),
    ATTENTION_BW_KV_BF16_HD128_BYTES =
        ATTENTION_BW_Q_BF16_HD128_BYTES + STATS_BYTES(2 * ATTENTION_BW_BF16_HD128_STEP),

    /* On fused multiply-adds, for heads of up to 128 and 256: tiles and steps are alike. */
    PLAIN_THREADS = 256,
    PLAIN_PADDING = 4, /* floats after each row of a tile */
    ATTENTION_PLAIN_HD128_TILE = 32,
    ATTENTION_PLAIN_HD128_BYTES = PLAIN_BYTES(128, ATTENTION_PLAIN_HD128_TILE, 3, 1),
    ATTENTION_BW_Q_PLAIN_HD128_BYTES = PLAIN_BYTES(128, ATTENTION_PLAIN_HD128_TILE, 4, 1),
    ATTENTION_BW_KV_PLAIN_HD128_BYTES = PLAIN_BYTES(128, ATTENTION_PLAIN_HD128_TILE, 4, 2),
    ATTENTION_PLAIN_HD256_TILE = 16,
    ATTENTION_PLAIN_HD256_BYTES = PLAIN_BYTES(256, ATTENTION_PLAIN_HD256_TILE, 3, 1),
    ATTENTION_BW_Q_PLAIN_HD256_BYTES = PLAIN_BYTES(256, ATTENTION_PLAIN_HD256_TILE, 4, 1),
    ATTENTION_BW_KV_PLAIN_HD256_BYTES = PLAIN_BYTES(256, ATTENTION_PLAIN_HD256_TILE, 4, 2),

    /* On wgmma, for heads of 64 and 128: a computing warpgroup has 64 rows of the tile. */
    SM90_BARRIER_BYTES = 1024, /* of all mbarriers, up to the alignment of a tile */
    SM90_GROUP_ROWS = 64,
    ATTENTION_SM90_STAGES = 2,
    ATTENTION_SM90_HD64_TILE = 192,
    ATTENTION_SM90_HD64_STEP = 128,
    ATTENTION_SM90_HD64_THREADS = (1 + ATTENTION_SM90_HD64_TILE / SM90_GROUP_ROWS) * SM90_WARPGROUP,
    ATTENTION_SM90_HD64_BYTES =
        SM90_BYTES(64, ATTENTION_SM90_HD64_TILE, ATTENTION_SM90_STAGES, ATTENTION_SM90_HD64_STEP),
    ATTENTION_SM90_HD128_TILE = 128,
    ATTENTION_SM90_HD128_STEP = 128,
    ATTENTION_SM90_HD128_THREADS = (1 + ATTENTION_SM90_HD128_TILE / SM90_GROUP_ROWS) * SM90_WARPGROUP,
    ATTENTION_SM90_HD128_BYTES =
        SM90_BYTES(128, ATTENTION_SM90_HD128_TILE, ATTENTION_SM90_STAGES, ATTENTION_SM90_HD128_STEP),
    ATTENTION_BW_SM90_STAGES = 3,
    ATTENTION_BW_SM90_TILE = 128, /* of queries, and of keys */
    ATTENTION_BW_SM90_THREADS = (1 + ATTENTION_BW_SM90_TILE / SM90_GROUP_ROWS) * SM90_WARPGROUP,
    ATTENTION_BW_Q_SM90_HD64_STEP = 128,
    ATTENTION_BW_Q_SM90_HD64_BYTES =
        SM90_BYTES(64, 2 * ATTENTION_BW_SM90_TILE, ATTENTION_BW_SM90_STAGES, ATTENTION_BW_Q_SM90_HD64_STEP),
    ATTENTION_BW_Q_SM90_HD128_STEP = 64,
    ATTENTION_BW_Q_SM90_HD128_BYTES =
        SM90_BYTES(128, 2 * ATTENTION_BW_SM90_TILE, ATTENTION_BW_SM90_STAGES, ATTENTION_BW_Q_SM90_HD128_STEP),
    ATTENTION_BW_KV_SM90_STEP = 64,
    ATTENTION_BW_KV_SM90_HD64_BYTES =
        SM90_BYTES(64, 2 * ATTENTION_BW_SM90_TILE, ATTENTION_BW_SM90_STAGES, ATTENTION_BW_KV_SM90_STEP) +
        STATS_BYTES(ATTENTION_BW_SM90_STAGES * ATTENTION_BW_KV_SM90_STEP),
    ATTENTION_BW_KV_SM90_HD128_BYTES =
        SM90_BYTES(128, 2 * ATTENTION_BW_SM90_TILE, ATTENTION_BW_SM90_STAGES, ATTENTION_BW_KV_SM90_STEP) +
        STATS_BYTES(ATTENTION_BW_SM90_STAGES * ATTENTION_BW_KV_SM90_STEP)
};

/* ---- tensor maps --------------------------------------------------------------------------------------- */

/* A CUtensorMap, by its size and alignment: what the TMA unit is told about an array. */
typedef struct __attribute__((aligned(64))) TensorMap {
    unsigned long long opaque[16];
} TensorMap;

/* What a driver builds a TensorMap from. Dimension 0 is the contiguous one. */
typedef struct TensorMapSpec {
    unsigned long long base;       /* device address of element 0; a multiple of 16 */
    unsigned long long extents[3]; /* elements along each dimension */
    unsigned long long strides[2]; /* bytes from one element to the next along dimensions 1 and 2; multiples of 16 */
    unsigned tile[3];              /* elements of the tile that one copy moves; at most 256 each */
    unsigned rank;                 /* 2 or 3 */
    unsigned element_bytes;        /* 2 (bf16) or 4 (float) */
    unsigned swizzle_bytes;        /* 0, 32, 64 or 128; tile[0] * element_bytes may not exceed it unless it is 0 */
} TensorMapSpec;

/* ---- host emulation ------------------------------------------------------------------------------------ */

/* How host/simt.cpp runs a launch. */
typedef struct SimtOptions {
    unsigned long long seed; /* of the random order */
    unsigned order;          /* who runs next: 0 the next thread upwards, 1 downwards, 2 a random one */
    unsigned eager_copies;   /* 0: asynchronous copies happen as late as allowed; 1: as soon as they are issued */
    unsigned os_threads;     /* that share the blocks of a launch; 0 and 1 are one */
} SimtOptions;

/* ---- feed-forward -------------------------------------------------------------------------------------- */

/* add: y[len] += x[len]. */
typedef struct AddParams {
    void *y;
    const void *x;
    unsigned long long len;
} AddParams;

/* Activations of the feed-forward. */
#define ACTIVATION_SILU 0
#define ACTIVATION_GELU 1
#define ACTIVATION_GELU_TANH 2
#define ACTIVATION_GELU_SIGMOID 3
#define ACTIVATION_RELU 4

/* swiglu: y[rows, width] = f(g) * u for x[rows, 2 * width] = [g | u]. */
typedef struct SwigluParams {
    void *y;
    const void *x;
    unsigned rows;
    unsigned width;
    unsigned kind; /* ACTIVATION_.. */
} SwigluParams;

/* swiglu_bw: dx[rows, 2 * width] from dy[rows, width] and x. */
typedef struct SwigluBwParams {
    void *dx;
    const void *dy;
    const void *x;
    unsigned rows;
    unsigned width;
    unsigned kind; /* ACTIVATION_.. */
} SwigluBwParams;

/* gelu: y[len] from x[len]. */
typedef struct GeluParams {
    void *y;
    const void *x;
    unsigned long long len;
    unsigned kind; /* ACTIVATION_.. */
} GeluParams;

/* gelu_bw: dx[len] from dy[len] and x. */
typedef struct GeluBwParams {
    void *dx;
    const void *dy;
    const void *x;
    unsigned long long len;
    unsigned kind; /* ACTIVATION_.. */
} GeluBwParams;

/* ---- norms --------------------------------------------------------------------------------------------- */

/* rmsnorm: y[rows, width] and rstd[rows] from x[rows, width] and w[width]. */
typedef struct RmsnormParams {
    void *y;
    float *rstd;
    const void *x;
    const void *w;
    unsigned rows;
    unsigned width;
    float eps; /* added to the mean square before the root */
    float one; /* added to the weights: 1 (Gemma) or 0 */
} RmsnormParams;

/* The backward of a norm sums the gradients of its weights over `rows_a_block` rows a block; partials[.., parts, width]
 * has a row of sums for each block, parts = ceil(rows / rows_a_block), and column_reduce adds them up. `sums` is room
 * for the sums of every block while it runs, or null when a block has them in shared memory. */

/* rmsnorm_bw: dx[rows, width] += and partials[parts, width] of dw, from dy and x (as dx), rstd[rows] and w[width]. */
typedef struct RmsnormBwParams {
    void *dx;
    float *partials;
    float *sums;
    const void *dy;
    const void *x;
    const float *rstd;
    const void *w;
    unsigned rows;
    unsigned width;
    unsigned rows_a_block;
    float one; /* added to the weights: 1 (Gemma) or 0 */
} RmsnormBwParams;

/* layernorm: y[rows, width] and stats[rows, 2] = mean, rstd from x[rows, width], w[width] and b[width]. */
typedef struct LayernormParams {
    void *y;
    float *stats;
    const void *x;
    const void *w;
    const void *b;
    unsigned rows;
    unsigned width;
    float eps; /* added to the variance before the root */
} LayernormParams;

/* layernorm_bw: dx[rows, width] += and partials[2, parts, width] of dw and db, from dy and x (as dx), stats[rows, 2]
 * and w[width]. */
typedef struct LayernormBwParams {
    void *dx;
    float *partials;
    float *sums;
    const void *dy;
    const void *x;
    const float *stats;
    const void *w;
    unsigned rows;
    unsigned width;
    unsigned rows_a_block;
} LayernormBwParams;

/* qk_norm: y[rows, qkv] and rstd[rows, heads + kv_heads] from x[rows, qkv] = [heads | kv_heads | kv_heads] * head_dim,
 * wq[head_dim] and wk[head_dim]. */
typedef struct QkNormParams {
    void *y;
    float *rstd;
    const void *x;
    const void *wq;
    const void *wk;
    unsigned rows;
    unsigned heads;
    unsigned kv_heads;
    unsigned head_dim;
    float eps; /* added to the mean square before the root */
    float one; /* added to the weights: 1 (Gemma) or 0 */
} QkNormParams;

/* qk_norm_bw: dqkv[rows, qkv] in place and partials[2, parts, head_dim] of dwq and dwk, from what qk_norm has. */
typedef struct QkNormBwParams {
    void *dqkv;
    float *partials;
    float *sums;
    const void *x;
    const float *rstd;
    const void *wq;
    const void *wk;
    unsigned rows;
    unsigned heads;
    unsigned kv_heads;
    unsigned head_dim;
    unsigned rows_a_block;
    float one; /* added to the weights: 1 (Gemma) or 0 */
} QkNormBwParams;

/* ---- embedding, gather and rotary positions ------------------------------------------------------------ */

/* scale: y[len] *= factor. */
typedef struct ScaleParams {
    void *y;
    unsigned long long len;
    float factor;
} ScaleParams;

/* gather: y[rows, width] = table[index[r]] (+ pos_table[positions[r]], unless that is null). */
typedef struct GatherParams {
    void *y;
    const void *table;     /* [table_rows, width] */
    const void *pos_table; /* [pos_rows, width] or null */
    const unsigned *index;
    const unsigned *positions;
    unsigned rows;
    unsigned width;
    unsigned table_rows;
    unsigned pos_rows;
} GatherParams;

/* sort_rows: keys[rows] = index sorted, order[rows] = the row that each came from; equal keys keep the rows' order. */
typedef struct SortRowsParams {
    unsigned *order;
    unsigned *keys;
    const unsigned *index;
    unsigned rows;
} SortRowsParams;

/* scatter_add, embed_bw: table[keys[s], width] += dy[order[s], width], s in order, keys sorted. */
typedef struct ScatterAddParams {
    void *table; /* [table_rows, width]; float for embed_bw */
    const void *dy;
    const unsigned *order;
    const unsigned *keys;
    unsigned rows;
    unsigned width;
    unsigned table_rows;
} ScatterAddParams;

/* rope: the first `heads` heads of each row of qkv, in place; table[positions, head_dim] = cosines | sines. */
typedef struct RopeParams {
    void *qkv; /* [rows, width] */
    const float *table;
    const unsigned *positions;
    unsigned rows;
    unsigned width;
    unsigned heads; /* queries and keys */
    unsigned head_dim;
    unsigned table_rows;
    float sign; /* of the angles: -1 rotates back */
} RopeParams;

/* ---- optimizers ---------------------------------------------------------------------------------------- */

/* adamw: w[len] in place with its moments m[len], v[len] from g[len]; see optimizer.cu for the equations. */
typedef struct AdamwParams {
    void *w;
    float *master; /* [len]: the weights themselves, of which w is the rounding to nearest; or null */
    float *m;
    float *v;
    const float *g;
    const float *clip; /* one more factor on g, read when the kernel runs; or null */
    unsigned long long len;
    unsigned long long random_key; /* of stochastic rounding */
    float grad_scale;
    float beta1;
    float beta2;
    float one_minus_beta1;
    float one_minus_beta2;
    float eps;
    float step_size;    /* lr / (1 - beta1^step) */
    float inverse_root; /* 1 / sqrt(1 - beta2^step) */
    float keep;         /* 1 - lr * weight_decay */
    unsigned stochastic; /* 1: bf16 weights round up or down at random, 0: to nearest */
} AdamwParams;

/* rmsprop: w[len] in place with its mean square v[len] from g[len]. */
typedef struct RmspropParams {
    void *w;
    float *master; /* as in AdamwParams */
    float *v;
    const float *g;
    const float *clip; /* as in AdamwParams */
    unsigned long long len;
    unsigned long long random_key;
    float grad_scale;
    float alpha;
    float one_minus_alpha;
    float eps;
    float lr;
    float weight_decay;
    unsigned stochastic; /* as in AdamwParams */
} RmspropParams;

/* ---- reductions ---------------------------------------------------------------------------------------- */

/* column_sums: partials[parts, width] of dy[rows, width], parts = ceil(rows / rows_a_block). */
typedef struct ColumnSumsParams {
    float *partials;
    const void *dy;
    unsigned rows;
    unsigned width;
    unsigned rows_a_block;
} ColumnSumsParams;

/* column_reduce: out[i][width] += the sum over parts of partials[i, parts, width], for i below gridDim.y
 * unless out[i] is null. */
typedef struct ColumnReduceParams {
    float *out[2];
    const float *partials;
    unsigned parts;
    unsigned width;
} ColumnReduceParams;

/* sumsq: partials[ceil(len / block)], each the sum of squares of `block` elements of x. */
typedef struct SumsqParams {
    double *partials;
    const float *x;
    unsigned long long len;
    unsigned block; /* elements; a multiple of 4 */
} SumsqParams;

/* sum_doubles: out[0] = the sum of x[len]. */
typedef struct SumDoublesParams {
    double *out;
    const double *x;
    unsigned len;
} SumDoublesParams;

/* clip_scale: scale[0] = min(1, max_norm / (sqrt(the sum of sums[len]) + 1e-6)), or 1 when max_norm is 0. */
typedef struct ClipScaleParams {
    float *scale;
    const double *sums;
    double max_norm;
    unsigned len;
} ClipScaleParams;

/* ---- linear layers and the head ------------------------------------------------------------------------ */

/*
 * gemm, gemm_dx, gemm_dw: out[rows, columns] = sum over depth of left(row, d) right(column, d), operands and result
 * as linear.cuh has them.
 */
typedef struct LinearParams {
    void *out;            /* gemm_dw: float, `+=`; or [parts, rows, columns], overwritten, where there are several */
    const void *left;     /* [rows, depth]; gemm_dw: [depth, rows] */
    const void *right;    /* gemm: [columns, depth]; the others: [depth, columns] */
    const void *bias;     /* [columns] or null; gemm alone */
    const void *residual; /* [rows, columns] or null; gemm alone */
    unsigned rows;
    unsigned columns;
    unsigned depth;
    unsigned part;  /* depth that each part sums but the last, which has the rest: a multiple of 256, or all of it */
    unsigned parts; /* gemm_dw: how many; else 1 */
    unsigned out_stride;  /* elements from one row of out to the next: `columns` but for gemm */
    unsigned left_stride; /* likewise of left, as it is in memory; right is dense */
} LinearParams;

/* gemm_dw_sum: out[len] += the sum of parts[count, len], in order. */
typedef struct PartsSumParams {
    float *out;
    const float *parts;
    unsigned long long len;
    unsigned count;
} PartsSumParams;

/* logprob: statistics of logits[rows, vocab], one number a row each. */
typedef struct LogprobParams {
    const void *logits;
    const unsigned *targets; /* [rows], below vocab */
    float *logp;             /* ln softmax(logits)[target] */
    float *lse;              /* ln sum exp(logits) */
    float *entropy;          /* of the softmax, in nats */
    float *mean_logit;       /* over the vocabulary */
    float *hit;              /* 1 where the target's logit is the largest, else 0 */
    float *collision;        /* ln sum softmax(logits)^2 */
    unsigned vocab;
    unsigned stride;         /* elements from one row of logits to the next */
} LogprobParams;

/* soft_cap: logits[rows, vocab] = cap tanh(logits / cap), in place. */
typedef struct SoftCapParams {
    void *logits;
    unsigned vocab;
    unsigned stride; /* elements from one row of logits to the next */
    float cap;
    float inverse;   /* 1 / cap */
} SoftCapParams;

/* logprob_bw: logits[rows, vocab] = coef (onehot(target) - exp(logits - lse)) (1 - (logits / cap)^2), in place. */
typedef struct LogprobBwParams {
    void *logits;
    const float *lse;        /* [rows] */
    const float *coef;       /* [rows] */
    const unsigned *targets; /* [rows], below vocab */
    unsigned vocab;
    unsigned stride;         /* elements from one row of logits to the next */
    float inverse;           /* 1 / cap, 0 without one */
} LogprobBwParams;

/* kl: sum p (ln p - ln q) of each row, in nats; p and q the softmaxes of logits[rows, vocab]. */
typedef struct KlParams {
    float *kl;          /* [rows] */
    const void *p;
    const float *p_lse; /* [rows]: ln sum exp of the logits */
    const void *q;
    const float *q_lse; /* [rows] */
    unsigned vocab;
    unsigned stride;    /* elements from one row of logits to the next, of both */
} KlParams;

/* The token where there is none to draw. */
#define SAMPLE_NONE 0xffffffff

/* sample: a token of each row of logits[rows, vocab]. */
typedef struct SampleParams {
    unsigned *tokens;        /* [rows] */
    float *logp;             /* [rows]: ln softmax(factor logits)[token] */
    const void *logits;
    const float *draws;      /* [rows], in [0, 1) */
    unsigned vocab;
    unsigned stride;         /* elements from one row of logits to the next */
    unsigned greedy;         /* 1: the likeliest token; draws and what follows has no effect */
    unsigned top_k;          /* tokens that the first filter keeps at least; the vocabulary keeps all */
    float factor;
    float top_p;             /* 1 keeps all */
    float least;             /* weight, measured by the likeliest token's, of a token that can be drawn */
    float min_p;             /* the same, of what is left: the last filter */
} SampleParams;

/* penalise: logits[seen[i, 0], seen[i, 1]] over the penalty where it is positive, else times it. */
typedef struct PenaliseParams {
    void *logits;
    const unsigned *seen; /* [pairs, 2]: row and token */
    unsigned pairs;
    unsigned rows;
    unsigned vocab;
    unsigned stride;      /* elements from one row of logits to the next */
    float penalty;
} PenaliseParams;

/* blend: logits[rows, vocab] = (1 - m) logits + m other, in place. */
typedef struct BlendParams {
    void *logits;
    const void *other;
    unsigned vocab;
    unsigned stride; /* elements from one row of logits to the next, of both */
    float m;
} BlendParams;

/* PreferenceParams::rule. */
#define PREFERENCE_SIGMOID 0
#define PREFERENCE_IPO_SUM 1  /* of summed log-ratios */
#define PREFERENCE_IPO_MEAN 2 /* of log-ratios per row */
#define PREFERENCE_HINGE 3

/* Columns of PreferenceParams::sums. */
#define PREFERENCE_COLUMNS 6

/* preference: coefficients of whole groups' rows, and what is summed of their responses. */
typedef struct PreferenceParams {
    float *coef;               /* [rows]: derivative of the loss by each row's logp */
    double *sums;              /* [responses, 6], over each response's rows: weight * logp, entropy, mean_logit, hit and
                                * logp - collision; then the loss of the pairs in which it is preferred, by the share */
    const float *logp;         /* [rows] */
    const float *entropy;      /* [rows] */
    const float *mean_logit;   /* [rows] */
    const float *hit;          /* [rows] */
    const float *collision;    /* [rows] */
    const double *weights;     /* [rows] */
    const double *reference;   /* [responses]: the reference model's sums of weight * logp */
    const double *margins;     /* [groups] */
    const unsigned *responses; /* [responses + 1]: first row of each, and the end of the last */
    const unsigned *groups;    /* [groups + 1]: first response of each, and the end of the last */
    double beta;
    double label_smoothing;    /* of the sigmoid: share of labels that are taken to be wrong */
    double share;              /* of each pair in the loss */
    unsigned rule;             /* PREFERENCE_... */
} PreferenceParams;

/* ---- attention ----------------------------------------------------------------------------------------- */

/* Attention works on tiles of the packed rows, listed by the launch code, longest first. Rows are row numbers of the
 * batch, ranges half-open. */

/* Query rows of one segment. Each sees the rows of the prefix, and those of the segment up to itself. */
typedef struct QueryTile {
    unsigned first, end;         /* the query rows */
    unsigned segment;            /* first row of their segment */
    unsigned prefix, prefix_end; /* the prefix; empty for a prompt */
} QueryTile;

/* Key rows of one segment. Row k is seen by the query rows from k on up to query_end: those of its own segment and,
 * where that is a prompt, of all responses that follow. */
typedef struct KeyTile {
    unsigned first, end; /* the key rows */
    unsigned query_end;
} KeyTile;

/* attention: o[rows, heads * head_dim] and lse[rows, heads] from qkv[rows, (heads + 2 * kv_heads) * head_dim]. */
typedef struct AttentionParams {
    void *o;
    float *lse;
    const void *qkv;
    const QueryTile *tiles; /* gridDim.x / heads of them */
    unsigned heads;
    unsigned kv_heads;
    unsigned head_dim;
    float scale; /* 1 / sqrt(head_dim) */
} AttentionParams;

/* attention_bw: dqkv, shaped as qkv, from dout and o[rows, heads * head_dim], lse[rows, heads] and qkv. Taken by all
 * its kernels, the first of which writes stats. */
typedef struct AttentionBwParams {
    void *dqkv;
    float *stats; /* [heads, rows, 2]: log-sum-exp, and sum(dout * o) over the head */
    const void *dout;
    const void *o;
    const float *lse;
    const void *qkv;
    const QueryTile *query_tiles; /* gridDim.x / heads of them, for dq */
    const KeyTile *key_tiles;     /* gridDim.x / kv_heads of them, for dk and dv */
    unsigned rows;
    unsigned heads;
    unsigned kv_heads;
    unsigned head_dim;
    float scale; /* 1 / sqrt(head_dim) */
} AttentionBwParams;

/* attention_cached: o[rows, heads * head_dim] of the queries in qkv over two runs of rows of keys and values[capacity,
 * kv_heads * head_dim]: runs[rows, 4] has first row and number of rows of each; one may be empty. */
typedef struct AttentionCachedParams {
    void *o;
    const void *qkv;
    const void *keys;
    const void *values;
    const unsigned *runs;
    unsigned heads;
    unsigned kv_heads;
    unsigned head_dim;
    unsigned cache_rows; /* capacity */
    float scale; /* 1 / sqrt(head_dim) */
} AttentionCachedParams;

/* kv_store: the keys and values of row r of qkv to row slots[r] of keys and values[capacity, kv_width]. */
typedef struct KvStoreParams {
    void *keys;
    void *values;
    const void *qkv;
    const unsigned *slots;
    unsigned rows;
    unsigned q_width;  /* heads * head_dim */
    unsigned kv_width; /* kv_heads * head_dim */
    unsigned cache_rows; /* capacity */
} KvStoreParams;

#endif
