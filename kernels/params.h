/*
 * Parameters of every kernel, in plain C: nvcc, NVRTC, g++ and bindgen all read this file, so that the launch code
 * and the kernels cannot disagree. It includes nothing, since NVRTC has no system headers.
 *
 * A kernel takes one of these structs by value. `void *` points to weights or activations in the kernel's own
 * precision (float or bf16), `float *` to gradients, statistics and moments, `unsigned *` to ids and row numbers.
 * Matrices are dense and row-major. Sizes count elements unless a name says bytes.
 *
 * After a change, regenerate src/sys.rs: DUEL_BLESS=1 cargo test -p duel-kernels
 */
#ifndef DUEL_PARAMS_H
#define DUEL_PARAMS_H

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

/* How simt.cpp runs a launch. */
typedef struct SimtOptions {
    unsigned long long seed; /* of the random order */
    unsigned order;          /* who runs next: 0 the next thread upwards, 1 downwards, 2 a random one */
    unsigned eager_copies;   /* 0: asynchronous copies happen as late as allowed; 1: as soon as they are issued */
    unsigned os_threads;     /* that share the blocks of a launch; 0 and 1 are one */
} SimtOptions;

/* ---- feed-forward -------------------------------------------------------------------------------------- */

/* swiglu: y[rows, width] = silu(g) * u for x[rows, 2 * width] = [g | u]. */
typedef struct SwigluParams {
    void *y;
    const void *x;
    unsigned rows;
    unsigned width;
} SwigluParams;

/* swiglu_bw: dx[rows, 2 * width] from dy[rows, width] and x. */
typedef struct SwigluBwParams {
    void *dx;
    const void *dy;
    const void *x;
    unsigned rows;
    unsigned width;
} SwigluBwParams;

/* gelu: y[len] from x[len]. */
typedef struct GeluParams {
    void *y;
    const void *x;
    unsigned long long len;
} GeluParams;

/* gelu_bw: dx[len] from dy[len] and x. */
typedef struct GeluBwParams {
    void *dx;
    const void *dy;
    const void *x;
    unsigned long long len;
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
} QkNormBwParams;

/* ---- embedding, gather and rotary positions ------------------------------------------------------------ */

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

/* column_reduce: out[i][width] += the sum over parts of partials[i, parts, width], for i below gridDim.y. */
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

/* logprob_bw: logits[rows, vocab] = coef (onehot(target) - exp(logits - lse)), in place. */
typedef struct LogprobBwParams {
    void *logits;
    const float *lse;        /* [rows] */
    const float *coef;       /* [rows] */
    const unsigned *targets; /* [rows], below vocab */
    unsigned vocab;
    unsigned stride;         /* elements from one row of logits to the next */
} LogprobBwParams;

/* PreferenceParams::objective. */
#define PREFERENCE_SIGMOID 0
#define PREFERENCE_IPO_SUM 1  /* of summed log-ratios */
#define PREFERENCE_IPO_MEAN 2 /* of log-ratios per token */
#define PREFERENCE_HINGE 3

/* preference: loss and coefficients of a chunk of whole groups. */
typedef struct PreferenceParams {
    float *coef;               /* [rows]: derivative of the loss by each row's logp */
    double *sums;              /* [responses, 4]: logp, entropy, mean_logit and hit over each response's rows */
    double *loss;              /* [responses]: of the pairs in which each is the preferred one, over the weight */
    double *rewards;           /* [responses]: beta times the log-ratio */
    const float *logp;         /* [rows] */
    const float *entropy;      /* [rows] */
    const float *mean_logit;   /* [rows] */
    const float *hit;          /* [rows] */
    const double *reference;   /* [responses]: the reference model's sums of logp */
    const unsigned *responses; /* [responses + 1]: first row of each, and the end of the last */
    const unsigned *groups;    /* [groups + 1]: first response of each, and the end of the last */
    double beta;
    double label_smoothing;    /* of the sigmoid: share of labels that are taken to be wrong */
    double weight;             /* what the loss is divided by: pairs of the whole batch */
    unsigned objective;        /* PREFERENCE_... */
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

/* attention_cached: o[rows, heads * head_dim] of the queries in qkv over rows bases[r] .. bases[r] + lens[r] of
 * keys and values[capacity, kv_heads * head_dim]. */
typedef struct AttentionCachedParams {
    void *o;
    const void *qkv;
    const void *keys;
    const void *values;
    const unsigned *bases;
    const unsigned *lens;
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
