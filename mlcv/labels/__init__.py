"""What a label means: states, the protocols that worsen them, the policies that turn them into targets."""

from mlcv.labels.cooccurrence import cooccurrence
from mlcv.labels.policies import Policy
from mlcv.labels.protocols import Protocol, fingerprint
from mlcv.labels.states import (
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    UNKNOWN,
    check_states,
    count_states,
    evaluable,
    known,
    mix_targets,
    resolve_unknown,
)

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "UNCERTAIN",
    "UNKNOWN",
    "Policy",
    "Protocol",
    "check_states",
    "cooccurrence",
    "count_states",
    "evaluable",
    "fingerprint",
    "known",
    "mix_targets",
    "resolve_unknown",
]
