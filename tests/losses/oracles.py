"""The losses' formulas, one entry at a time in Python's floats, as the papers write them."""

import math


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bce(z, t):
    p = sigmoid(z)
    return -t * math.log(p) - (1 - t) * math.log(1 - p)


def focal(z, t, gamma):
    p = sigmoid(z)
    return -t * (1 - p) ** gamma * math.log(p) - (1 - t) * p**gamma * math.log(1 - p)


def asymmetric(z, t, gamma_pos, gamma_neg, margin):
    p = sigmoid(z)
    q = max(p - margin, 0.0)
    return -t * (1 - p) ** gamma_pos * math.log(p) - (1 - t) * q**gamma_neg * math.log(1 - q)


def hill(z, t, lamb, margin, gamma):
    p, shifted = sigmoid(z), sigmoid(z - margin)
    return -t * (1 - shifted) ** gamma * math.log(shifted) + (1 - t) * (lamb - p) * p**2


def over(entry, logits, targets):
    """Sum over known entries, mean over images."""
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    return sum(entry(z, t) for zs, ts in rows for z, t in zip(zs, ts, strict=True) if t != -1) / len(logits)
