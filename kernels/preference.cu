// The preference objective over a chunk of whole groups, between the head's forward and its backward, so that neither
// waits for the host. Serves the inherent method `Cuda::preference`.
//
//   l = sum of a response's logp, in row order;  u = l - reference;  n = its rows
//   h = u_chosen - u_rejected for every pair of a group's ranking (best response first)
//   sigmoid  -(1 - e) ln s(beta h) - e ln s(-beta h), s(z) = 1 / (1 + e^-z)   (Rafailov et al., 2023, equation 7;
//                                                                              label smoothing e: Mitchell, 2023)
//   ipo      (h - 1 / (2 beta))^2, h of the sums or of u / n                  (Azar et al., 2023, equation 17)
//   hinge    max(0, 1 - beta h)                                               (Zhao et al., 2023)
//   coef of a row = the derivative by l of its response, summed over the pairs that it is in, over the weight
//
// In double precision and in the order in which the host sums: a policy that is its reference has u = 0 exactly.
//
// Grid: a block for each group. First a thread for each response and statistic sums its rows; then a warp for each
// response takes its pairs, every lane all of them, and writes the coefficients of its rows. Bound by latency: 16
// bytes in and 4 out for a row, and a few hundred operations for each pair.
#include "common.cuh"

constexpr unsigned STATISTICS = 4; // columns of PreferenceParams::sums

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

DEVICE PairLoss pair_loss(const PreferenceParams &p, const Response &chosen, const Response &rejected) {
    if (p.objective == PREFERENCE_IPO_SUM || p.objective == PREFERENCE_IPO_MEAN) {
        const bool mean = p.objective == PREFERENCE_IPO_MEAN;
        const double w = mean ? 1.0 / fmax(chosen.tokens, 1.0) : 1.0;
        const double l = mean ? 1.0 / fmax(rejected.tokens, 1.0) : 1.0;
        const double miss = chosen.ratio * w - rejected.ratio * l - 1.0 / (2.0 * p.beta);
        return {miss * miss, 2.0 * miss * w, -2.0 * miss * l};
    }
    const double z = p.beta * (chosen.ratio - rejected.ratio);
    if (p.objective == PREFERENCE_HINGE) {
        const double slope = 1.0 - z > 0.0 ? -p.beta : 0.0;
        return {fmax(1.0 - z, 0.0), slope, -slope};
    }
    const double right = 1.0 - p.label_smoothing;
    const double slope = p.beta * (logistic(z) - right);
    return {right * softplus(-z) + p.label_smoothing * softplus(z), slope, -slope};
}

DEVICE Response response_of(const PreferenceParams &p, unsigned response) {
    return {p.sums[response * STATISTICS] - p.reference[response],
            static_cast<double>(p.responses[response + 1] - p.responses[response])};
}

DEVICE void sum_rows(const PreferenceParams &p, unsigned first, unsigned end) {
    for (unsigned i = first * STATISTICS + threadIdx.x; i < end * STATISTICS; i += PREFERENCE_THREADS) {
        const unsigned response = i / STATISTICS;
        const unsigned statistic = i % STATISTICS; // no array of pointers: it would lie in local memory
        const float *values = statistic == 0   ? p.logp
                              : statistic == 1 ? p.entropy
                              : statistic == 2 ? p.mean_logit
                                               : p.hit;
        double sum = 0.0;
#pragma unroll 8
        for (unsigned row = p.responses[response]; row < p.responses[response + 1]; row++) {
            sum += static_cast<double>(values[row]);
        }
        p.sums[i] = sum;
    }
}

DEVICE void preference_group(const PreferenceParams &p) {
    const unsigned first = p.groups[blockIdx.x];
    const unsigned end = p.groups[blockIdx.x + 1];
    sum_rows(p, first, end);
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    for (unsigned mine = first + threadIdx.x / 32; mine < end; mine += PREFERENCE_THREADS / 32) {
        const Response own = response_of(p, mine);
        double loss = 0.0;
        double slope = 0.0;
        for (unsigned other = first; other < mine; other++) {
            slope += pair_loss(p, response_of(p, other), own).by_rejected / p.weight;
        }
        for (unsigned other = mine + 1; other < end; other++) {
            const PairLoss pair = pair_loss(p, own, response_of(p, other));
            loss += pair.value / p.weight;
            slope += pair.by_chosen / p.weight;
        }
        if (lane == 0) {
            p.loss[mine] = loss;
            p.rewards[mine] = p.beta * own.ratio;
        }
        for (unsigned row = p.responses[mine] + lane; row < p.responses[mine + 1]; row += 32) {
            p.coef[row] = static_cast<float>(slope);
        }
    }
}

EXPORT_KERNEL(preference, (PREFERENCE_THREADS), PreferenceParams, preference_group);
