"""Learning from a teacher's soft labels."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from mlcv.numerics import at_least_float32, full_precision


def soft_label_loss(logits: Tensor, teacher: Tensor, temperature: float = 1.0, single_label: bool = False) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, 0 where they agree; T^2 keeps gradients as large as at T = 1.

    Args:
        logits: of the student, (B, C).
        teacher: logits, (B, C).
        temperature: T > 0 (Hinton et al., 2015, arXiv 1503.02531).
        single_label: KL of the softmax, summed over classes; else of each class's Bernoulli, meaned over classes.

    Returns:
        A scalar, the mean over images; 0 for an empty batch.
    """
    with full_precision(logits):
        mine, theirs = (at_least_float32(scores) / temperature for scores in (logits, teacher))
        if not len(mine):
            return mine.sum()
        if single_label:
            own, true = log_softmax(mine, dim=1), log_softmax(theirs, dim=1)
            return temperature**2 * kl_div(own, true, reduction="batchmean", log_target=True)
        soft = theirs.sigmoid()
        entropy = binary_cross_entropy_with_logits(theirs, soft)
        return temperature**2 * (binary_cross_entropy_with_logits(mine, soft) - entropy)
