"""Label errors that were planted, so that it is known which they are."""

import numpy as np


def planted(rng, count=4000, classes=6, missing=0.2, false=0.02, spread=2.0):
    """Logits that are right about the true labels, given labels with errors, and the true ones: each (N, C).

    Classes share causes, so that the other labels of an image say something of each.
    """
    causes = rng.normal(size=(count, 2)) @ rng.normal(size=(2, classes))
    logits = spread * (causes + 0.6 * rng.normal(size=(count, classes))) - np.linspace(1, 3, classes)
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    turned = rng.random(truth.shape) < np.where(truth == 1, missing, false)
    return logits, np.where(turned, 1 - truth, truth).astype(np.int8), truth
