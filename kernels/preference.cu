// The preference objective over a chunk of whole groups, between the head's forward and its backward, so that neither
// waits for the host. Verb: preference.
//
//   l = sum of weight logp over a response's rows, in their order;  u = l - reference;  n = its rows
//   h = u_chosen - u_rejected for every pair of a group's ranking (best response first);  z = beta h - margin
//   sigmoid  -(1 - e) ln s(z) - e ln s(-z), s(z) = 1 / (1 + e^-z)   (Rafailov et al., 2023, equation 7;
//                                                                    label smoothing e: Mitchell, 2023)
//   ipo      (h - 1 / (2 beta))^2, h of the sums or of u / n        (Azar et al., 2023, equation 17)
//   hinge    max(0, 1 - z)                                          (Zhao et al., 2023)
//   coef of a row = its weight times the derivative by l of its response, summed over the pairs that it is in, each by
//   the share
//
// In double precision and in the order in which the host sums: a policy that is its reference has u = 0 exactly.
//
// Grid: a block for each group. First a thread for each response and statistic sums its rows; then a warp for each
// response takes its pairs, every lane all of them, and writes the coefficients of its rows. Bound by latency: 28
// bytes in and 4 out for a row, and a few hundred operations for each pair.
#include "common.cuh"

constexpr unsigned SUMS = PREFERENCE_COLUMNS - 1; // over rows

// ln(1 + e^x) without overflow.
DEVICE double softplus(double x) { return fmax(x, 0.0) + log1p(exp(-fabs(x))); }

// 1 / (1 + e^-x) without overflow.
DEVICE double logistic(double x) {
    const double e = exp(-fabs(x));
    return x >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

struct Response {
    double ratio; // u
    double tokens;
};

// Loss of a pair, and its derivatives by the two sums of log-probabilities.
struct PairLoss {
    double value;
    double by_chosen;
    double by_rejected;
};

DEVICE PairLoss pair_loss(const PreferenceParams &p, const Response &chosen, const Response &rejected, double margin) {
    if (p.rule == PREFERENCE_IPO_SUM || p.rule == PREFERENCE_IPO_MEAN) {
        const bool mean = p.rule == PREFERENCE_IPO_MEAN;
        const double w = mean ? 1.0 / fmax(chosen.tokens, 1.0) : 1.0;
        const double l = mean ? 1.0 / fmax(rejected.tokens, 1.0) : 1.0;
        const double miss = chosen.ratio * w - rejected.ratio * l - 1.0 / (2.0 * p.beta);
        return {miss * miss, 2.0 * miss * w, -2.0 * miss * l};
    }
    const double z = p.beta * (chosen.ratio - rejected.ratio) - margin;
    if (p.rule == PREFERENCE_HINGE) {
        const double slope = 1.0 - z > 0.0 ? -p.beta : 0.0;
        return {fmax(1.0 - z, 0.0), slope, -slope};
    }
    const double right = 1.0 - p.label_smoothing;
    const double slope = p.beta * (logistic(z) - right);
    return {right * softplus(-z) + p.label_smoothing * softplus(z), slope, -slope};
}

DEVICE Response response_of(const PreferenceParams &p, unsigned response) {
    return {p.sums[response * PREFERENCE_COLUMNS] - p.reference[response],
            static_cast<double>(p.responses[response + 1] - p.responses[response])};
}

// What a row adds to the sum in this column.
DEVICE double term(const PreferenceParams &p, unsigned column, unsigned row) {
    switch (column) { // no array of pointers: it would lie in local memory
    case 0:
        return multiply_rounded(p.weights[row], static_cast<double>(p.logp[row]));
    case 1:
        return static_cast<double>(p.entropy[row]);
    case 2:
        return static_cast<double>(p.mean_logit[row]);
    case 3:
        return static_cast<double>(p.hit[row]);
    default:
        return static_cast<double>(p.logp[row]) - static_cast<double>(p.collision[row]);
    }
}

DEVICE void sum_rows(const PreferenceParams &p, unsigned first, unsigned end) {
    for (unsigned i = first * SUMS + threadIdx.x; i < end * SUMS; i += PREFERENCE_THREADS) {
        const unsigned response = i / SUMS;
        const unsigned column = i % SUMS;
        double sum = 0.0;
#pragma unroll 8
        for (unsigned row = p.responses[response]; row < p.responses[response + 1]; row++) {
            sum += term(p, column, row);
        }
        p.sums[response * PREFERENCE_COLUMNS + column] = sum;
    }
}

DEVICE void preference_group(const PreferenceParams &p) {
    const unsigned first = p.groups[blockIdx.x];
    const unsigned end = p.groups[blockIdx.x + 1];
    const double margin = p.margins[blockIdx.x];
    sum_rows(p, first, end);
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    for (unsigned mine = first + threadIdx.x / 32; mine < end; mine += PREFERENCE_THREADS / 32) {
        const Response own = response_of(p, mine);
        double loss = 0.0;
        double slope = 0.0;
        for (unsigned other = first; other < mine; other++) {
            slope += p.share * pair_loss(p, response_of(p, other), own, margin).by_rejected;
        }
        for (unsigned other = mine + 1; other < end; other++) {
            const PairLoss pair = pair_loss(p, own, response_of(p, other), margin);
            loss += p.share * pair.value;
            slope += p.share * pair.by_chosen;
        }
        if (lane == 0) {
            p.sums[mine * PREFERENCE_COLUMNS + SUMS] = loss;
        }
        for (unsigned row = p.responses[mine] + lane; row < p.responses[mine + 1]; row += 32) {
            p.coef[row] = static_cast<float>(slope * p.weights[row]);
        }
    }
}

EXPORT_KERNEL(preference, (PREFERENCE_THREADS), PreferenceParams, preference_group);
