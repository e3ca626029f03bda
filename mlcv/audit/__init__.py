"""Which given labels are wrong, and what to label next: statistics on logits and label states, no network."""

from mlcv.audit.judge import Judgement, judge, order, too_few

__all__ = ["Judgement", "judge", "order", "too_few"]
