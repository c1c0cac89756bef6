// Activations of the feed-forward and their slopes, for gated halves and single ones.
#pragma once
#include "common.cuh"

constexpr float GELU_SCALE = 1.5957691216057308f; // 2 sqrt(2/pi)
constexpr float GELU_CUBIC = 0.044715f;
constexpr float GELU_SIGMOID_SCALE = 1.702f;

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE float gelu_sigmoid(float x) { return sigmoid(GELU_SCALE * (x + GELU_CUBIC * x * x * x)); }

// The share of standard normal numbers below x.
DEVICE float normal_below(float x) { return 0.5f * erfcf(-0.70710678118654752f * x); }

DEVICE float activation(unsigned kind, float x) {
    switch (kind) {
    case ACTIVATION_SILU:
        return x * sigmoid(x);
    case ACTIVATION_GELU:
        return x * normal_below(x);
    case ACTIVATION_GELU_TANH:
        return x * gelu_sigmoid(x);
    case ACTIVATION_GELU_SIGMOID:
        return x * sigmoid(GELU_SIGMOID_SCALE * x);
    default:
        return x < 0.0f ? 0.0f : x;
    }
}

// The slope of x s(z(x)), s the sigmoid.
DEVICE float sigmoid_slope(float x, float s, float dz) {
    const float tail = s * (1.0f - s);
    return s + (tail > 0.0f ? x * tail * dz : 0.0f); // x and z' may be infinite where the tail is 0
}

DEVICE float slope(unsigned kind, float x) {
    switch (kind) {
    case ACTIVATION_SILU: {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
    case ACTIVATION_GELU: {
        const float density = 0.39894228040143268f * expf(-0.5f * x * x);
        return normal_below(x) + (density > 0.0f ? x * density : 0.0f);
    }
    case ACTIVATION_GELU_TANH:
        return sigmoid_slope(x, gelu_sigmoid(x), GELU_SCALE * (1.0f + 3.0f * GELU_CUBIC * x * x));
    case ACTIVATION_GELU_SIGMOID:
        return sigmoid_slope(x, sigmoid(GELU_SIGMOID_SCALE * x), GELU_SIGMOID_SCALE);
    default:
        return x > 0.0f ? 1.0f : 0.0f;
    }
}
